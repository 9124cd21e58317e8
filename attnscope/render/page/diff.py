"""The page of a Diff: the verdict, the times before and after, and each count that changed."""

from attnscope.render import words
from attnscope.render.diff import (
    change_lines,
    changed_counts,
    count_columns,
    diff_columns,
    finding,
    setting,
    warning_lines,
)
from attnscope.render.page.document import Page, Panel
from attnscope.render.page.panels import conclusion_panel, evidence_panel
from attnscope.render.page.tables import table_of, table_panel
from attnscope.reports.diff import Diff, TimeChange

MOST_BARS = 30


def diff_page(diff: Diff, names: tuple[str, str] = ("before", "after"), command: str | None = None) -> Page:
    """Return the page of two runs.

    Args:
        diff: their differences.
        names: their names.
        command: the command line, if there was one.
    """
    panels = [_conclusion(diff)]
    if diff.timed:
        table = table_of("Times before and after", diff_columns(diff.is_normalized), diff.timed, _style)
        panels += [
            _bars(diff),
            table_panel("times", "Times in numbers", "Each ratio has an interval.", table, brief=True),
        ]
    for number, ((title, spell), rows) in enumerate(changed_counts(diff).items()):
        table = table_of(title, count_columns(title, spell), rows, lambda row: "bold" if row.is_whole else "")
        panels.append(
            table_panel(f"count-{number}", _title(title), "Whole run and steps that changed.", table, brief=True)
        )
    changes = {change.name: f"{change.before} → {change.after}" for change in diff.environment}
    panels.append(evidence_panel(command, {"changes of the environment": changes} if changes else {}))
    return Page(f"{names[0]} → {names[1]}", "difference", panels, diff.to_json(), command)


def _title(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _conclusion(diff: Diff) -> Panel:
    lines = [("differs in", setting(change)) for change in diff.differing]
    lines += [(label, text) for label, text, _ in (*change_lines(diff), *warning_lines(diff))]
    return conclusion_panel(finding(diff), lines)


def _style(row: TimeChange) -> str:
    if row.is_whole:
        return "bold"
    return ("yellow" if (row.deciding_ratio or 1) > 1 else "green") if row.real else "dim"


def _bars(diff: Diff) -> Panel:
    """Return a pair of bars for each time, before and after."""
    rows = [row for row in diff.timed if not row.is_whole][:MOST_BARS] or diff.timed
    longest = max(max(row.before_s or 0.0, row.after_s or 0.0) for row in rows) or 1.0
    bars = [
        {
            "name": row.name if row.of == "forward" else f"{row.of} {row.name}",
            "verdict": row.verdict or "",
            "sides": [
                (side, words.NONE if value is None else words.seconds(value), round(100 * (value or 0.0) / longest, 2))
                for side, value in (("before", row.before_s), ("after", row.after_s))
            ],
        }
        for row in rows
    ]
    lead = "The first bar of a step is before, the second after."
    return Panel("bars", "Before and after", lead, "pairs", {"bars": bars}, brief=True)
