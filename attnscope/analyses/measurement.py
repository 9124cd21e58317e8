"""The stages of `explore` that run the module. Each returns its results, which are empty if it was not requested.

A mapping holds the figure of each step by its row in the plan.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from attnscope import networks
from attnscope.analyses.costs import Costs
from attnscope.attentions.spec import Spec
from attnscope.core.errors import DeviceError
from attnscope.ops.kernels import KERNELS
from attnscope.plan.plan import Plan
from attnscope.plan.roofline import Bound, Peaks, bound, seen_seconds
from attnscope.profiling.building import (
    build,
    check_fit,
    kernel_errors_explained,
    memory_errors_explained,
    needed_bytes,
    settled,
    shortage,
    too_large,
)
from attnscope.profiling.options import RunOptions
from attnscope.profiling.verification import Verification, verify_run
from attnscope.reports.report import KernelRow, StepTime, Time

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from attnscope.profiling.kernels import Contenders
    from attnscope.profiling.statistics import Samples
    from attnscope.profiling.timing import Timing, Turns

LONGEST_COUNTERPART_S = 2.0
"""Global attention that would take longer is not timed."""
LONGEST_FUSED_S = 0.3
"""The fused kernel is not timed beside a forward that takes longer, unless all kernels are requested."""


@dataclass(frozen=True)
class ForwardTimes:
    """The times of the forward and of its steps, and those of the forwards that were interleaved with it."""

    whole: Time | None = None
    steps: Mapping[int, StepTime] = field(default_factory=dict)
    beside: "Sequence[Samples]" = ()


@dataclass(frozen=True)
class Roofline:
    """The peak rates of the machine, and the roofline lower bound of the time of each step."""

    peaks: Peaks | None = None
    bounds: Mapping[int, Bound | None] = field(default_factory=dict)


@dataclass(frozen=True)
class CounterpartTimes:
    """Seconds of the attention and of global attention on the same tokens; None if they were not timed."""

    own_s: float | None = None
    reference_s: float | None = None
    reference_samples_s: tuple[float, ...] = ()
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
    roofline: Roofline = Roofline()
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
        forward = measure_forward(module, x, verification.order, options, fused)
        roofline = measure_roofline(plan, x, forward, options)
        counterpart = measure_counterpart(spec, plan, forward.whole, device, options)
        kernels = measure_kernels(spec, module, x, forward, fused, options)
        backward = measure_backward(spec, module, x, verification.order, options)
    return Measurements(verification, machine, allocated, forward, roofline, counterpart, kernels, backward)


def measure_allocated(module: "nn.Module", x: "tuple[Tensor, ...]", order: Sequence[int]) -> dict[int, int]:
    """Return the peak bytes of each step by the device's allocator, the largest of its runs; empty without CUDA."""
    if x[0].device.type != "cuda":
        return {}
    from attnscope.profiling.memory import allocated_bytes

    peaks: dict[int, int] = {}
    for row, held in zip(order, allocated_bytes(module, x), strict=True):
        peaks[row] = max(held, peaks.get(row, 0))
    return peaks


def build_fused(spec: Spec, module: "nn.Module", x: "tuple[Tensor, ...]", options: RunOptions) -> "Contenders | None":
    """Build the fused kernel that is timed beside the steps; None if it is not requested or the forward is too slow."""
    if not options.measures_time or options.kernels or spec.kernel != "eager":
        return None
    from attnscope.profiling.kernels import contenders
    from attnscope.profiling.timing import seconds_of

    if seconds_of(module, x) > LONGEST_FUSED_S:
        return None
    return contenders({"sdpa": partial(_build_if_it_fits, spec, x[0].device, kernel="sdpa")}, module, x)


def measure_forward(
    module: "nn.Module",
    x: "tuple[Tensor, ...]",
    order: Sequence[int],
    options: RunOptions,
    fused: "Contenders | None" = None,
) -> ForwardTimes:
    """Time the steps, the whole forward and the fused kernel, with interleaved runs."""
    if not options.measures_time:
        return ForwardTimes()
    from attnscope.profiling.timing import time_steps

    beside = list(fused.ready.values()) if fused else []
    timing = time_steps(module, x, options.budget, options.progress_of("the steps"), beside)
    whole = timing.whole
    if options.device == "cuda":
        from attnscope.profiling.cuda import eager_seconds, graph_seconds

        whole = replace(whole, eager_s=eager_seconds(module, x), graph_s=graph_seconds(module, x))
    return ForwardTimes(whole, times_by_row(timing, order), timing.beside)


def measure_roofline(plan: Plan, x: "tuple[Tensor, ...]", forward: ForwardTimes, options: RunOptions) -> Roofline:
    """Measure the peak rates of the machine, and return the roofline bound of each step that was timed."""
    if forward.whole is None:
        return Roofline()
    from attnscope.profiling.peaks import best_seconds, peaks_of

    machine = x[0].device, x[0].dtype, options.threads
    peaks = peaks_of(*machine)
    shortest = [min(forward.steps[row].samples_s) for row in range(len(plan.steps))]
    best = best_seconds(seen_seconds(plan.steps, shortest), *machine)
    return Roofline(peaks, {row: bound(step, peaks, best) for row, step in enumerate(plan.steps)})


def times_by_row(timing: "Timing", order: Sequence[int]) -> dict[int, StepTime]:
    """Return the time of each row of the plan; that of a row that ran several times is the mean of its runs."""
    ran: dict[int, list[int]] = {}
    for position, row in enumerate(order):
        ran.setdefault(row, []).append(position)
    return {row: timing.time_of(positions, len(positions)) for row, positions in ran.items()}


def measure_counterpart(
    spec: Spec, plan: Plan, whole: Time | None, device: "torch.device", options: RunOptions
) -> CounterpartTimes:
    """Time global attention on the same tokens, if it fits in memory and does not take too long."""
    if whole is None or isinstance(spec, networks.NetworkSpec):
        return CounterpartTimes()
    from attnscope.profiling.timing import time_forward

    own_s, counterpart = whole.whole_interquartile_mean_s, spec.counterpart()
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
    time = time_forward(*build(counterpart, device), options.budget / 2, progress)
    return CounterpartTimes(own_s, time.interquartile_mean_s, tuple(time.samples_s))


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
        return KernelTimes((eager, *fused.rows(forward.beside)))
    if not options.kernels:
        return KernelTimes()
    from attnscope.profiling.kernels import compare_kernels

    device = x[0].device
    rows, turns = compare_kernels(
        {name: partial(_build_if_it_fits, spec, device, kernel=name) for name in KERNELS},
        module,
        x,
        options.budget,
        partial(_build_if_it_fits, spec, device, kernel="eager", dtype="float64"),
        options.progress_of("kernels"),
    )
    return KernelTimes(tuple(rows), turns)


def measure_backward(
    spec: Spec, module: "nn.Module", x: "tuple[Tensor, ...]", order: Sequence[int], options: RunOptions
) -> BackwardTimes:
    """Time the backward of each step and of the whole.

    Raises:
        DeviceError: the kernel has no backward on this device.
    """
    if not (options.backward and options.measures_time):
        return BackwardTimes()
    from attnscope.profiling.backward import time_backward

    with kernel_errors_explained(spec, x[0].device, backward=True):
        timing, went = time_backward(module, x, options.budget, options.input_grad, options.progress_of("the backward"))
    reached = {row for row, back in zip(order, went, strict=True) if back}
    steps = {row: time for row, time in times_by_row(timing, order).items() if row in reached}
    return BackwardTimes(timing.whole, steps)


def _build_if_it_fits(spec: Spec, device: "torch.device", **changes: Any) -> "nn.Module":
    """Build the module of a Spec with another kernel, on the CPU, for a run on the device.

    Raises:
        UsageError: the attention does not have that kernel.
        DeviceError: its run needs more memory than the device has free.
    """
    import torch

    spec = replace(spec, **changes)
    short = shortage(needed_bytes(spec.plan()), device)
    if short is not None:
        raise DeviceError(f"it needs {short}")
    with torch.device("cpu"):
        return spec.build()
