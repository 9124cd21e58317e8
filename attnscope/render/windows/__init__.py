"""A WindowsReport on a screen, and its tables in CSV and Markdown."""

from typing import Any

from rich.console import RenderableType
from rich.text import Text

from attnscope.render.columns import Column
from attnscope.render.pictures import render_pictures
from attnscope.render.screen import Screen
from attnscope.render.windows.order import order_columns, order_parts
from attnscope.render.windows.partition import mask_columns, partition_parts
from attnscope.render.windows.positions import offset_columns, positions_parts
from attnscope.render.windows.token import sight_columns, token_parts
from attnscope.reports.windows import WindowsReport


def render_windows(report: WindowsReport, form: str, screen: Screen) -> str:
    """Return the report as a table (its pictures), json, csv, md or svg."""
    return render_pictures(report, form, screen, lambda screen: windows_parts(report, screen), lambda: tables(report))


def windows_parts(report: WindowsReport, screen: Screen) -> list[RenderableType]:
    """Return the headline, the requested views, notes, and the suggested next command."""
    shown = {"partition": partition_parts, "token": token_parts, "positions": positions_parts, "order": order_parts}
    parts: list[RenderableType] = [screen.headline(report.title)]
    for view in report.views:
        parts += [Text(""), *shown[view](report, screen)]
    lines = [("note", note, "") for note in report.notes]
    lines += screen.suggestion(*report.next)
    return [*parts, Text(""), screen.lines(lines)] if lines else parts


def tables(report: WindowsReport) -> list[tuple[list[Column[Any]], list[Any]]]:
    """Return the table of each view, columns and rows; CSV has the first one."""
    p, q = report.grid.window
    table_of: dict[str, Any] = {
        "partition": lambda: [(mask_columns(report.grid), report.grid.masks)],
        "token": lambda: [(sight_columns(report.grid), [*report.looks, *report.fields])],
        "positions": lambda: [(offset_columns(report), [(dy, dx) for dy in range(1 - p, p) for dx in range(1 - q, q)])],
        "order": lambda: [(order_columns(), [report.order_row(row) for row in range(report.order_rows)])],
    }
    return [table for view in report.views for table in table_of[view]()]
