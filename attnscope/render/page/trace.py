"""The page of a traced module: its tree of modules with their calls, and the attentions in it."""

from dataclasses import replace

from attnscope.core.sizes import plural
from attnscope.render import words
from attnscope.render.page.document import Page, Panel
from attnscope.render.page.panels import Figure, conclusion_panel
from attnscope.render.page.report import environment_panel, memory_panel, steps_of, timing_panel
from attnscope.render.page.tables import table_of, table_panel
from attnscope.render.screen import Screen
from attnscope.render.summary import held_words, spread
from attnscope.render.trace import INDENT, Line, attention_costs, attention_line, line_columns, lines_below, lines_of
from attnscope.reports.report import TraceReport

QUIET = Screen(quiet=True)
IN_NOTES = ("source", "code")
"""Columns that the tree shows below the name of a call."""


def trace_page(report: TraceReport) -> Page:
    """Return the page of a traced module."""
    panels = [
        _conclusion(report),
        _tree(report),
        *([_attentions(report)] if report.attentions else []),
        memory_panel(report),
        timing_panel(report),
        environment_panel(report),
    ]
    shown = [panel for panel in panels if panel is not None]
    missing = [] if report.time else ["This run has no times. Add --time to measure each call."]
    return Page(report.title, "trace", shown, report.to_json(), report.command, missing, steps_of(report))


def _conclusion(report: TraceReport) -> Panel:
    """Return what was found in the module, the key figures, and the lines of the screen."""
    totals = report.totals
    macs, at_least = report.total("macs")
    figures = [
        Figure("MACs", words.metric(macs) if macs is not None else f"≥ {words.metric(at_least)}", f"{at_least or 0:,}"),
        Figure("parameters", words.metric(totals.params), f"{totals.params:,}"),
        Figure("peak activation memory", held_words(totals.peak_bytes, totals.peak_bytes_at_least)),
        Figure("calls", f"{report.calls:,}"),
    ]
    if report.time:
        whole_s = report.time.whole_interquartile_mean_s
        figures.append(Figure("time of one forward", words.seconds(whole_s), f"{whole_s:.9f} s", spread(report.time)))
    lines: list[tuple[str, str]] = []
    for label, text, _ in lines_below(report, QUIET):
        if not text.startswith(INDENT):  # the costs of an attention are in a panel of their own
            lines.append((label, text))
    return conclusion_panel(_finding(report), lines, figures)


def _finding(report: TraceReport) -> str:
    """Return the number of attentions that were recognized, and their share of the MACs."""
    found = report.attentions
    if not found:
        return f"No attention was recognized in {plural(report.calls, 'call')}."
    count = sum(each.times for each in found)
    shares = [each.core_macs_share for each in found]
    share = sum(share for share in shares if share is not None)
    of = "" if None in shares else f"; q·kᵀ to weighted sum has {words.rough_percent(share)} of the MACs"
    return f"{plural(count, 'attention')} in {plural(report.calls, 'call')}{of}."


def _tree(report: TraceReport) -> Panel:
    """Return the calls below the headings of their modules, each with its source line."""
    columns = [column for column in line_columns(report) if column.key not in IN_NOTES]
    lines = list(lines_of(report))
    is_tree = report.group == "module" and not report.sort
    table = table_of("Calls, module by module", columns, lines, lambda line: "" if line.row else "bold")
    sources = [_source(line) for line in lines]
    noted = [
        replace(each, level=line.level, opens=line.row is None, note="" if source == before else source)
        for each, line, source, before in zip(table.lines, lines, sources, ["", *sources], strict=False)
    ]
    lead = "Fold a module by its name. Below the first call of a source line is that line."
    return table_panel("modules", "Modules and calls", lead, replace(table, lines=noted, is_tree=is_tree), brief=True)


def _source(line: Line) -> str:
    """Return the line of a call: `vit.py:63  x = self.qkv(x)`; empty for a heading."""
    if line.row is None or not line.row.source:
        return ""
    return f"{line.row.source}  {line.row.code}".strip()


def _attentions(report: TraceReport) -> Panel:
    """Return each attention that was recognized, with its costs and the papers' formulas."""
    lines: list[tuple[str, str]] = []
    for number, found in enumerate(report.attentions, start=1):
        lines += [(str(number), attention_line(found)), *(("", line) for line in attention_costs(found))]
        lines += [("check", mistake) for mistake in found.mistakes]
    return Panel("attentions", "Attention in this module", "", "sections", {"lines": lines})
