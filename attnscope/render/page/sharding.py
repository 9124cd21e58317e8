"""The page of an attention on several ranks."""

from attnscope.core.sizes import plural
from attnscope.core.text import in_json
from attnscope.render import words
from attnscope.render.page.document import Page
from attnscope.render.page.panels import Figure, conclusion_panel, evidence_panel
from attnscope.render.page.tables import table_of, table_panel
from attnscope.render.sharding import sharding_columns, sharding_lines, share_words
from attnscope.render.summary import held_words
from attnscope.reports.sharding import ShardingReport

STEPS = "The shapes on one device and on a rank, and the collectives before and after each step."


def sharding_page(report: ShardingReport) -> Page:
    """Return the page of a plan: what a rank sends, and its steps."""
    _, *others = sharding_lines(report)
    totals = report.totals
    sends = (
        f"one rank sends {totals.bytes_sent:,} B in {plural(totals.collectives, 'collective')}; {share_words(report)}"
    )
    figures = [
        Figure("sent by one rank", words.binary(totals.bytes_sent), f"{totals.bytes_sent:,} B", "in the forward"),
        Figure(
            "MACs of a rank", words.metric(totals.macs), f"{totals.macs:,}", f"of {words.metric(totals.whole_macs)}"
        ),
        Figure(
            "parameters of a rank",
            words.metric(totals.params),
            f"{totals.params:,}",
            f"of {words.metric(totals.whole_params)}",
        ),
        Figure("peak activation memory", held_words(totals.peak_bytes, totals.peak_bytes_at_least), "", "on a rank"),
    ]
    table = table_of("Steps", sharding_columns(report), report.steps)
    panels = [
        conclusion_panel(sends, [(label, text) for label, text, _ in others], figures),
        table_panel("steps", "Steps of a rank", STEPS, table, brief=True),
        evidence_panel(report.command, {"options": {"attention": report.attention, **report.spec}}),
    ]
    return Page(report.title, "sharding", panels, in_json(report.to_dict()), report.command)
