"""The stages of `explore` that run the module. Each returns its results, which are empty if it was not requested.

A mapping holds the figure of each step by its row in the plan.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from attnscope import networks
from attnscope.analyses.blocks import Block, measure_blocks
from attnscope.analyses.costs import Costs
from attnscope.analyses.fused import build_fused, build_if_it_fits
from attnscope.attentions.spec import Spec
from attnscope.core.interval import Interval
from attnscope.ops.kernels import KERNELS
from attnscope.plan.kernels import Alone, alone, seen_seconds
from attnscope.plan.peaks import Peaks, Raised
from attnscope.plan.plan import Plan
from attnscope.plan.roofline import Bound, Roofline, former_bound, raised, roofline
from attnscope.profiling.building import (
    build,
    check_fit,
    memory_errors_explained,
    needed_bytes,
    settled,
    shortage,
    too_large,
)
from attnscope.profiling.intervals import ratio_of_rounds
from attnscope.profiling.options import RunOptions
from attnscope.profiling.statistics import Samples
from attnscope.profiling.verification import Verification, verify_run
from attnscope.reports.gpu import GpuState
from attnscope.reports.report import KernelRow, StepTime, Time

if TYPE_CHECKING:
    from torch import Tensor, nn

    from attnscope.profiling.kernels import Contenders
    from attnscope.profiling.timing import Timing, Turns

LONGEST_COUNTERPART_S = 2.0
"""Global attention that would take longer is not timed."""


@dataclass(frozen=True)
class ForwardTimes:
    """The times of the forward and of its steps, and those of the forwards that were interleaved with it."""

    whole: Time | None = None
    steps: Mapping[int, StepTime] = field(default_factory=dict)
    beside: Sequence[Samples] = ()


@dataclass(frozen=True)
class Bounds:
    """The roofline lower bound of each step, and the best time of its kernels alone.

    Args:
        machine: the peaks of the dtype, then those of wider dtypes; empty without times.
        roofline: the lower bound of each step.
        alone: the best time of the kernels of each step that has some.
        former: the bound of each step in version 0.1.
        raised: the peaks that these steps have raised.
    """

    machine: Sequence[Peaks] = ()
    roofline: Mapping[int, Roofline | None] = field(default_factory=dict)
    alone: Mapping[int, Alone | None] = field(default_factory=dict)
    former: Mapping[int, Bound | None] = field(default_factory=dict)
    raised: Sequence[Raised] = ()


@dataclass(frozen=True)
class CounterpartTimes:
    """Seconds of the attention and of global attention on the same tokens; None if they were not timed."""

    own_s: float | None = None
    reference_s: float | None = None
    reference_samples_s: tuple[float, ...] = ()
    own_samples_s: tuple[float, ...] = ()
    reference_over_own: Interval | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class KernelTimes:
    """The same attention with other kernels, and the samples of their forwards; None if they were not run."""

    rows: tuple[KernelRow, ...] = ()
    turns: "Turns | None" = None


@dataclass(frozen=True)
class BackwardTimes:
    """The times of the backward and of the steps that it goes through."""

    whole: Time | None = None
    steps: Mapping[int, StepTime] = field(default_factory=dict)


@dataclass(frozen=True)
class Measurements:
    """The results of a run."""

    verification: Verification
    environment: Mapping[str, Any] = field(default_factory=dict)
    allocated: Mapping[int, int] = field(default_factory=dict)
    """Peak bytes of each step as reported by the device's allocator."""
    forward: ForwardTimes = ForwardTimes()
    bounds: Bounds = Bounds()
    counterpart: CounterpartTimes = CounterpartTimes()
    kernels: KernelTimes = KernelTimes()
    backward: BackwardTimes = BackwardTimes()


def measure(spec: Spec, costs: Costs, options: RunOptions) -> Measurements:
    """Build the module, verify it against the plan, and measure what the options request.

    Args:
        spec: the attention or the network to build.
        costs: its plan, and the MACs of its backward.
        options: the options, in which a device replaces "auto".

    Raises:
        DeviceError: the run does not fit in memory, or the kernel does not run on this device.
    """
    import torch

    from attnscope.profiling.devices import environment, find_device

    device, plan = find_device(options.device), costs.plan
    check_fit(spec, plan, options, device)
    machine = environment(device, options.threads, options.seed)
    # parameters created in inference mode never have gradients, so the inference mode of a caller is disabled here
    with (
        memory_errors_explained(device, too_large=too_large(spec)),
        settled(options.threads, options.seed, device),
        torch.inference_mode(False),
    ):
        module, x = build(spec, device)
        verification = verify_run(spec, plan, module, x, options, costs.backward_macs)
        allocated = measure_allocated(module, x, verification.order)
        fused = build_fused(spec, module, x, options)
        blocks, gpu = watched_blocks(spec, plan, module, x, options, fused)
        forward = measure_forward(plan, module, x, verification.order, options, blocks, gpu)
        bounds = measure_bounds(plan, x, forward, options)
        counterpart = measure_counterpart(spec, plan, forward.whole, module, x, options)
        kernels = measure_kernels(spec, module, x, forward, fused, options)
        backward = measure_backward(plan, verification.order, x, blocks, options)
    return Measurements(verification, machine, allocated, forward, bounds, counterpart, kernels, backward)


def measure_allocated(module: "nn.Module", x: "tuple[Tensor, ...]", order: Sequence[int]) -> dict[int, int]:
    """Return the peak bytes of each step by the device's allocator, the largest of its runs; empty without CUDA."""
    if x[0].device.type != "cuda":
        return {}
    from attnscope.profiling.memory import allocated_bytes

    peaks: dict[int, int] = {}
    for row, held in zip(order, allocated_bytes(module, x), strict=True):
        peaks[row] = max(held, peaks.get(row, 0))
    return peaks


def watched_blocks(
    spec: Spec,
    plan: Plan,
    module: "nn.Module",
    x: "tuple[Tensor, ...]",
    options: RunOptions,
    fused: "Contenders | None",
) -> tuple[list[Block], GpuState | None]:
    """Measure the blocks, and return them with the state of an NVIDIA GPU while this process measured."""
    if options.device != "cuda":
        return measure_blocks(spec, plan, module, x, options, fused), None
    from attnscope.profiling.nvml import gpu_watch

    watch = gpu_watch(x[0].device)
    watched = replace(options, progress=watch.sampling(options.progress))
    return measure_blocks(spec, plan, module, x, watched, fused), watch.state()


def measure_forward(
    plan: Plan,
    module: "nn.Module",
    x: "tuple[Tensor, ...]",
    order: Sequence[int],
    options: RunOptions,
    blocks: Sequence[Block],
    gpu: GpuState | None,
) -> ForwardTimes:
    """Return the times of the steps, the whole forward and the fused kernel, which were interleaved with yardsticks."""
    if not blocks:
        return ForwardTimes()
    from attnscope.profiling.timing import merge, statistics_of

    timing = statistics_of(merge([block.forward for block in blocks], [block.process for block in blocks]))
    whole, steps = at_best_speed(timing, plan, order, x[0], options.threads)
    if options.device == "cuda":
        from attnscope.profiling.cuda import eager_seconds, graph_seconds

        eager_s, graph_s = eager_seconds(module, x), graph_seconds(module, x)
        whole = replace(whole, eager_s=eager_s, graph_s=graph_s, gpu=gpu)
    return ForwardTimes(whole, steps, timing.beside)


def at_best_speed(
    timing: "Timing", plan: Plan, order: Sequence[int], x: "Tensor", threads: int
) -> tuple[Time, dict[int, StepTime]]:
    """Return the times of the whole and of each row of the plan, with those at the best speed of the host."""
    from attnscope.profiling.normalization import normalize
    from attnscope.profiling.yardsticks import best_of, name_of

    best = best_of(timing.yardsticks, x.device, x.dtype, threads)
    names = [name_of(step) for step in plan.steps]
    times = [step.times for step in plan.steps]
    return normalize(timing.whole, times_by_row(timing, order), names, times, timing.yardsticks, best)


def measure_bounds(plan: Plan, x: "tuple[Tensor, ...]", forward: ForwardTimes, options: RunOptions) -> Bounds:
    """Return the roofline lower bound of each step that was timed, and measure the kernels of each step alone.

    A step that was faster than its bound, in the forward or alone, has shown that the peaks are too low. It raises them.
    """
    if forward.whole is None:
        return Bounds()
    from attnscope.profiling.alone import best_times
    from attnscope.profiling.peaks import keep_raised, machine_peaks, today
    from attnscope.profiling.yardsticks import host_s

    where = x[0].device, x[0].dtype, options.threads
    yardstick_s = host_s({each.name: each.samples_s for each in forward.whole.yardsticks})
    peaks, *wider = machine_peaks(*where, yardstick_s)
    times = {row: forward.steps[row].interquartile_mean_s for row in range(len(plan.steps))}
    shortest = [min(forward.steps[row].samples_s) for row in times]
    best = best_times(seen_seconds(plan.steps, shortest), *where, cold=options.cold)
    own = {row: alone(step, best) for row, step in enumerate(plan.steps)}
    shown: list[Raised] = []
    for row, step in enumerate(plan.steps):
        kernels = own[row]
        took = {step.name: times[row]} | ({f"{step.name} alone": kernels.warm_s} if kernels else {})
        for by, seconds in took.items():
            for one in raised(step, [peaks, *wider], seconds, by, today()):
                peaks = peaks.raise_to(one)
                shown.append(one)
    if shown:
        keep_raised(peaks, *where)
    machine = [peaks, *wider]
    bounds = {row: roofline(step, machine) if times[row] > 0 else None for row, step in enumerate(plan.steps)}
    former = {
        row: former_bound(step, bounds[row], own[row], times[row], peaks.view_s) for row, step in enumerate(plan.steps)
    }
    return Bounds(machine, bounds, own, former, shown)


def times_by_row(timing: "Timing", order: Sequence[int]) -> dict[int, StepTime]:
    """Return the time of each row of the plan; that of a row that ran several times is the mean of its runs."""
    ran: dict[int, list[int]] = {}
    for position, row in enumerate(order):
        ran.setdefault(row, []).append(position)
    return {row: timing.time_of(positions, len(positions)) for row, positions in ran.items()}


def measure_counterpart(
    spec: Spec, plan: Plan, whole: Time | None, module: "nn.Module", x: "tuple[Tensor, ...]", options: RunOptions
) -> CounterpartTimes:
    """Time global attention on the same tokens, if it fits in memory and does not take too long.

    Its runs are interleaved with runs of this attention, so that a drift of the machine does not change their ratio.
    """
    if whole is None or isinstance(spec, networks.ComposedSpec):
        return CounterpartTimes()
    from attnscope.profiling.timing import time_in_turn

    own_s, counterpart, device = whole.whole_interquartile_mean_s, spec.counterpart(), x[0].device
    if counterpart is None:
        return CounterpartTimes(own_s)
    other = counterpart.plan()
    short = shortage(needed_bytes(other), device)
    expected_s = own_s * other.macs / plan.macs
    if short is not None:
        return CounterpartTimes(own_s, notes=(f"global attention was not timed: it needs {short}",))
    if expected_s > LONGEST_COUNTERPART_S:
        too_long = f"global attention was not timed: it would take about {expected_s:.0f} s per run"
        return CounterpartTimes(own_s, notes=(too_long,))
    progress = options.progress_of("global attention")
    forwards = [build(counterpart, device), (module, x)]
    turns = time_in_turn(forwards, options.budget / 2, progress)
    (reference, own), reference_s = turns.samples, turns.times[0].interquartile_mean_s
    ratio = ratio_of_rounds(reference, own)
    if ratio is not None:
        ratio = ratio.including(reference_s / own_s)
    return CounterpartTimes(own_s, reference_s, tuple(reference), tuple(own), ratio)


def measure_kernels(
    spec: Spec,
    module: "nn.Module",
    x: "tuple[Tensor, ...]",
    forward: ForwardTimes,
    fused: "Contenders | None",
    options: RunOptions,
) -> KernelTimes:
    """Return the times of the fused kernel beside the steps; or time every kernel, and its error against float64."""
    if forward.whole is None:
        return KernelTimes()
    if fused is not None:
        whole = forward.whole
        eager = KernelRow("eager", whole.whole_interquartile_mean_s, whole.whole_iqr_s, None, None)
        return KernelTimes((eager, *fused.rows(forward.beside, Samples(whole.whole_samples_s))))
    if not options.kernels:
        return KernelTimes()
    from attnscope.profiling.kernels import compare_kernels

    device = x[0].device
    rows, turns = compare_kernels(
        {name: partial(build_if_it_fits, spec, device, kernel=name) for name in KERNELS},
        module,
        x,
        options.budget,
        partial(build_if_it_fits, spec, device, kernel="eager", dtype="float64"),
        options.progress_of("kernels"),
    )
    return KernelTimes(tuple(rows), turns)


def measure_backward(
    plan: Plan, order: Sequence[int], x: "tuple[Tensor, ...]", blocks: Sequence[Block], options: RunOptions
) -> BackwardTimes:
    """Return the times of the backward of each step and of the whole; empty if it was not requested."""
    backward = [(block.backward, block.process) for block in blocks if block.backward]
    if not backward:
        return BackwardTimes()
    from attnscope.profiling.timing import merge, statistics_of

    timing = statistics_of(merge(*zip(*backward, strict=True)))
    whole, steps = at_best_speed(timing, plan, order, x[0], options.threads)
    reached = {row for row, back in zip(order, blocks[0].has_backward, strict=True) if back}
    return BackwardTimes(whole, {row: time for row, time in steps.items() if row in reached})
