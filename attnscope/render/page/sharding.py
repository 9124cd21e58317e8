"""The page of an attention on several ranks."""

from attnscope.core.text import in_json
from attnscope.render.page.document import Page
from attnscope.render.page.panels import conclusion_panel, evidence_panel
from attnscope.render.page.tables import table_of, table_panel
from attnscope.render.sharding import sharding_columns, sharding_lines
from attnscope.reports.sharding import ShardingReport

STEPS = "The shapes on one device and on a rank, and the collectives before and after each step."


def sharding_page(report: ShardingReport) -> Page:
    """Return the page of a plan: what a rank sends, and its steps."""
    (_, sends, _), *others = sharding_lines(report)
    table = table_of("Steps", sharding_columns(report), report.steps)
    panels = [
        conclusion_panel(sends, [(label, text) for label, text, _ in others]),
        table_panel("steps", "Steps of a rank", STEPS, table, brief=True),
        evidence_panel(report.command, {"options": {"attention": report.attention, **report.spec}}),
    ]
    return Page(report.title, "sharding", panels, in_json(report.to_dict()), report.command)
