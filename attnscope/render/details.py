"""The lines of --details: counts, formulas, conventions, roofline, the quality of the timing, the environment."""

import statistics

from attnscope.plan.peaks import Raised
from attnscope.render import words
from attnscope.render.conclusion import conclusion, idle_share, leading, macs_sentence
from attnscope.render.conventions import counted_by
from attnscope.render.screen import Labelled, labelled
from attnscope.render.steps import seconds_of, where
from attnscope.reports.gpu import GpuState
from attnscope.reports.report import Report, Time, formula_values

PEAK_NAMES = {"matmul": "matmuls", "softmax": "softmax", "memory": "memory bandwidth", "call": "calls"}
"""The words for the limits of a bound."""


def details(report: Report) -> list[Labelled]:
    """Return the evidence behind the summary."""
    return [
        *labelled("work", work_lines(report)),
        *labelled("counts", [*cost_lines(report), *report.audit.notes]),
        *labelled("formulas", formula_lines(report)),
        *labelled("others", convention_lines(report)),
        *labelled("roofline", roofline_lines(report)),
        *labelled("runs", timing_lines(report)),
        *labelled("host", host_lines(report)),
        *labelled("machine", environment_lines(report)),
    ]


def work_lines(report: Report) -> list[str]:
    """Return where the MACs are, unless the conclusion says it, and how much time is spent in steps without MACs."""
    lines = [line for line in [macs_sentence(report)] if line != conclusion(report)]
    if report.time:
        names = leading(report)
        mostly = f", mostly {', '.join(names)}" if names else ""
        lines.append(f"{words.rough_percent(idle_share(report))} of the time is spent in steps without MACs{mostly}")
    return lines


def cost_lines(report: Report) -> list[str]:
    """Return FLOPs, elementwise FLOPs and parameters, with the conventions that they follow."""
    totals = report.totals
    return [
        f"{totals.flops:,} FLOPs: 2 for each MAC (multiply-accumulate) of a matmul or convolution",
        f"{totals.other_flops:,} elementwise FLOPs of bias, softmax, norm and activation, counted apart",
        f"{totals.params:,} parameters",
    ]


def formula_lines(report: Report) -> list[str]:
    """Return the formulas with the values of this input, and the ratio of the first to the last."""
    formulas = report.complexity.formulas
    if len(formulas) == 1:
        return []
    names, forms = (max(len(getattr(f, key)) for f in formulas) for key in ("name", "formula"))
    digits = max(len(f"{f.macs:,}") for f in formulas)
    lines = [f"{f.name:<{names}} = {f.formula:<{forms}} = {f.macs:>{digits},} MACs" for f in formulas]
    ratio = report.complexity.ratio
    verdict = f"{words.times(ratio)} fewer" if ratio >= 1 else f"{words.times(1 / ratio)} more"
    if ratio == 1:
        verdict = "as many"
    return [*lines, f"{verdict} {report.complexity.saving}, with {formula_values(formulas)}"]


def convention_lines(report: Report) -> list[str]:
    """Return the MACs of one image by other counting conventions."""
    published = report.published
    if published is None:
        return []
    used = {printed.explained_by[0] for printed in published.figures if printed.explained_by}
    per_image = " per image" if report.spec.get("batch", 1) > 1 else ""
    return [
        f"{words.billions(macs)}{per_image} {counted_by(way, published.per_image)}"
        for way, macs in published.per_image.items()
        if way not in used and way != "MACs"
    ]


def kernel_lines(report: Report) -> list[str]:
    """Return the time of the fused kernel and of the steps, or a line for each kernel if all were requested."""
    kernels = {kernel.name: kernel for kernel in report.kernels}
    eager_s, fused_s = (kernels[name].time_s if name in kernels else None for name in ("eager", "sdpa"))
    if not report.compares_all_kernels:
        if not eager_s or fused_s is None:
            return []
        ratio = words.measured_ratio(kernels["sdpa"].over_eager, fused_s / eager_s)
        return [f"--kernel sdpa {words.seconds(fused_s)}, eager {words.seconds(eager_s)} ({ratio}; interleaved)"]
    width = max(map(len, kernels))
    lines = []
    for kernel in report.kernels:
        if kernel.time_s is None:
            lines.append(f"{kernel.name:<{width}}  not available: {kernel.why}")
        else:
            ratio = words.measured_ratio(kernel.over_eager, kernel.time_s / eager_s) if eager_s else f"{words.UNKNOWN}×"
            ratio = "" if kernel.name == "eager" else f"{ratio.replace('×', '× eager', 1)}"
            error = "unknown" if kernel.error is None else f"{kernel.error:.1e}"
            error = error if kernel.finite else "not finite: the output has NaN or infinite values"
            lines.append(f"{kernel.name:<{width}}  {words.seconds(kernel.time_s):>8}  error {error}  {ratio}".rstrip())
    lines.append("error: largest difference from float64, relative to its largest value")
    if any(kernel.over_eager is not None and kernel.over_eager.is_unstable for kernel in report.kernels):
        lines.append("unstable: the ends of the interval are far apart; use a longer --budget, or close other programs")
    return lines


def roofline_lines(report: Report) -> list[str]:
    """Return the time over the roofline lower bound, its peaks, the time of the kernels alone, and raised peaks."""
    floor_s, peaks = report.floor_s, report.peaks
    if not floor_s or peaks is None:
        return []
    above = [(seconds_of(row) - row.times * row.roofline.seconds, where(row)) for row in report.steps if row.roofline]
    lost = sorted(above, reverse=True)[:3]
    gaps = ", ".join(f"{name} {words.seconds(seconds)}" for seconds, name in lost if seconds > 0)
    ratio = sum(map(seconds_of, report.steps)) / floor_s
    line = f"{words.times(ratio)} the roofline lower bound ({words.seconds(floor_s)})"
    return [
        f"{line}; largest gaps: {gaps}" if gaps else line,
        *_alone_lines(report),
        *_dtype_lines(report),
        *(f"{one.by} raised the peak of {PEAK_NAMES[one.limit]}" for one in _last_raised(report)),
    ]


def _alone_lines(report: Report) -> list[str]:
    """Return the time of the steps with matmuls and softmax over the best of their kernels alone, warm and cold."""
    measured = [(row, row.alone) for row in report.steps if row.alone]
    if not measured:
        return []
    in_place_s = sum([seconds_of(row) for row, _ in measured])
    warm_s = sum([row.times * one.warm_s for row, one in measured])
    cold = [row.times * one.cold_s for row, one in measured if one.cold_s is not None]
    line = f"matmuls and softmax {words.times(in_place_s / warm_s)} their best time alone ({words.seconds(warm_s)})"
    if len(cold) == len(measured):
        cold_s = sum(cold)
        line += f", {words.times(in_place_s / cold_s)} that with cold caches ({words.seconds(cold_s)})"
    return [line]


def _dtype_lines(report: Report) -> list[str]:
    """Return the lower bound in the dtype of the run, if a wider dtype is faster on this machine."""
    bounded = [(row.times, row.roofline) for row in report.steps if row.roofline]
    least_s, own_s = (sum([n * getattr(one, key) for n, one in bounded]) for key in ("seconds", "dtype_seconds"))
    if not report.wider_peaks or own_s <= least_s:
        return []
    wider = " and ".join(peaks.dtype for peaks in report.wider_peaks)
    return [f"in {report.spec.get('dtype')} alone it is {words.seconds(own_s)}: {wider} is faster on this machine"]


def _last_raised(report: Report) -> list[Raised]:
    """Return the last raise of each peak."""
    return list({one.limit: one for one in report.raised_peaks}.values())


def timing_lines(report: Report) -> list[str]:
    """Return the method of the timing, and the figures that its quality was judged by."""
    time, env = report.time, report.environment
    if time is None:
        return []
    threads = words.threads(env)
    if time.cpu_share is not None and env["device"] == "cpu":
        threads += f" with {time.cpu_share:.0%} of the time"
    quiet = [] if time.page_faults is None else [f"{time.page_faults:,.0f} page faults"]
    quiet += [] if time.others is None else [f"load of other processes {time.others:.1f}"]
    line = [
        f"sum of steps / whole {time.steps_sum_s / time.whole_interquartile_mean_s:.3f}",
        f"whole {words.seconds(time.whole_interquartile_mean_s)}, {_remainder(time)}",
        f"{clean_runs(time)}, IQR {time.whole_iqr_s / time.whole_interquartile_mean_s:.0%}",
        threads,
        *quiet,
    ]
    return [" · ".join(line), *([_gpu_line(time)] if time.eager_s is not None else [])]


def host_lines(report: Report) -> list[str]:
    """Return the speed of the host against its best one, by each yardstick, and the time of the whole at that speed."""
    time = report.time
    if time is None or time.normalized_s is None or time.host_speed is None:
        return []
    speeds = ", ".join(f"{each.name} {each.best_s / statistics.median(each.samples_s):.2f}" for each in time.yardsticks)
    days = sorted({each.best_on for each in time.yardsticks})
    return [
        f"normalized to its best speed, whole {words.seconds(time.normalized_s)}, measured "
        f"{words.seconds(time.whole_interquartile_mean_s)}; speed over best {time.host_speed:.2f}",
        f"by yardstick: {speeds}; best of {' to '.join(dict.fromkeys((days[0], days[-1])))}",
    ]


def environment_lines(report: Report) -> list[str]:
    """Return the device, the version of torch, the allocator and the seed."""
    env = report.environment
    if "torch" not in env:
        return []
    return [
        f"{words.device(env)} · torch {env['torch']} · allocator {env['allocator']} · seed {env['seed']}",
    ]


def _remainder(time: Time) -> str:
    """Return the time of the whole that is not in a step, or the time by which the steps exceed the whole."""
    if time.remainder_s < 0:
        return f"exceeded by the steps by {words.seconds(-time.remainder_s)}"
    return f"remainder {words.seconds(time.remainder_s)}"


def _gpu_line(time: Time) -> str:
    """Return the time on the device, with launches, and as a CUDA graph."""
    parts = [
        f"device {words.seconds(time.whole_interquartile_mean_s)}",
        f"with all launches {words.seconds(time.eager_s)}",
    ]
    if time.graph_s is not None:
        parts.append(f"as a graph {words.seconds(time.graph_s)}")
    if time.gpu is not None:
        parts.append(_clock(time.gpu))
    return " · ".join(parts)


def _clock(gpu: GpuState) -> str:
    """Return the clock of the GPU, of its highest one: `clock 1,410 to 1,980 of 1,980 MHz, 54 °C, 310 W`."""
    low, high = gpu.lowest_clock_mhz, gpu.highest_clock_mhz
    parts = [f"clock {high:,}" if low == high else f"clock {low:,} to {high:,}"]
    parts[0] += " MHz" if gpu.max_clock_mhz is None else f" of {gpu.max_clock_mhz:,} MHz"
    parts += [] if gpu.temperature_c is None else [f"{gpu.temperature_c} °C"]
    parts += [] if gpu.power_w is None else [f"{gpu.power_w:.0f} W"]
    return ", ".join(parts)


def clean_runs(time: Time) -> str:
    """Return `60 runs, all clean` or `12 of 60 runs clean`, and the clock if it is processor time."""
    tried = time.tried or time.runs
    runs = f"{tried} runs, all clean" if time.clean_runs == tried else f"{time.clean_runs} of {tried} runs clean"
    return f"{runs}, in processor time" if time.clock == "thread" else runs
