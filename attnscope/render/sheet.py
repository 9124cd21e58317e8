"""A Report on a screen: headline, table, conclusion and evidence."""

from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from attnscope.render.columns import fit, rows_table
from attnscope.render.details import details, kernel_lines, roofline_lines
from attnscope.render.explanation import explanation
from attnscope.render.parts import part_columns, part_style
from attnscope.render.screen import Labelled, Screen, labelled
from attnscope.render.steps import step_columns, weight
from attnscope.render.summary import summary
from attnscope.reports.report import Report, StepRow

if TYPE_CHECKING:
    from attnscope.core.windows import Windows


def report_parts(report: Report, screen: Screen, grid: "Windows | None" = None) -> list[RenderableType]:
    """Return headline, table, hidden columns, and the parts below; `grid` adds a picture of the windows."""
    table, hidden = parts_table(report, screen) if report.parts else steps_table(report, screen)
    above = [screen.headline(report.title), Text(""), table, *screen.hidden(hidden), Text("")]
    return [*above, *parts_below(report, screen, grid)]


def parts_below(report: Report, screen: Screen, grid: "Windows | None" = None) -> list[RenderableType]:
    """Return the requested parts below the table: explanation, picture, lines and roofline."""
    parts: list[RenderableType] = []
    if "explain" in report.focus:
        parts += [*explanation(report, screen), Text("")]
    if grid:
        from attnscope.render.windows.partition import small_picture

        parts += [*small_picture(grid, screen), Text("")]
    parts.append(screen.lines(lines(report, screen)))
    if "roofline" in report.focus:
        from attnscope.render.roofline import roofline

        parts += [Text(""), *roofline(report, screen)]
    return parts


def steps_table(report: Report, screen: Screen) -> tuple[RenderableType, list[str]]:
    """Return the table of the steps, the heaviest in color, and the titles of the hidden columns."""
    columns, hidden = fit(step_columns(report), report.steps, screen)
    heaviest = max(report.steps, key=weight)

    def style(row: StepRow) -> str:
        return "bold cyan" if row is heaviest else "" if row.macs else "dim"

    return rows_table(columns, report.steps, screen, style), hidden


def parts_table(report: Report, screen: Screen) -> tuple[RenderableType, list[str]]:
    """Return the table of a network's parts, its stages in bold, and the titles of the hidden columns."""
    columns, hidden = fit(part_columns(report), report.parts, screen)
    return rows_table(columns, report.parts, screen, part_style), hidden


def lines(report: Report, screen: Screen) -> list[Labelled]:
    """Return label, text and style of each line below the table."""
    shown = summary(report)
    wants_details = "details" in report.focus
    if wants_details or report.compares_all_kernels:
        shown += labelled("kernels", kernel_lines(report))
    if wants_details:
        shown += details(report)
    elif "roofline" in report.focus:
        shown += labelled("roofline", roofline_lines(report))
    return shown + screen.suggestion(*report.next)
