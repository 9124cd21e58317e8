"""The page of a Report: an attention or a network."""

import math

from attnscope.render import words
from attnscope.render.conclusion import conclusion
from attnscope.render.details import (
    convention_lines,
    environment_lines,
    host_lines,
    kernel_lines,
    roofline_lines,
    timing_lines,
    work_lines,
)
from attnscope.render.figure import figure_lines
from attnscope.render.page.charts import Chart, log_chart, steps_chart
from attnscope.render.page.document import Page, Panel
from attnscope.render.page.flow import flow_panel, key_of
from attnscope.render.page.neighbourhood import neighbourhood_panel
from attnscope.render.page.panels import Figure, conclusion_panel, evidence_panel
from attnscope.render.page.scaling import scaling_panel
from attnscope.render.page.spec import spec_of
from attnscope.render.page.tables import table_of, table_panel
from attnscope.render.parts import part_columns, part_style
from attnscope.render.steps import over_bound, seconds_of, step_columns, where
from attnscope.render.summary import (
    backward_lines,
    held_words,
    measured_lines,
    memory_lines,
    paper_lines,
    published_lines,
    quality_lines,
    spread,
    verified_line,
)
from attnscope.reports.report import Report, StepRow, Time

MOST_LABELS = 12
"""The largest number of steps in the roofline that have their names next to them."""
MOST_MARKS = 26
"""The largest number of steps in the roofline."""
HIGHEST_RANK = 7
"""The highest rank of a column in the table of a network's steps, whose flow has the letters."""


def report_page(report: Report) -> Page:
    """Return the page of an attention or a network."""
    spec = spec_of(report)
    panels = [
        _conclusion(report),
        flow_panel(report, spec),
        *_table_panels(report),
        memory_panel(report),
        roofline_panel(report),
        scaling_panel(spec),
        neighbourhood_panel(spec) if spec is not None else None,
        timing_panel(report),
        verification_panel(report),
        environment_panel(report),
    ]
    kind = "network" if "network" in report.spec else "attention"
    shown = [panel for panel in panels if panel is not None]
    return Page(report.title, kind, shown, report.to_json(), report.command, _missing(report), steps_of(report))


def steps_of(report: Report) -> list[str]:
    """Return the names of the steps, as links have them."""
    return list(map(key_of, report.steps))


def _missing(report: Report) -> list[str]:
    """Return what this run does not have, and how to get it."""
    if report.time is None:
        return ["This run has no times. Run the command without --no-time for timing and the roofline."]
    return [] if report.peaks else ["This run has no roofline. Run the command with --roofline."]


def _conclusion(report: Report) -> Panel:
    """Return the conclusion, the key figures and the lines that support it."""
    totals = report.totals
    figures = [
        Figure("MACs", words.metric(totals.macs), f"{totals.macs:,}", f"{words.metric(totals.flops)} FLOPs"),
        Figure("parameters", words.metric(totals.params), f"{totals.params:,}", words.binary(report.parameter_bytes)),
        Figure(
            "peak activation memory",
            held_words(totals.peak_bytes, totals.peak_bytes_at_least),
            _bytes(totals.peak_bytes),
            "in inference",
        ),
    ]
    if report.time:
        whole_s = report.time.whole_interquartile_mean_s
        figures.append(Figure("time of one forward", words.seconds(whole_s), f"{whole_s:.9f} s", spread(report.time)))
    lines = [
        *(("figure", line) for line in figure_lines(report.figure)),
        ("verified" if report.audit.agree else "counts", verified_line(report)),
        *(("paper", line) for line in paper_lines(report)),
        *(("published", line) for line in published_lines(report)),
        *(("measured", line) for line in measured_lines(report)),
        *(("backward", line) for line in backward_lines(report)),
        *(("note", line) for line in report.notes),
        *((label or "warning", text) for label, text, _ in quality_lines(report, all_reasons=True)),
        *report.about.items(),
    ]
    return conclusion_panel(conclusion(report), lines, figures)


def _bytes(size: int | None) -> str:
    return words.UNKNOWN if size is None else f"{size:,} B"


def _table_panels(report: Report) -> list[Panel]:
    """Return the table of the parts of a network, and that of all steps."""
    lead = "Choose columns, and sort by a heading. Hover over a value, or focus it, for an exact count or more digits."
    columns = step_columns(report)
    if report.parts:  # a network has many steps, whose further columns are in its JSON
        columns = [column for column in columns if not column.drawn and (column.rank or 0) <= HIGHEST_RANK]
    steps = table_of("Steps with shapes, costs and memory", columns, report.steps, step=key_of)
    if not report.parts:
        return [table_panel("table", "Steps in numbers", lead, steps, brief=True)]
    parts = table_of("Parts of the network", part_columns(report), report.parts, part_style)
    return [
        table_panel("parts", "Parts in numbers", lead, parts, brief=True),
        table_panel("table", "Steps in numbers", "The same for each step.", steps, has_parts=True),
    ]


def memory_panel(report: Report) -> Panel | None:
    """Return the memory over the steps: of inference and, if the report has it, of training with its backward.

    It is None if no step has a known size.
    """
    rows, totals = report.steps, report.totals
    last = 2 * len(rows) - 1
    has_training = totals.training_peak_bytes is not None or bool(totals.training_peak_bytes_at_least)

    def held(key: str, at: int, row: StepRow, phase: str) -> tuple[int, float | None, str, str]:
        size = getattr(row, key)
        least = getattr(row, f"{key}_at_least")
        shown = size if size is not None else least
        text = f"{phase}: {_bytes(size) if size is not None else f'at least {least or 0:,} B'}"
        return at, shown, text, key_of(row)

    inference = [held("bytes_live", at, row, "inference") for at, row in enumerate(rows)]
    training = [held("bytes_training", at, row, "training") for at, row in enumerate(rows)]
    training += [
        held("bytes_backward", last - at, row, "backward")
        for at, row in reversed([*enumerate(rows)])
        if row.bytes_backward
    ]
    if not any(size for _, size, _, _ in inference):
        return None
    lines = memory_lines(report)[:1]
    lead = "Activations only: parameters come on top."
    if has_training:
        lead = f"{lead} Training keeps what the backward needs."
        backward = held_words(totals.backward_peak_bytes, totals.backward_peak_bytes_at_least)
        lines += [
            f"{held_words(totals.training_peak_bytes, totals.training_peak_bytes_at_least)} in the forward of training",
            f"{held_words(totals.kept_bytes, totals.kept_bytes_at_least)} saved for backward",
            f"{backward} in the backward, with gradients",
        ]
    chart = steps_chart(
        "Memory over the steps",
        "steps of the forward, then of the backward in reverse" if has_training else "steps of the forward",
        "peak memory during the step",
        [*([("training", training)] if has_training else []), ("inference", inference)],
        len(rows) * (2 if has_training else 1),
        lambda size: words.binary(round(size)) if size else "0",
        [(-0.5, "forward"), (len(rows) - 0.5, "backward")] if has_training else [],
        base=2,
    )
    return Panel(
        "memory", "Memory over the steps", lead, "chart_panel", {"charts": [chart], "lines": lines}, brief=True
    )


def roofline_panel(report: Report) -> Panel | None:
    """Return the steps under the roofline of the machine; None without peaks or times."""
    timed = [row for row in report.steps if over_bound(row) and row.roofline and row.roofline.intensity]
    if report.peaks is None or not timed:
        return None
    longest = sorted(timed, key=seconds_of, reverse=True)[:MOST_MARKS]
    peaks = [report.peaks, *report.wider_peaks]
    macs_per_s = max(peak.macs_per_s for peak in peaks)
    cache, memory = (max(peak.bandwidth(size) for peak in peaks) for size in (0, 2**40))
    dots = [
        (*_achieved(row), _roof_words(row), key_of(row), row.name if len(longest) <= MOST_LABELS else "")
        for row in timed
        if row in longest
    ]
    reach = [min(dot[0] for dot in dots) / 2, 2 * max(dot[0] for dot in dots), 2 * macs_per_s / memory]
    ends = sorted({*reach, 2 * macs_per_s / cache})

    def roof(name: str, bandwidth: float) -> tuple[str, list[tuple[float, float, str, str, str]]]:
        text = f"{words.metric(bandwidth, 'B/s')} {name}"
        return text, [(x, min(x * bandwidth, 2 * macs_per_s), text, "", "") for x in ends]

    chart = log_chart(
        "Roofline",
        "arithmetic intensity (FLOP/byte)",
        "FLOP/s",
        [roof("from cache", cache), roof("from memory", memory), ("steps", dots)],
        lambda value: f"{value:g}",
        words.rounded,
    )
    lead = "A step below the roof could be faster on this machine, by its distance to the roof."
    content = {"charts": [chart], "lines": roofline_lines(report), "loose": "steps"}
    return Panel("roofline", "Roofline", lead, "chart_panel", content, brief=True)


def _achieved(row: StepRow) -> tuple[float, float]:
    """Return the arithmetic intensity of a step, and the FLOP/s that it reached."""
    assert row.roofline
    assert row.time
    return row.roofline.intensity or 0.0, (row.flops + row.other_flops) / row.time.interquartile_mean_s


def _roof_words(row: StepRow) -> str:
    assert row.roofline
    ratio = words.times(over_bound(row))
    return f"{where(row)}: {row.roofline.intensity or 0:.3g} FLOP/byte, {ratio} its bound, set by {row.roofline.binds}"


def timing_panel(report: Report) -> Panel | None:
    """Return the times of the steps with their spread, and the quality of the timing; None without times."""
    if report.time is None:
        return None
    longest = max(map(seconds_of, report.steps)) or 1.0
    bars = [
        {
            "step": key_of(row),
            "name": where(row) + (f" ×{row.times}" if row.times > 1 else ""),
            "text": words.seconds(seconds_of(row)),
            "width": round(100 * seconds_of(row) / longest, 2),
            "spread": f"±{max(math.ceil(50 * row.time.iqr_s / row.time.interquartile_mean_s), 1)}%"
            if row.time and row.time.interquartile_mean_s
            else "",
            "exact": f"{seconds_of(row):.9f} s",
        }
        for row in sorted(report.steps, key=seconds_of, reverse=True)
        if row.time
    ]
    quality = [text for _, text, _ in quality_lines(report, all_reasons=True)]
    lines = [*work_lines(report), *kernel_lines(report), *host_lines(report), *timing_lines(report)]
    content = {"bars": bars[:40], "charts": [_runs_chart(report.time)], "quality": quality, "lines": lines}
    lead = "Times are interquartile means of one forward. The dots are the runs of the whole forward."
    return Panel("timing", "Timing", lead, "timing", content, brief=True)


def _runs_chart(time: Time) -> Chart:
    """Return the time of each run of the whole forward, in the order of the runs."""
    samples = time.whole_samples_s
    dots = [(at, value, f"run {at + 1}: {words.seconds(value)}", "") for at, value in enumerate(samples)]
    return steps_chart(
        "Runs of the whole forward", "runs in their order", "time", [("runs", dots)], len(samples), _axis_seconds
    )


def _axis_seconds(value: float) -> str:
    return words.seconds(float(f"{value:.3g}")) if value else "0"


def verification_panel(report: Report) -> Panel:
    """Return the MACs of each step by each independent way of counting."""
    audit = report.audit
    ways = {"shapes": "declared", "closed form": "closed_form", "fvcore": "fvcore", "torch": "torch"}
    used = {name: key for name, key in ways.items() if getattr(audit, key) is not None}
    rows = [(step.name, [getattr(step, key) for key in used.values()]) for step in audit.steps]
    rows = [(name, counts) for name, counts in rows if any(counts)]
    content = {
        "line": verified_line(report),
        "agree": audit.agree,
        "has_parts": bool(report.parts),
        "ways": list(used),
        "rows": [(name, [_count(count) for count in counts]) for name, counts in rows],
        "totals": [_count(getattr(audit, key)) for key in used.values()],
        "lines": [*audit.notes, *(f"not counted: {name}" for name in audit.uncounted), *convention_lines(report)],
    }
    lead = "Independent ways of counting must give the same integers."
    return Panel("verification", "Verification", lead, "verification", content)


def _count(count: int | None) -> str:
    return words.UNKNOWN if count is None else f"{count:,}"


def environment_panel(report: Report) -> Panel:
    """Return the options, the environment, and the command that gives this page again."""
    lines = environment_lines(report) if report.time else []
    return evidence_panel(report.command, {"options": report.spec, "environment": report.environment}, lines)
