"""The page of the presets: published networks with their costs."""

from collections.abc import Sequence
from typing import Any

from attnscope.core.text import in_json
from attnscope.networks.presets import Preset
from attnscope.render import words
from attnscope.render.page.charts import log_chart
from attnscope.render.page.document import Page, Panel
from attnscope.render.page.panels import conclusion_panel, evidence_panel
from attnscope.render.page.tables import table_of, table_panel
from attnscope.render.presets import COLUMNS, rows_of


def presets_page(presets: Sequence[Preset], command: str | None = None) -> Page:
    """Return the page of the presets.

    Args:
        presets: the presets.
        command: the command line, if there was one.
    """
    largest, smallest = (choose(presets, key=lambda preset: preset.macs) for choose in (max, min))
    sentence = (
        f"{len(presets)} published networks, from {smallest.name} with {words.metric(smallest.macs)} MACs "
        f"to {largest.name} with {words.metric(largest.macs)}."
    )
    lines = [
        ("MACs", "for one image; FLOPs are twice as many, but papers often report MACs as FLOPs"),
        ("published", "figures of papers and libraries, in billions; --scope model explains each"),
    ]
    table = table_of("Published networks", COLUMNS, presets, step=lambda preset: preset.name, most=7)
    panels = [
        conclusion_panel(sentence, lines),
        _chart(presets),
        table_panel("table", "All presets", "Choose columns, sort by a heading, and search.", table, filter=True),
        evidence_panel(command, {}),
    ]
    names = [preset.name for preset in presets]
    return Page("Presets · published networks", "presets", panels, in_json(rows_of(presets)), command, steps=names)


def _chart(presets: Sequence[Preset]) -> Panel:
    """Return MACs against parameters, a color for each command."""
    series: dict[str, list[Any]] = {}
    for preset in presets:
        text = f"{preset.name}: {preset.params:,} parameters, {preset.macs:,} MACs"
        series.setdefault(preset.command, []).append((preset.params, preset.macs, text, preset.name, ""))
    chart = log_chart(
        "MACs against parameters",
        "parameters",
        "MACs of one image",
        list(series.items()),
        words.rounded,
        words.rounded,
        joined=False,
    )
    lead = "Each dot is a preset. Click it to find its row."
    return Panel("chart", "MACs against parameters", lead, "chart_panel", {"charts": [chart], "lines": []})
