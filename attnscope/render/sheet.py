"""A Report on a screen: one table, and below it what the figures come to."""

from rich.console import RenderableType
from rich.text import Text

from attnscope.attentions.swin.geometry import Windows
from attnscope.render import words
from attnscope.render.columns import fit, rows_table
from attnscope.render.parts import part_columns
from attnscope.render.screen import Screen
from attnscope.render.steps import seconds_of, step_columns, weight
from attnscope.report import PartRow, Report, StepRow


def report_parts(report: Report, screen: Screen, grid: Windows | None = None) -> list[RenderableType]:
    """Headline, table, what was left out, a small picture of the grid where one is given, and the lines below."""
    table, dropped = parts_table(report, screen) if report.parts else steps_table(report, screen)
    parts: list[RenderableType] = [screen.headline(report.title), Text(""), table]
    if dropped:
        parts.append(screen.aside(f"not shown at {screen.width} columns: {', '.join(dropped)}"))
    if grid:
        from attnscope.render.windows.partition import small_picture

        parts += [Text(""), *small_picture(grid, screen)]
    return [*parts, Text(""), screen.lines(lines(report, screen))]


def steps_table(report: Report, screen: Screen) -> tuple[RenderableType, list[str]]:
    """The steps, the heaviest in colour, and the columns that were left out."""
    columns, dropped = fit(step_columns(report), report.steps, screen)
    heaviest = max(report.steps, key=weight)

    def style(row: StepRow) -> str:
        return "bold cyan" if row is heaviest else "" if row.macs else "dim"

    return rows_table(columns, report.steps, screen, style), dropped


def parts_table(report: Report, screen: Screen) -> tuple[RenderableType, list[str]]:
    """The parts of a network, its stages in bold, and the columns that were left out."""
    columns, dropped = fit(part_columns(report), report.parts, screen)

    def style(row: PartRow) -> str:
        return "bold" if row.is_stage else ""

    return rows_table(columns, report.parts, screen, style), dropped


def lines(report: Report, screen: Screen) -> list[tuple[str, str, str]]:
    """Label, words and style of each line below the table."""
    told = [("MACs", audit_line(report), ""), ("", cost_line(report), "")]
    told += [
        ("" if report.audit.agree else "audit", note, "yellow" if not report.audit.agree else "")
        for note in report.audit.notes
    ]
    if report.audit.uncounted:
        told.append(("", f"counted by nobody: {', '.join(report.audit.uncounted)}", "yellow"))
    told += [("paper" if not index else "", line, "") for index, line in enumerate(paper_lines(report))]
    told += [("printed" if not index else "", line, "") for index, line in enumerate(published_lines(report))]
    told += [("here" if not index else "", line, "") for index, line in enumerate(here_lines(report))]
    told.append(("memory", memory_line(report), ""))
    if report.parts:
        told.append(("", training_line(report), ""))
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
    return [*told, f"{verdict} {report.complexity.saving}, with {formulas[-1].values}"]


def published_lines(report: Report) -> list[str]:
    """What others print for this network, and the convention that explains it; then what other conventions give."""
    published = report.published
    if published is None:
        return []
    told = [
        f"{printed.figure} in {printed.source}: {' or '.join(printed.explained_by) or 'by no convention known'}"
        for printed in published.figures
    ]
    used = {printed.explained_by[0] for printed in published.figures if printed.explained_by}
    others = {way: macs for way, macs in published.conventions.items() if way not in used and way != "MACs"}
    return [*told, *(f"{words.billions(macs)} would be {way}" for way, macs in others.items())]


def training_line(report: Report) -> str:
    """Parameters, and what training keeps until the backward."""
    itemsize = report.parameter_bytes // max(report.totals.params, 1)
    saved = sum(row.times * (row.bytes_saved or 0) for row in report.steps)
    return (
        f"{words.binary(report.parameter_bytes)} of parameters, {itemsize} bytes each; "
        f"training keeps {words.binary(saved)} for the backward"
    )


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
    share = sum(map(seconds_of, idle)) / report.time.steps_sum_s
    by_name: dict[str, float] = {}
    for row in idle:
        by_name[row.name] = by_name.get(row.name, 0.0) + weight(row)
    names = sorted(by_name, key=lambda name: by_name[name], reverse=True)[:3]
    told.append(f"{share:.0%} of the time goes to steps without a MAC, most of it to {', '.join(names)}")
    return told


def memory_line(report: Report) -> str:
    """The fullest moment and where it is."""
    if report.totals.peak_bytes is None:
        return "not known: what a fused kernel holds is its own"
    fullest = max(report.steps, key=lambda row: row.bytes_live or 0)
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
            f"whole {words.seconds(time.whole_median_s)}, remainder {words.seconds(time.remainder_s)}",
            f"{time.runs} runs, IQR {time.whole_iqr_s / time.whole_median_s:.0%}",
            threads,
            device,
            f"torch {env['torch']}",
            f"allocator {env['allocator']}",
        ]
    )


def _number(count: int) -> str:
    return {2: "two", 3: "three", 4: "four"}.get(count, str(count))
