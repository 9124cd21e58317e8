"""Report -> text, one file a form. The columns are declared once, in `columns.py`, and serve every form."""

from collections.abc import Callable

from attnscope.render.flat import to_csv, to_markdown
from attnscope.render.screen import Screen
from attnscope.render.table import to_svg, to_table
from attnscope.report import Report

FORMS: dict[str, Callable[[Report, Screen], str]] = {
    "table": to_table,
    "json": lambda report, screen: report.to_json() + "\n",
    "csv": to_csv,
    "md": to_markdown,
    "svg": to_svg,
}


def render(report: Report, form: str, screen: Screen) -> str:
    """The report in one of FORMS."""
    return FORMS[form](report, screen)
