"""The page of the peaks of a machine."""

from attnscope.core.text import in_json
from attnscope.plan.peaks import Peaks
from attnscope.render.page.document import Page
from attnscope.render.page.panels import conclusion_panel, evidence_panel
from attnscope.render.page.tables import table_of, table_panel
from attnscope.render.peaks import peak_columns, peak_lines, peak_rows

ENVIRONMENT = ("device", "threads", "dtype")
"""Fields of the peaks that name the machine and the run."""
KEPT = "The same command measures again, and keeps the best rates of all measurements."


def peaks_page(peaks: Peaks, warnings: list[str] | None = None, command: str | None = None) -> Page:
    """Return the page of the peaks.

    Args:
        peaks: the peaks.
        warnings: reasons not to trust them.
        command: the command line, if there was one.
    """
    lines = [(label, text) for label, text, _ in peak_lines(peaks)]
    lines += [("warning", warning) for warning in warnings or []]
    table = table_of("Peak rates", peak_columns(), peak_rows(peaks))
    panels = [
        conclusion_panel("the best rates that this machine has shown", lines),
        table_panel("table", "Peak rates", "A bar is the share of the highest rate in this unit.", table, brief=True),
        evidence_panel(command, {"environment": {name: getattr(peaks, name) for name in ENVIRONMENT}}, lead=KEPT),
    ]
    return Page(peaks.title, "peaks", panels, in_json(peaks.to_dict()), command)
