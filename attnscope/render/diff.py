"""Two runs beside each other on a screen, as CSV or as Markdown."""

import json
from dataclasses import asdict
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from attnscope.diff import Change, Diff, TimeChange
from attnscope.render import words
from attnscope.render.columns import Column, fit, rows_table, to_csv, to_markdown
from attnscope.render.screen import Screen


def render_diff(diff: Diff, names: tuple[str, str], form: str, screen: Screen) -> str:
    """The difference as a table, json, csv or md."""
    if form == "json":
        return json.dumps(asdict(diff), ensure_ascii=False, allow_nan=False, indent=2) + "\n"
    columns = diff_columns()
    rows = [*diff.steps, diff.whole]
    if form == "csv":
        return to_csv(columns, rows)
    if form == "md":
        return f"**{names[0]} → {names[1]}**\n\n{to_markdown(columns, rows)}"
    return screen.draw(diff_parts(diff, names, screen))


def diff_columns() -> list[Column[TimeChange]]:
    """Step, both times, their ratio, and what it means."""
    return [
        Column[TimeChange]("step", "step", lambda row: row.name, right=False),
        Column[TimeChange]("before_s", "before", lambda row: row.before_s, words.seconds),
        Column[TimeChange]("after_s", "after", lambda row: row.after_s, words.seconds),
        Column[TimeChange]("ratio", "after / before", lambda row: row.ratio, _ratio, rank=1),
        Column[TimeChange]("verdict", "", verdict, rank=0, right=False),
    ]


def verdict(change: TimeChange) -> str:
    """Slower, faster, or no real difference."""
    if change.ratio is None:
        return "not measured in both"
    if not change.real:
        return "no real difference"
    return "slower" if change.ratio > 1 else "faster"


def diff_parts(diff: Diff, names: tuple[str, str], screen: Screen) -> list[RenderableType]:
    """Environment first, then what was asked, the exact costs, and the times."""
    told = [
        *_told("environment", diff.environment, "yellow"),
        *_told("spec", diff.spec, "yellow"),
        *_told("costs", diff.costs, ""),
    ]
    rows = [*diff.steps, diff.whole]
    columns, dropped = fit(diff_columns(), rows, screen)

    def style(row: TimeChange) -> str:
        whole = "bold " if row is diff.whole else ""
        if not row.real or row.ratio is None:
            return whole + ("" if whole else "dim")
        return whole + ("yellow" if row.ratio > 1 else "green")

    table = rows_table(columns, rows, screen, style)
    parts: list[RenderableType] = [screen.headline(f"{names[0]} → {names[1]}"), Text("")]
    parts += [screen.lines(told), Text(""), table]
    if dropped:
        parts.append(screen.aside(f"not shown at {screen.width} columns: {', '.join(dropped)}"))
    if diff.doubts:
        parts += [Text(""), screen.lines([("warning", doubt, "yellow") for doubt in diff.doubts])]
    return parts


def _told(label: str, changes: list[Change], style: str) -> list[tuple[str, str, str]]:
    if not changes:
        return [(label, "the same", "dim")]
    return [
        ("" if index else label, f"{change.name}: {_value(change.before)} → {_value(change.after)}", style)
        for index, change in enumerate(changes)
    ]


def _value(value: Any) -> str:
    if value is None:
        return "nothing"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _ratio(value: float | None) -> str:
    return words.UNKNOWN if value is None else f"{value:.3f}"
