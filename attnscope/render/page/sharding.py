"""The page of an attention on several ranks."""

from attnscope.core.sizes import plural
from attnscope.core.text import in_json
from attnscope.render import words
from attnscope.render.page.document import Page, Panel
from attnscope.render.page.panels import Figure, conclusion_panel, evidence_panel
from attnscope.render.page.tables import table_of, table_panel
from attnscope.render.sharding import by_bytes_sent, evidence_lines, plan_columns, sharding_columns, share_words
from attnscope.render.summary import held_words
from attnscope.reports.sharding import OtherPlan, ShardingReport

STEPS = "The shapes on one device and on a rank, and the collectives before and after each step."


def sharding_page(report: ShardingReport) -> Page:
    """Return the page of a plan: what a rank sends, the other plans, and its steps."""
    lines = [(label, text) for of in evidence_lines(report) for label, text, _ in of]
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
        conclusion_panel(sends, lines, figures),
        *([_plans_panel(report)] if report.others else []),
        table_panel("steps", "Steps of a rank", STEPS, table, brief=True),
        evidence_panel(
            report.command,
            {"options": {"attention": report.attention, **report.spec}, "environment": report.environment},
        ),
    ]
    return Page(report.title, "sharding", panels, in_json(report.to_dict()), report.command)


def _plans_panel(report: ShardingReport) -> Panel:
    """Return the bytes that one rank sends with each plan for as many ranks, as bars."""
    own = OtherPlan(report.plan, report.totals.bytes_sent)
    table = table_of(
        "Bytes sent by plan",
        plan_columns(report),
        by_bytes_sent([own, *report.others]),
        lambda plan: "bold" if plan is own else "",
    )
    lead = (
        f"What one rank sends in the forward with each plan for {plural(report.ranks, 'rank')}; this plan is in bold."
    )
    return table_panel("plans", "Bytes sent by plan", lead, table, brief=True)
