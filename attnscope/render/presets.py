"""The table of presets."""

from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from attnscope.core.axes import spell
from attnscope.core.text import in_json
from attnscope.networks.presets import Preset
from attnscope.render import words
from attnscope.render.columns import Column, fit, rows_table, to_csv, to_markdown
from attnscope.render.screen import Screen

COLUMNS = [
    Column[Preset]("preset", "preset", lambda row: row.name, rank=0, right=False),
    Column[Preset]("command", "command", lambda row: row.command, rank=3, right=False),
    Column[Preset]("timm", "timm's name", lambda row: row.timm or words.NONE, rank=2, right=False),
    Column[Preset]("image", "image", lambda row: spell(row.spec.image), rank=4),
    Column[Preset]("params", "params", lambda row: row.params, words.metric, 0),
    Column[Preset]("macs", "MACs", lambda row: row.macs, words.metric, 0),
    Column[Preset]("printed", "published", lambda row: ", ".join(dict.fromkeys(row.printed)) or words.NONE, rank=1),
    Column[Preset]("source", "source", lambda row: row.source, rank=5, right=False),
]


def render_presets(presets: Sequence[Preset], form: str, screen: Screen) -> str:
    """Return the presets as a table, json, csv or md."""
    if form == "json":
        return in_json(rows_of(presets)) + "\n"
    if form == "csv":
        return to_csv(COLUMNS, presets)
    if form == "md":
        return to_markdown(COLUMNS, presets)
    if not presets:
        return screen.draw([screen.aside("no preset satisfies --where")])
    columns, dropped = fit(COLUMNS, presets, screen)
    parts: list[RenderableType] = [rows_table(columns, presets, screen)]
    parts += screen.hidden(dropped)
    lines = [
        ("MACs", "for one image; FLOPs are twice as many, but papers often report MACs as FLOPs", ""),
        ("published", "figures of papers and libraries, in billions; --scope model explains each", ""),
    ]
    command = f"attnscope {presets[0].command} --preset {presets[0].name} --scope model --no-time"
    lines += screen.suggestion(command, "the parts of one preset")
    return screen.draw([*parts, Text(""), screen.lines(lines)])


def rows_of(presets: Sequence[Preset]) -> list[dict[str, Any]]:
    """Return the presets as plain dictionaries, lists and numbers."""
    return [
        {
            "name": preset.name,
            "command": preset.command,
            "timm": preset.timm,
            "source": preset.source,
            "params": preset.params,
            "macs": preset.macs,
            "spec": preset.spec.as_dict(),
            "published": list(preset.published),
        }
        for preset in presets
    ]
