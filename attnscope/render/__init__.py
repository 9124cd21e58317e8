"""Report -> text. Columns are declared once (`columns.py`) and serve every form."""

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attnscope.attentions.swin.geometry import Windows
    from attnscope.render.screen import Screen
    from attnscope.report import Report

PICTURE_WIDTH = 100


def render(report: "Report", form: str, screen: "Screen", grid: "Windows | None" = None) -> str:
    """The report as a table, json, csv, md or svg; with a small picture of the grid on a screen and in svg."""
    # imported here: what shows something else, such as windows, need not wait for it
    from attnscope.render.columns import to_csv, to_markdown
    from attnscope.render.parts import part_columns
    from attnscope.render.sheet import report_parts
    from attnscope.render.steps import step_columns

    if form == "json":
        return report.to_json() + "\n"
    if form == "csv":
        return to_csv(step_columns(report), report.steps)
    if form == "md":
        table = (
            to_markdown(part_columns(report), report.parts)
            if report.parts
            else to_markdown(step_columns(report), report.steps)
        )
        return f"**{report.title}**\n\n{table}"
    if form == "svg":
        screen = replace(screen, width=screen.width or PICTURE_WIDTH, color=True, ascii=False)
        return screen.draw_svg(report_parts(report, screen, grid), report.command or report.title)
    return screen.draw(report_parts(report, screen, grid))
