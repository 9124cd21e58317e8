"""Render a Report in every format. Columns are declared once (`columns.py`) and serve all formats."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from attnscope.core.text import in_markdown

if TYPE_CHECKING:
    from rich.console import RenderableType
    from typing_extensions import TypeIs

    from attnscope.core.windows import Windows
    from attnscope.render.columns import Column
    from attnscope.render.screen import Screen
    from attnscope.reports.report import Report, TraceReport

PICTURE_WIDTH = 100


def render(report: "Report", form: str, screen: "Screen", grid: "Windows | None" = None) -> str:
    """Return the report as a table, json, csv, md, svg or html, or as a graph.

    Args:
        report: the report to render.
        form: "table", "json", "csv", "md", "svg" or "html"; for a traced module also "mermaid" or "dot".
        screen: the screen of a table or picture.
        grid: windows to draw below a table and in an SVG.
    """
    # imported here so that views of windows do not wait for the import
    from attnscope.render.columns import to_csv, to_markdown

    if form == "json":
        return report.to_json() + "\n"
    if form == "html":
        from attnscope.render.page import render_page

        return render_page(report)
    if form == "csv":
        return to_csv(columns_of(report), report.steps)
    if form == "md":
        return f"**{in_markdown(report.title)}**\n\n{to_markdown(*table_of(report))}{_items(report)}"
    if _is_trace(report) and form in ("mermaid", "dot"):
        from attnscope.render.graph import graph_of

        return graph_of(report, form)
    if form == "svg":
        screen = replace(screen, width=screen.picture_width(PICTURE_WIDTH), color=True, ascii=False)
        return screen.draw_svg(parts_of(report, screen, grid), report.command or report.title)
    return screen.draw(parts_of(report, screen, grid))


def findings_of(report: "Report") -> tuple[list[str], list[str]]:
    """Return the lines of --explain-figure, and the warnings that are not about times."""
    from attnscope.render.figure import figure_lines

    return figure_lines(report.figure), report.other_warnings


def _items(report: "Report") -> str:
    """Return the conventions of a figure and the warnings as a Markdown list below a table."""
    figure, warnings = findings_of(report)
    lines = [*figure, *(f"warning: {each}" for each in warnings)]
    return "".join(["\n" if lines else "", *(f"* {in_markdown(line)}\n" for line in lines)])


def _is_trace(report: "Report") -> "TypeIs[TraceReport]":
    from attnscope.reports.report import TraceReport

    return isinstance(report, TraceReport)


def notebook(report: "Report") -> dict[str, str]:
    """Return a report in each format that a notebook can show, by media type.

    Example:
        >>> import attnscope
        >>> sorted(attnscope.notebook(attnscope.explore(attnscope.ViTSpec(), time=False)))
        ['text/html', 'text/plain']
    """
    return report._repr_mimebundle_()


def columns_of(report: "Report") -> "Sequence[Column[Any]]":
    """Return the columns of a report's CSV: those of its steps or calls."""
    if _is_trace(report):
        from attnscope.render.trace import call_columns

        return call_columns(report)
    from attnscope.render.steps import step_columns

    return step_columns(report)


def table_of(report: "Report") -> "tuple[Sequence[Column[Any]], Sequence[Any], Callable[[Any], str]]":
    """Return columns, rows and a function for the style of a row: the parts of a network, or steps or calls."""
    from attnscope.render.parts import part_columns, part_style

    if not _is_trace(report) and report.parts:
        return part_columns(report), report.parts, part_style
    return columns_of(report), report.steps, lambda row: ""


def parts_of(report: "Report", screen: "Screen", grid: "Windows | None" = None) -> "list[RenderableType]":
    """Return all parts of a report's screen."""
    if _is_trace(report):
        from attnscope.render.trace import trace_parts

        return trace_parts(report, screen)
    from attnscope.render.sheet import report_parts

    return report_parts(report, screen, grid)
