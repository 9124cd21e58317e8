"""The report on a terminal: one table, and below it what the figures come to."""

import io
from html import escape
from itertools import zip_longest

from rich.box import Box
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from attnscope.render import words
from attnscope.render.columns import Column, columns_of
from attnscope.render.screen import Screen
from attnscope.report import Report, StepRow

RULES = Box("    \n    \n ── \n    \n    \n ── \n    \n    \n")
RULES_ASCII = Box("    \n    \n -- \n    \n    \n -- \n    \n    \n", ascii=True)
GAP = 2
MARGIN = 1


def to_table(report: Report, screen: Screen) -> str:
    """The whole screen as text, with colours where the screen has them."""
    out = io.StringIO()
    console = Console(
        file=out,
        width=screen.width or 10_000,
        force_terminal=screen.color,
        color_system="standard" if screen.color else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    for part in parts(report, screen):
        console.print(part, soft_wrap=screen.width is None and isinstance(part, Text))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def to_svg(report: Report, screen: Screen) -> str:
    """The screen as a picture that needs nothing from another host: the reader's own fixed-width font."""
    screen = Screen(width=screen.width or 100, color=True, quiet=screen.quiet)
    console = Console(
        file=io.StringIO(), width=screen.width, record=True, force_terminal=True, highlight=False, markup=False, emoji=False
    )
    for part in parts(report, screen):
        console.print(part)
    return console.export_svg(title=escape(report.command or report.title), code_format=SVG)


def parts(report: Report, screen: Screen) -> list[RenderableType]:
    """Headline, table, what was left out, and the lines below."""
    columns, dropped = fit(columns_of(report), report, screen)
    out: list[RenderableType] = [Padding(Text(screen.text(report.title), style="bold"), (0, MARGIN)), Text("")]
    out += [steps_table(columns, report, screen)]
    if dropped:
        names = ", ".join(dict.fromkeys(column.title for column in dropped if column.title))
        out += [Padding(Text(screen.text(f"not shown at {screen.width} columns: {names}"), style="dim"), (0, MARGIN))]
    return [*out, Text(""), lines_table(report, screen)]


def fit(columns: list[Column], report: Report, screen: Screen) -> tuple[list[Column], list[Column]]:
    """The columns that fit, and those that had to go: the highest rank first."""
    kept = [column for column in columns if column.rank is not None]
    dropped: list[Column] = []
    while screen.width is not None and _width(kept, report, screen) > screen.width and any(c.rank for c in kept):
        last = max(kept, key=lambda column: column.rank or 0)
        kept.remove(last)
        dropped.append(last)
    return kept, sorted(dropped, key=columns.index)


def steps_table(columns: list[Column], report: Report, screen: Screen) -> Table:
    """The table itself: a row a step, totals below."""
    table = Table(
        box=RULES_ASCII if screen.ascii else RULES, show_footer=True, pad_edge=False, padding=(0, GAP, 0, 0), show_edge=False
    )
    cells = {column.key: _cells(column, report, screen) for column in columns}
    for column in columns:
        head, *_, foot = cells[column.key]
        table.add_column(head, foot, justify="right" if column.right else "left", no_wrap=True, overflow="crop")
    accent = max(range(len(report.steps)), key=lambda index: _weight(report.steps[index]))
    for index, row in enumerate(report.steps):
        style = "bold cyan" if index == accent else "" if row.macs else "dim"
        table.add_row(*(cells[column.key][index + 1] for column in columns), style=style)
    return table


def lines_table(report: Report, screen: Screen) -> Table:
    """What the figures come to: a label, and words that fold under themselves."""
    grid = Table.grid(padding=(0, GAP, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text, style in lines(report, screen):
        grid.add_row(screen.text(" " * MARGIN + label), Text(screen.text(text), style=style))
    return grid


def lines(report: Report, screen: Screen) -> list[tuple[str, str, str]]:
    """Label, words and style of each line below the table."""
    told = [("MACs", audit_line(report), ""), ("", cost_line(report), "")]
    told += [("" if report.audit.agree else "audit", note, "yellow" if not report.audit.agree else "") for note in report.audit.notes]
    if report.audit.uncounted:
        told.append(("", f"counted by nobody: {', '.join(report.audit.uncounted)}", "yellow"))
    told += [("paper" if not index else "", line, "") for index, line in enumerate(paper_lines(report))]
    told += [("here" if not index else "", line, "") for index, line in enumerate(here_lines(report))]
    told.append(("memory", memory_line(report), ""))
    told += [("timing", timing_line(report), "")] if report.time else []
    told += [("note", note, "") for note in report.notes]
    told += [("warning", warning, "yellow") for warning in report.warnings]
    if not screen.quiet:
        told += [("", "", ""), ("next", f"{report.next[0]}   {report.next[1]}", "cyan")]
    return told


def audit_line(report: Report) -> str:
    """`counted three ways: 524,391,936 MACs ✓ letters = closed form = fvcore`."""
    audit = report.audit
    if not audit.agree:
        return f"counted {_number(len(audit.ways))} ways, and they disagree ✗"
    return f"counted {_number(len(audit.ways))} ways: {audit.declared:,} MACs ✓ {' = '.join(audit.ways)}"


def cost_line(report: Report) -> str:
    """FLOPs, elementwise FLOPs, parameters."""
    totals = report.totals
    return (
        f"{words.metric(totals.flops)} FLOPs (2 a MAC), and {words.metric(totals.other_flops)} elementwise "
        f"· {words.metric(totals.params)} parameters"
    )


def paper_lines(report: Report) -> list[str]:
    """The two formulas with this input's values, and their ratio."""
    formulas = report.complexity.formulas
    names, forms = (max(len(getattr(f, key)) for f in formulas) for key in ("name", "formula"))
    digits = max(len(f"{f.macs:,}") for f in formulas)
    told = [f"{f.name:<{names}} = {f.formula:<{forms}} = {f.macs:>{digits},} MACs" for f in formulas]
    ratio = report.complexity.ratio
    verdict = f"{words.times(ratio)} fewer" if ratio >= 1 else f"{words.times(1 / ratio)} more"
    return [*told, f"{verdict} in windows, with {formulas[-1].values}"]


def here_lines(report: Report) -> list[str]:
    """Measured: global beside windowed, and where the time goes that no MAC explains."""
    if report.time is None:
        return []
    told = []
    figures = report.complexity
    if figures.global_s is not None and figures.windowed_s is not None:
        ratio = figures.global_s / figures.windowed_s
        verdict = f"{words.times(ratio)} faster" if ratio >= 1 else f"{words.times(1 / ratio)} slower"
        told.append(
            f"global {words.metric(figures.global_s, 's')}, windowed {words.metric(figures.windowed_s, 's')}   {verdict}"
        )
    idle = [row for row in report.steps if not row.macs and row.time]
    share = sum(row.times * row.time.median_s for row in idle if row.time) / report.time.steps_sum_s
    names = [row.name for row in sorted(idle, key=_weight, reverse=True)[:3]]
    told.append(f"{share:.0%} of the time goes to steps without a MAC, most of it to {', '.join(names)}")
    return told


def memory_line(report: Report) -> str:
    """The fullest moment and where it is."""
    fullest = max(report.steps, key=lambda row: row.bytes_live)
    return f"{words.binary(report.totals.peak_bytes)} of activations at the fullest moment, in {fullest.name}"


def timing_line(report: Report) -> str:
    """Whether the times can be trusted, and what they were taken on."""
    time, env = report.time, report.environment
    assert time is not None
    threads = f"{env['threads']} thread{'s' if env['threads'] > 1 else ''} of {env['cores']}"
    device = f"cpu {env['cpu_capability']}" if env["device"] == "cpu" else f"{env['device']} {env['device_name']}"
    return " · ".join(
        [
            f"sum of steps / whole {time.steps_sum_s / time.whole_median_s:.3f}",
            f"whole {words.metric(time.whole_median_s, 's')}",
            f"{time.runs} runs, IQR {time.whole_iqr_s / time.whole_median_s:.0%}",
            threads,
            device,
            f"torch {env['torch']}",
            f"allocator {env['allocator']}",
        ]
    )


def _cells(column: Column, report: Report, screen: Screen) -> list[str]:
    """Head, a cell for each step, foot. The first column carries the margin."""
    total = column.total_value(report)
    shown = [column.show(column.value(row, report)) for row in report.steps]
    if column.key == "step":
        shown = [f"{name} ×{row.times}" if row.times > 1 else name for name, row in zip(shown, report.steps, strict=True)]
    foot = "" if total is None else column.show(total)
    margin = " " * MARGIN if column.key == "step" else ""
    return [margin + screen.text(text) for text in (column.title, *shown, foot)]


def _width(columns: list[Column], report: Report, screen: Screen) -> int:
    widths = [max(cell_len(cell) for cell in _cells(column, report, screen)) for column in columns]
    return sum(width + gap for width, gap in zip_longest(widths, [GAP] * len(widths)))


def _weight(row: StepRow) -> float:
    """What a row is ranked by: its time, or its MACs where nothing was measured."""
    return row.times * (row.time.median_s if row.time else row.macs)


def _number(count: int) -> str:
    return {2: "two", 3: "three", 4: "four"}.get(count, str(count))


# rich's own SVG frame without its fonts from another host
SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
  <style>
    .{unique_id}-matrix {{
      font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
      font-size: {char_height}px;
      line-height: {line_height}px;
    }}
    .{unique_id}-title {{ font-size: 18px; font-family: sans-serif; }}
    {styles}
  </style>
  <defs>
    <clipPath id="{unique_id}-clip-terminal">
      <rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
    </clipPath>
    {lines}
  </defs>
  {chrome}
  <g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
    {backgrounds}
    <g class="{unique_id}-matrix">
    {matrix}
    </g>
  </g>
</svg>
"""
