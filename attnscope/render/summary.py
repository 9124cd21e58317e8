"""The lines below a table: the conclusion, then a line for each piece of evidence."""

import math
from collections.abc import Callable

from humanize import natural_list

from attnscope.core.sizes import plural
from attnscope.render import words
from attnscope.render.conclusion import conclusion
from attnscope.render.conventions import explanation_of
from attnscope.render.figure import figure_lines
from attnscope.render.screen import Labelled, labelled
from attnscope.render.steps import where
from attnscope.reports.report import Formula, Report, StepRow, Time, formula_values

WAYS = {"letters": "shapes"}
"""Ways of counting whose words on the screen differ from their names."""


def summary(report: Report) -> list[Labelled]:
    """Return the conclusion, verification, complexity, times, memory and the quality of the timing."""
    audit = report.audit
    return [
        ("result", conclusion(report), ""),
        *labelled("figure", figure_lines(report.figure)),
        ("verified" if audit.agree else "counts", verified_line(report), "" if audit.agree else "yellow"),
        *(("", note, "yellow") for note in ([] if audit.agree else audit.notes)),
        *(("", f"not counted: {', '.join(audit.uncounted)}", "yellow") for _ in audit.uncounted[:1]),
        *labelled("paper", paper_lines(report)),
        *labelled("published", published_lines(report)),
        *labelled("measured", measured_lines(report)),
        *labelled("backward", backward_lines(report)),
        *labelled("memory", memory_lines(report)),
        *labelled("note", report.notes),
        *quality_lines(report),
    ]


def verified_line(report: Report) -> str:
    """Return `524,391,936 MACs (1.05 GFLOPs) by shapes, closed form and fvcore ✓`."""
    audit = report.audit
    *first, last = [WAYS.get(way, way) for way in audit.ways]
    ways = f"{', '.join(first)} and {last}" if first else last
    if not audit.agree:
        return f"{ways} disagree ✗"
    return f"{audit.declared:,} MACs ({words.metric(report.totals.flops, 'FLOPs')}) by {ways} ✓"


def paper_lines(report: Report) -> list[str]:
    """Return the paper's formula of this attention, then its values and the ratio to global attention."""
    formulas = report.complexity.formulas
    own = next((formula for formula in formulas if formula.macs == report.complexity.own_macs), formulas[-1])
    ratio = f"; {_compared(own, formulas[0])}" if own is not formulas[0] else ""
    rest = report.totals.macs - own.macs  # such as Swin V2's bias MLP
    beyond = f"; the formula leaves out {rest:,} MACs" if rest > 0 else ""
    return [f"{own.name} = {own.formula} = {own.macs:,} MACs", f"with {formula_values([own])}{ratio}{beyond}"]


def _compared(own: Formula, reference: Formula) -> str:
    """Return `2.20× fewer than Ω(MSA) with hw = 296`; values that both formulas share are not repeated."""
    ratio = reference.macs / own.macs
    more = f"{words.times(ratio)} fewer than" if ratio > 1 else f"{words.times(1 / ratio)} more than"
    shared = [letter.words for letter in own.letters]
    values = ", ".join(letter.words for letter in reference.letters if letter.words not in shared)
    return f"{'as many as' if ratio == 1 else more} {reference.name}{values and f' with {values}'}"


def published_lines(report: Report) -> list[str]:
    """Return each published figure of this network, and the convention that gives it."""
    if report.published is None:
        return []
    return [
        f"{printed.figure} in {printed.source}: {explanation_of(printed, report.published.per_image)}"
        for printed in report.published.figures
    ]


def measured_lines(report: Report) -> list[str]:
    """Return the times of global attention and of this attention, and their ratio."""
    lines = []
    figures = report.complexity
    if figures.own_s is not None and figures.reference_s is not None and figures.neighbourhood is not None:
        with_fix = not report.noise  # the line of the timing says what helps
        verdict = words.speed(figures.reference_over_own, figures.reference_s / figures.own_s, with_fix)
        reference, own = (words.seconds(seconds) for seconds in (figures.reference_s, figures.own_s))
        lines.append(f"global attention {reference}, {_own_name(report, figures.neighbourhood.kind)} {own} ({verdict})")
    return lines


def _own_name(report: Report, kind: str) -> str:
    """Return the kind of neighbourhood, or the name of the attention if its neighbourhood is global."""
    return kind if kind != "global" else report.spec.get("attention", kind)


def backward_lines(report: Report) -> list[str]:
    """Return the MACs and the time of the backward, and their ratios to the forward."""
    back = report.backward
    if back is None:
        return []
    of = "with the input's gradient" if back.input_grad else "without the input's gradient"
    if back.macs is None:
        known = f"at least {back.macs_at_least:,} MACs" if back.macs_at_least else "MACs unknown"
        lines = [f"{known}; {of}"]
    else:
        verified = "; shapes and torch agree ✓" if back.torch == back.macs else ""
        ratio = (
            f"{back.macs / report.totals.macs:.3f}× the forward's" if report.totals.macs else "no MACs in the forward"
        )
        lines = [f"{back.macs:,} MACs, {ratio}, {of}{verified}"]
    if back.time:
        whole_s = back.time.whole_interquartile_mean_s
        line = f"{words.seconds(whole_s)}"
        if report.time:
            ratio = words.measured_ratio(back.over_forward, whole_s / report.time.whole_interquartile_mean_s)
            line += f", {ratio.replace('×', '× the forward', 1)}"
        lines.append(f"{line}; {spread(back.time)}; sum of steps / whole {back.time.steps_sum_s / whole_s:.3f}")
    return lines


def memory_lines(report: Report) -> list[str]:
    """Return the peak activation memory; of a network, or on request, also that of training and the parameters."""
    lines = [_inference_line(report)]
    if "memory" in report.focus or report.parts:
        lines += _training_lines(report)
    if report.parts:
        itemsize = report.parameter_bytes // max(report.totals.params, 1)
        lines.append(f"{words.binary(report.parameter_bytes)} of parameters, {itemsize} bytes each")
    return lines


def _inference_line(report: Report) -> str:
    """Return the peak and its step, or a lower bound and the steps that may hold more."""
    totals = report.totals
    peak = f"{held_words(totals.peak_bytes, totals.peak_bytes_at_least)} peak activation memory"
    if totals.peak_bytes is None:
        names = dict.fromkeys(row.part if report.parts else row.name for row in report.steps if row.bytes_live is None)
        return f"{peak}; {natural_list(list(names))} may need more"
    return f"{peak}, in {where(max(report.steps, key=lambda row: row.bytes_live or 0))}"


def _training_lines(report: Report) -> list[str]:
    """Return the peaks of training in the forward and the backward with their steps, and the memory saved for backward."""
    totals = report.totals

    def within(size: int | None, held: Callable[[StepRow], int | None]) -> str:
        """Return `, in gelu`, or an empty string if the peak is unknown."""
        return "" if size is None else f", in {where(max(report.steps, key=lambda row: held(row) or 0))}"

    saved = within(totals.kept_bytes, lambda row: row.bytes_saved_together).replace(", in", ", most of it by")
    forward = within(totals.training_peak_bytes, lambda row: row.bytes_training)
    backward = within(totals.backward_peak_bytes, lambda row: row.bytes_backward)
    sizes = (
        held_words(totals.training_peak_bytes, totals.training_peak_bytes_at_least),
        held_words(totals.kept_bytes, totals.kept_bytes_at_least),
        held_words(totals.backward_peak_bytes, totals.backward_peak_bytes_at_least),
    )
    return [
        f"{sizes[0]} in the forward of training{forward}",
        f"{sizes[1]} saved for backward{saved}",
        f"{sizes[2]} in the backward, gradients included{backward}",
    ]


def held_words(size: int | None, at_least: int | None) -> str:
    """Return `5.3 MiB`, or `at least 5.3 MiB` if only a lower bound is known."""
    return words.binary(size) if size is not None or not at_least else f"at least {words.binary(at_least)}"


def quality_lines(report: Report, all_reasons: bool = False) -> list[Labelled]:
    """Return whether the times are steady, or the first reason why they are noisy, or all of them, and other warnings."""
    others = labelled("warning", report.other_warnings, "yellow")
    if report.time is None:
        return others
    if not report.noise:
        runs = plural(report.time.tried or report.time.runs, "run")
        threads = plural(report.environment["threads"], "thread")
        steady = f"steady {spread(report.time)} ({runs}, {threads}){host(report.time)}"
        return [("timing", steady, ""), *others]
    shown = report.noise if all_reasons or "details" in report.focus else report.noise[:1]
    hidden = len(report.noise) - len(shown)
    more = f" (and {hidden} more: --details)" if hidden else ""
    return [*labelled("timing", [f"noisy: {reason}{more}" for reason in shown], "yellow"), *others]


def spread(time: Time) -> str:
    """Return `±1%`: half of the interquartile range over the time of the whole, rounded up to a whole percent."""
    half = math.ceil(100 * time.whole_iqr_s / time.whole_interquartile_mean_s / 2)
    return f"±{max(half, 1)}%"


def host(time: Time) -> str:
    """Return `; host at 94% of its best (14.1 ms)`, or an empty string if it was at its best or its speed is not known."""
    if time.normalized_s is None or time.host_speed is None or round(100 * time.host_speed) >= 100:
        return ""
    return f"; host at {time.host_speed:.0%} of its best ({words.seconds(time.normalized_s)})"
