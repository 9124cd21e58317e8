"""A Report on a screen: one table, and below it what the figures come to."""

from collections.abc import Callable
from itertools import accumulate
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from attnscope.render import words
from attnscope.render.columns import fit, rows_table
from attnscope.render.parts import part_columns, part_style
from attnscope.render.screen import Screen
from attnscope.render.steps import seconds_of, step_columns, weight, where
from attnscope.reports.report import Report, StepRow, Time, formula_values

if TYPE_CHECKING:
    from attnscope.core.windows import Windows


def report_parts(report: Report, screen: Screen, grid: "Windows | None" = None) -> list[RenderableType]:
    """Headline, table, what was left out, a small picture of the grid where one is given, and the lines below."""
    table, dropped = parts_table(report, screen) if report.parts else steps_table(report, screen)
    parts: list[RenderableType] = [screen.headline(report.title), Text(""), table]
    if dropped:
        parts.append(screen.aside(f"not shown at {screen.width} columns: {', '.join(dropped)}"))
    if grid:
        from attnscope.render.windows.partition import small_picture

        parts += [Text(""), *small_picture(grid, screen)]
    parts += [Text(""), screen.lines(lines(report, screen))]
    if "roofline" in report.focus:
        from attnscope.render.roofline import roofline

        parts += [Text(""), *roofline(report, screen)]
    return parts


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
    return rows_table(columns, report.parts, screen, part_style), dropped


def lines(report: Report, screen: Screen) -> list[tuple[str, str, str]]:
    """Label, words and style of each line below the table."""
    told = [("MACs", audit_line(report), ""), ("", cost_line(report), "")]
    told += [
        ("" if report.audit.agree else "audit", note, "yellow" if not report.audit.agree else "")
        for note in report.audit.notes
    ]
    if report.audit.uncounted:
        told.append(("", f"not counted: {', '.join(report.audit.uncounted)}", "yellow"))
    told += [("paper" if not index else "", line, "") for index, line in enumerate(paper_lines(report))]
    told += [("printed" if not index else "", line, "") for index, line in enumerate(published_lines(report))]
    told += [("here" if not index else "", line, "") for index, line in enumerate(here_lines(report))]
    told += [("kernels" if not index else "", line, "") for index, line in enumerate(kernel_lines(report))]
    told += [("floor", floor_line(report, report.floor_s), "")] if report.floor_s else []
    told.append(("memory", memory_line(report), ""))
    if "memory" in report.focus or report.parts:
        told += [("", line, "") for line in training_lines(report)]
    if report.parts:
        told.append(("", parameters_line(report), ""))
    told += [("backward" if not index else "", line, "") for index, line in enumerate(backward_lines(report))]
    told += [("timing", timing_line(report), "")] if report.time else []
    told += [("", gpu_line(report.time), "")] if report.time and report.time.eager_s is not None else []
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
    """The formulas with this input's values, and the ratio of the first to the last."""
    formulas = report.complexity.formulas
    names, forms = (max(len(getattr(f, key)) for f in formulas) for key in ("name", "formula"))
    digits = max(len(f"{f.macs:,}") for f in formulas)
    told = [f"{f.name:<{names}} = {f.formula:<{forms}} = {f.macs:>{digits},} MACs" for f in formulas]
    if len(formulas) == 1:
        return [*told, f"with {formula_values(formulas)}"]
    ratio = report.complexity.ratio
    verdict = f"{words.times(ratio)} fewer" if ratio >= 1 else f"{words.times(1 / ratio)} more"
    if ratio == 1:
        verdict = "as many"
    return [*told, f"{verdict} {report.complexity.saving}, with {formula_values(formulas)}"]


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


def here_lines(report: Report) -> list[str]:
    """Measured: global attention beside this one, and where the time goes that no MAC explains."""
    if report.time is None:
        return []
    told = []
    figures = report.complexity
    if figures.own_s is not None and figures.reference_s is not None and figures.neighbourhood is not None:
        ratio = figures.reference_s / figures.own_s
        verdict = f"{words.times(ratio)} faster" if ratio >= 1 else f"{words.times(1 / ratio)} slower"
        reference, own = (words.metric(seconds, "s") for seconds in (figures.reference_s, figures.own_s))
        told.append(f"global {reference}, {_own_name(report, figures.neighbourhood.kind)} {own}   {verdict}")
    idle = [row for row in report.steps if not row.macs and row.time]
    share = sum(map(seconds_of, idle)) / report.time.steps_sum_s
    by_name: dict[str, float] = {}
    for row in idle:
        by_name[row.name] = by_name.get(row.name, 0.0) + weight(row)
    most = f", mostly {', '.join(_leading(by_name))}" if round(share, 2) else ""
    told.append(f"{share:.0%} of the time is spent in steps without MACs{most}")
    return told


def _own_name(report: Report, kind: str) -> str:
    """Return the kind of neighbourhood, or the name of an attention that is global too."""
    return kind if kind != "global" else report.spec.get("attention", kind)


def kernel_lines(report: Report) -> list[str]:
    """The fused kernel beside the steps, in one line; or every kernel that was compared."""
    kernels = {kernel.name: kernel for kernel in report.kernels}
    eager_s, fused_s = (kernels[name].time_s if name in kernels else None for name in ("eager", "sdpa"))
    if len(kernels) <= 2:  # all were not asked for
        if not eager_s or fused_s is None:
            return []
        ratio = f"{fused_s / eager_s:.2f}×, interleaved"
        return [f"--kernel sdpa {words.seconds(fused_s)}, eager {words.seconds(eager_s)} ({ratio})"]
    width = max(map(len, kernels))
    told = []
    for kernel in report.kernels:
        if kernel.time_s is None:
            told.append(f"{kernel.name:<{width}}  not here: {kernel.why}")
        else:
            ratio = f"{kernel.time_s / eager_s:5.2f}× eager" if eager_s else f"{words.UNKNOWN:>5}× eager"
            error = "not known" if kernel.error is None else f"{kernel.error:.1e}"
            told.append(f"{kernel.name:<{width}}  {words.seconds(kernel.time_s):>8}  {ratio}  error {error}")
    return [*told, "error: the largest difference from float64, over its largest value"]


def _leading(amounts: dict[str, float]) -> list[str]:
    """The names of the largest amounts, as many as come to four fifths of all, but no more than three."""
    names = sorted(amounts, key=lambda name: amounts[name], reverse=True)
    sums = accumulate(amounts[name] for name in names)
    enough = next((many for many, total in enumerate(sums, 1) if total >= 0.8 * sum(amounts.values())), len(names))
    return names[: min(enough, 3)]


def floor_line(report: Report, floor_s: float) -> str:
    """Return how far the whole is from the roofline lower bound of its steps, and which steps are farthest from theirs."""
    above = [(seconds_of(row) - row.times * row.bound.seconds, where(row)) for row in report.steps if row.bound]
    lost = sorted(above, reverse=True)[:3]
    gaps = ", ".join(f"{name} {words.seconds(seconds)}" for seconds, name in lost if seconds > 0)
    ratio = sum(map(seconds_of, report.steps)) / floor_s
    told = f"{words.times(ratio)} the roofline lower bound ({words.seconds(floor_s)})"
    return f"{told}; largest gaps: {gaps}" if gaps else told


def memory_line(report: Report) -> str:
    """The fullest moment and where it is, or a lower bound and where more may be held."""
    totals = report.totals
    held = f"{held_words(totals.peak_bytes, totals.peak_bytes_at_least)} of activations at the fullest moment"
    if totals.peak_bytes is None:
        names = dict.fromkeys(row.part if report.parts else row.name for row in report.steps if row.bytes_live is None)
        return f"{held}; what {' and '.join(names)} may hold beyond that is not known"
    return f"{held}, in {where(max(report.steps, key=lambda row: row.bytes_live or 0))}"


def training_lines(report: Report) -> list[str]:
    """The fullest moments of training, forward and backward, where they are, and what is kept between them."""
    totals = report.totals

    def within(known: int | None, held: Callable[[StepRow], int | None]) -> str:
        """Where that is, if it is known."""
        return "" if known is None else where(max(report.steps, key=lambda row: held(row) or 0))

    forward = within(totals.training_peak_bytes, lambda row: row.bytes_training)
    backward = within(totals.backward_peak_bytes, lambda row: row.bytes_backward)
    keeper = within(totals.kept_bytes, lambda row: row.bytes_saved_together)
    return [
        held_words(totals.training_peak_bytes, totals.training_peak_bytes_at_least)
        + " in the forward of training"
        + (f", in {forward}" if forward else "")
        + f"; {held_words(totals.kept_bytes, totals.kept_bytes_at_least)} are kept for the backward"
        + (f", the largest part by {keeper}" if keeper else ""),
        held_words(totals.backward_peak_bytes, totals.backward_peak_bytes_at_least)
        + " in its backward"
        + (f", in {backward}" if backward else "")
        + ", with the gradients so far",
    ]


def held_words(known: int | None, at_least: int | None) -> str:
    """Return `5.3 MiB`, or `at least 5.3 MiB` if more is not known."""
    return words.binary(known) if known is not None or not at_least else f"at least {words.binary(at_least)}"


def parameters_line(report: Report) -> str:
    """What the parameters take."""
    itemsize = report.parameter_bytes // max(report.totals.params, 1)
    return f"{words.binary(report.parameter_bytes)} of parameters, {itemsize} bytes each"


def backward_lines(report: Report) -> list[str]:
    """The backward beside the forward, in MACs and in time."""
    back = report.backward
    if back is None:
        return []
    of = "with the input's gradient" if back.input_grad else "without the input's gradient"
    if back.macs is None:
        told = [f"MACs not known; {of}"]
    else:
        counted = " ✓ letters = torch" if back.torch == back.macs else ""
        ratio = (
            f"{back.macs / report.totals.macs:.3f}× the forward's" if report.totals.macs else "no MACs in the forward"
        )
        told = [f"{back.macs:,} MACs, {ratio}, {of}{counted}"]
    if back.time:
        whole_s = back.time.whole_interquartile_mean_s
        line = f"sum of steps / whole {back.time.steps_sum_s / whole_s:.3f} · whole {words.seconds(whole_s)}"
        if report.time:
            line += f", {words.times(whole_s / report.time.whole_interquartile_mean_s)} the forward"
        told.append(f"{line} · {clean_runs(back.time)}")
    return told


def timing_line(report: Report) -> str:
    """Whether the times can be trusted, and what they were taken on."""
    time, env = report.time, report.environment
    assert time is not None
    threads = words.threads(env)
    if time.cpu_share is not None and env["device"] == "cpu":
        threads += f" with {time.cpu_share:.0%} of the time"
    quiet = [] if time.page_faults is None else [f"{time.page_faults:,.0f} page faults"]
    quiet += [] if time.others is None else [f"others' load {time.others:.1f}"]
    return " · ".join(
        [
            f"sum of steps / whole {time.steps_sum_s / time.whole_interquartile_mean_s:.3f}",
            f"whole {words.seconds(time.whole_interquartile_mean_s)}, {_remainder(time)}",
            f"{clean_runs(time)}, IQR {time.whole_iqr_s / time.whole_interquartile_mean_s:.0%}",
            threads,
            *quiet,
            words.device(env),
            f"torch {env['torch']}",
            f"allocator {env['allocator']}",
        ]
    )


def _remainder(time: Time) -> str:
    """Return the part of the whole that the steps do not explain, or by how much they exceed it."""
    if time.remainder_s < 0:
        return f"exceeded by the steps by {words.seconds(-time.remainder_s)}"
    return f"remainder {words.seconds(time.remainder_s)}"


def gpu_line(time: Time) -> str:
    """The device's own time beside the clock's, and what is left without launches."""
    told = [
        f"device {words.seconds(time.whole_interquartile_mean_s)}",
        f"with all launches {words.seconds(time.eager_s)}",
    ]
    if time.graph_s is not None:
        told.append(f"as a graph {words.seconds(time.graph_s)}")
    return " · ".join(told)


def clean_runs(time: Time) -> str:
    """`60 runs, all clean`, or `12 of 60 runs clean`; by the processor's time where too few were."""
    tried = time.tried or time.runs
    told = f"{tried} runs, all clean" if time.clean_runs == tried else f"{time.clean_runs} of {tried} runs clean"
    return f"{told}, in processor time" if time.clock == "thread" else told


def _number(count: int) -> str:
    return {2: "two", 3: "three", 4: "four"}.get(count, str(count))
