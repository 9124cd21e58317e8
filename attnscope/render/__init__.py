"""Report -> text. Columns are declared once (`columns.py`) and serve every form."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from attnscope.reports.report import Report, TraceReport

if TYPE_CHECKING:
    from rich.console import RenderableType

    from attnscope.core.windows import Windows
    from attnscope.render.columns import Column
    from attnscope.render.screen import Screen

PICTURE_WIDTH = 100


def render(report: Report, form: str, screen: "Screen", grid: "Windows | None" = None) -> str:
    """The report as a table, json, csv, md or svg; with a small picture of the grid on a screen and in svg."""
    # imported here: what shows something else, such as windows, need not wait for it
    from attnscope.render.columns import to_csv, to_markdown

    if form == "json":
        return report.to_json() + "\n"
    if form == "csv":
        return to_csv(_columns(report), report.steps)
    if form == "md":
        return f"**{report.title}**\n\n{to_markdown(*_table(report))}"
    if form == "svg":
        screen = replace(screen, width=screen.width or PICTURE_WIDTH, color=True, ascii=False)
        return screen.draw_svg(_parts(report, screen, grid), report.command or report.title)
    return screen.draw(_parts(report, screen, grid))


def notebook(report: Report) -> dict[str, str]:
    """What a notebook shows of a report, by media type."""
    from attnscope.render.columns import to_html
    from attnscope.render.screen import Screen

    return {
        "text/plain": render(report, "table", Screen(quiet=True)),
        "text/html": to_html(report.title, *_table(report)),
    }


def _columns(report: Report) -> "Sequence[Column[Any]]":
    if isinstance(report, TraceReport):
        from attnscope.render.trace import call_columns

        return call_columns(report)
    from attnscope.render.steps import step_columns

    return step_columns(report)


def _table(report: Report) -> "tuple[Sequence[Column[Any]], Sequence[Any], Callable[[Any], str]]":
    """The table of a report as a screen has it: the parts of a network, or steps; and how its rows look."""
    from attnscope.render.parts import part_columns, part_style

    if not isinstance(report, TraceReport) and report.parts:
        return part_columns(report), report.parts, part_style
    return _columns(report), report.steps, lambda row: ""


def _parts(report: Report, screen: "Screen", grid: "Windows | None") -> "list[RenderableType]":
    if isinstance(report, TraceReport):
        from attnscope.render.trace import trace_parts

        return trace_parts(report, screen)
    from attnscope.render.sheet import report_parts

    return report_parts(report, screen, grid)
