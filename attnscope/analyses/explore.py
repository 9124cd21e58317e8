"""Spec -> Report: the one place that joins plan, module and probes."""

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from attnscope import __version__, networks
from attnscope.analyses.rows import complexity_figures, part_rows, step_row, step_times, totals, whole_time
from attnscope.attentions.spec import Spec
from attnscope.core.errors import DeviceError, UsageError
from attnscope.core.optional import most, sum_of
from attnscope.ops.kernels import KERNELS, RECOMPUTING
from attnscope.plan.backward import backward_bytes, backward_macs
from attnscope.plan.memory import Memory
from attnscope.plan.plan import Plan
from attnscope.plan.roofline import Kernel, Peaks, bound, seen_seconds
from attnscope.profiling.building import (
    build,
    build_module,
    lacking,
    largest_that_fits,
    needed_bytes,
    plan_of,
    settled,
    told_when_kernel_does_not_run,
    told_when_memory_runs_out,
)
from attnscope.profiling.noise import disturbances, doubts, floor_doubt
from attnscope.profiling.options import BUDGET_S, Asked, Progress, check_arguments, check_dtype, may_be
from attnscope.profiling.verification import audit_counts, hold_against_plan, hold_backward
from attnscope.reports.report import Backward, KernelRow, Report, StepBackward, StepTime, Time

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

LONGEST_COUNTERPART_S = 2.0
LONGEST_FUSED_S = 0.3
"""A forward that takes longer is not run in the fused kernel besides, unless kernels are what was asked for."""


def explore(
    spec: Spec,
    *,
    device: str = "auto",
    time: bool = True,
    budget: float = BUDGET_S,
    threads: int = 1,
    seed: int = 0,
    audit: bool = False,
    backward: bool = False,
    input_grad: bool = True,
    kernels: bool = False,
    focus: Sequence[str] = (),
    progress: Progress | None = None,
    command: str | None = None,
    figures: Sequence[Mapping[str, str]] = (),
) -> Report:
    """Lay an attention open: shapes, exact costs and measured times of its steps.

    Args:
        spec: what is asked: an attention, such as a ViTSpec, or a network, such as a SwinNetworkSpec.
        device: "auto", "cpu", "cuda", "mps", or "meta", on which the module is built but nothing is computed.
        time: run it and measure. Without it, and on another device than meta, torch is not imported.
        budget: seconds of measuring; up to three times as long where other processes are busy.
        threads: processor threads; with one, times hold on a busy machine too.
        seed: of the weights and of the input, which are random normals.
        audit: count with torch's FlopCounterMode as well (it takes over a second the first time).
        backward: tell what the backward of each step costs, and measure it.
        input_grad: whether the input needs a gradient, in the backward.
        kernels: time the attention in every kernel that runs here, and tell how far each is from float64.
        focus: what the reader wants to see above the rest: "memory", "roofline".
        progress: is told now and then what is being measured, and which share of that is done.
        command: what was typed, for the record.
        figures: what others printed for this network, each a "figure" and its "source", to be explained.

    Returns:
        A Report: counts are whole numbers, times are seconds, sizes are bytes, and what was not measured is None.

    Raises:
        UsageError: an argument that cannot be asked for.
        DeviceError: the device is not here, or what is asked for does not fit in its memory. Nothing is allocated then.

    The costs are those of the letters in the attention's `steps.py`; they are held against the paper's closed form (Liu et
    al., arXiv 2103.14030, equations 1 and 2) and, where torch is imported, against fvcore's count of the real forward.
    """
    if not isinstance(spec, Spec):
        raise UsageError(f"explore takes a Spec, such as ViTSpec(), and not {spec!r}; trace takes a module")
    check_arguments(device, budget, threads, seed)
    plan = plan_of(spec)
    asked = Asked(device, time, budget, threads, seed, audit, backward, input_grad, kernels, progress)
    run = _Run(spec, plan, asked)
    if time or device == "meta" or audit:
        run.execute()
    memory = Memory(plan)
    rows = [step_row(*columns) for columns in zip(plan.steps, memory.live, memory.saved, run.times, strict=True)]
    held_back = backward_bytes(memory, input_grad)
    for row, *held in zip(rows, memory.training, held_back, memory.saved_together, run.allocated, strict=True):
        row.bytes_training, row.bytes_backward, row.bytes_saved_together, row.bytes_allocated = held
    if run.peaks and run.time:
        for row, step in zip(rows, plan.steps, strict=True):
            row.bound = bound(step, run.peaks, run.best)
    each_back = run.backward_macs() if backward else ()
    if backward:
        for row, macs, time_back in zip(rows, plan.by_step(each_back), run.backward_times, strict=True):
            row.backward = StepBackward(most(macs), time_back, macs_together=sum_of(macs))
        if None in each_back:
            run.notes.append(run.why_backward_is_unknown())
    published = None
    if whole := isinstance(spec, networks.NetworkSpec) and spec.is_whole:
        from attnscope.networks.published import compare_published

        published = compare_published(spec, plan, figures)
    report = Report(
        command=command,
        title=_title(spec),
        spec={"network" if isinstance(spec, networks.NetworkSpec) else "attention": spec.name, **spec.as_dict()},
        environment={"attnscope": __version__, "python": platform.python_version(), **run.environment},
        steps=rows,
        totals=totals(plan, memory, held_back),
        time=run.time,
        audit=run.audit,
        complexity=run.complexity,
        notes=[*spec.cautions(), *run.notes],
        warnings=run.warnings,
        next=spec.next_command(),
        focus=list(focus),
        peaks=run.peaks,
        kernels=run.kernels,
        backward=Backward(sum_of(each_back), input_grad, run.backward_torch, run.backward_time) if backward else None,
        parameter_bytes=spec.itemsize * plan.params,
        parts=part_rows(plan, rows) if whole else [],
        published=published,
    )
    if report.time and report.floor_s:
        report.warnings += floor_doubt(report.time.steps_sum_s, report.floor_s)
    return report


def _title(spec: Spec) -> str:
    """`Swin attention · 56×56 tokens · dim 96 · … · float32 · batch 2`."""
    batch = [f"batch {spec.batch}"] if spec.batch > 1 else []
    return " · ".join([spec.title, *spec.headline(), spec.dtype, *batch])


class _Run:
    """One exploration: what is known from the plan, and what `execute` finds out by running the module."""

    def __init__(self, spec: Spec, plan: Plan, asked: Asked) -> None:
        self.spec, self.plan, self.asked = spec, plan, asked
        self.timed = asked.time and asked.device != "meta"
        self.environment: dict[str, Any] = {}
        self.backward_time: Time | None = None
        self.backward_times: list[StepTime | None] = [None] * len(plan.steps)
        self.backward_torch: int | None = None
        self.peaks: Peaks | None = None
        self.best: dict[Kernel, float] = {}
        self.allocated: list[int | None] = [None] * len(plan.steps)
        self.kernels: list[KernelRow] = []
        self.times: list[StepTime | None] = [None] * len(plan.steps)
        self.time: Time | None = None
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.audit = audit_counts(spec, plan)
        is_whole = isinstance(spec, networks.NetworkSpec) and spec.is_whole
        self.complexity = complexity_figures(spec.complexity(), None if is_whole else spec.neighbourhood)

    def execute(self) -> None:
        """Build the module, hold its shapes and counts against the plan, and measure."""
        from attnscope.profiling.devices import environment, find_device

        device = find_device(self.asked.device)
        check_dtype(device.type, self.spec.dtype)
        asked = self.asked = replace(self.asked, device=device.type)  # auto has become a device
        self.refuse_what_does_not_fit(device)
        self.environment = environment(device, asked.threads, asked.seed)
        with told_when_memory_runs_out(device), settled(asked.threads, asked.seed, device):
            module, x = build(self.spec, device)
            with told_when_kernel_does_not_run(self.spec, device):
                order = hold_against_plan(module, x, self.plan)
            self.audit = audit_counts(self.spec, self.plan, module, x, with_torch=asked.audit)
            if device.type == "cuda":
                self.allocated = self.allocated_bytes(module, x, order)
            if self.timed:
                self.measure(module, x, order)
                self.measure_counterpart(device)
                self.measure_kernels(module, x)
            if asked.backward:
                with told_when_kernel_does_not_run(self.spec, device, backward=True):
                    self.go_back(module, x, order)

    def refuse_what_does_not_fit(self, device: "torch.device") -> None:
        """Refuse before anything is allocated.

        Raises:
            DeviceError: parameters, input and what is held besides are more than the device has.
        """
        from attnscope.profiling.devices import free_memory

        asked = self.asked
        told = lacking(needed_bytes(self.plan, asked), device)
        if told is None:
            return
        free = free_memory(device) or 0
        alone = ["type {no_time}"] * asked.time + ["leave out {audit}"] * asked.audit
        ways = [f"{' and '.join(alone)} for shapes and costs alone"]
        if asked.backward and needed_bytes(self.plan, replace(asked, backward=False)) <= free:
            ways.append("leave out {backward}")
        ways += filter(None, [largest_that_fits(self.spec, free, asked)])
        *others, last = ways
        what = "this and its backward need" if asked.backward else "this needs"
        raise DeviceError(f"{what} {told}; {', '.join(others)}{', or ' if others else ''}{last}")

    def measure(self, module: "nn.Module", x: "tuple[Tensor, ...]", order: list[int]) -> None:
        """Time the steps and the whole, and say what makes the figures doubtful."""
        from attnscope.profiling.peaks import best_seconds, peaks_of
        from attnscope.profiling.timing import time_steps

        asked = self.asked
        timing = time_steps(module, x, asked.budget, asked.telling("the steps"))
        self.times, self.time = step_times(timing, order), whole_time(timing, asked.threads)
        if asked.device == "mps":
            self.notes.append("each step waits here for the device to be done, so that its time is an upper bound")
        if asked.device == "cuda":
            from attnscope.profiling.cuda import eager_seconds, graph_seconds

            self.time.eager_s, self.time.graph_s = eager_seconds(module, x), graph_seconds(module, x)
        where = x[0].device, x[0].dtype, asked.threads
        shortest = [min(time.samples_s) if time else math.inf for time in self.times]
        self.peaks = peaks_of(*where)
        self.best = best_seconds(seen_seconds(self.plan.steps, shortest), *where)
        self.warnings += doubts(self.time, asked.threads, asked.device)

    def go_back(self, module: "nn.Module", x: "tuple[Tensor, ...]", order: list[int]) -> None:
        """Hold the backward's MACs against the real backward where that is asked, and time it."""
        asked = self.asked
        if asked.audit:
            from attnscope.profiling.counters import count_backward_with_torch

            counted = count_backward_with_torch(module, *x, input_grad=asked.input_grad)
            self.backward_torch, agree, notes = hold_backward(self.plan, self.backward_macs(), counted)
            self.audit.notes += notes
            self.audit.agree &= agree
        if not self.timed:
            return
        from attnscope.profiling.backward import time_backward

        timing, went = time_backward(module, x, asked.budget, asked.input_grad, asked.telling("the backward"))
        reached = {row for row, back in zip(order, went, strict=True) if back}
        times = step_times(timing, order)
        self.backward_times = [time if row in reached else None for row, time in enumerate(times)]
        self.backward_time = whole_time(timing, asked.threads)
        told = doubts(self.backward_time, asked.threads, asked.device)
        self.warnings += [f"in the backward, {doubt}" for doubt in told]

    def allocated_bytes(self, module: "nn.Module", x: "tuple[Tensor, ...]", order: list[int]) -> list[int | None]:
        """What the device's allocator held at the fullest moment of each step, of a row's several runs the most."""
        from attnscope.profiling.memory import allocated_bytes

        fullest: list[int | None] = [None] * len(self.plan.steps)
        for row, held in zip(order, allocated_bytes(module, x), strict=True):
            fullest[row] = max(held, fullest[row] or 0)
        return fullest

    def backward_macs(self) -> tuple[int | None, ...]:
        """MACs of the backward of each run of a step."""
        return backward_macs(self.plan, self.spec.kernel, self.asked.input_grad, may_be(self.asked.device))

    def why_backward_is_unknown(self) -> str:
        """Why a kernel's backward has no MACs, and the remedy where there is one."""
        kernel, devices = self.spec.kernel, may_be(self.asked.device)
        if kernel not in RECOMPUTING:
            why = f"what {kernel} computes there is its own"
        elif len(devices) == 1:
            why = f"which kernel {kernel} takes there is for the GPU to say"
        else:
            why = f"{' and '.join(devices)} do not take the same kernel for it; --device tells which"
        return f"the MACs of the backward are not known: {why}"

    def measure_kernels(self, module: "nn.Module", x: "tuple[Tensor, ...]") -> None:
        """Time the fused kernel beside the steps; where it is asked for all kernels, with how far each is from float64."""
        from attnscope.profiling.kernels import compare_kernels

        assert self.time is not None
        quick = self.spec.kernel == "eager" and self.time.whole_median_s <= LONGEST_FUSED_S
        wanted = list(KERNELS) if self.asked.kernels else ["eager", "sdpa"] if quick else []
        device = x[0].device
        self.kernels, turns = compare_kernels(
            {kernel: partial(_build_where_it_fits, replace(self.spec, kernel=kernel), device) for kernel in wanted},
            module,
            x,
            self.asked.budget if self.asked.kernels else self.asked.budget / 2,
            partial(_build_where_it_fits, replace(self.spec, kernel="eager", dtype="float64"), device)
            if self.asked.kernels
            else None,
            self.asked.telling("kernels"),
        )
        if turns and self.asked.kernels:
            told = disturbances(turns, self.asked.threads, device.type)
            self.warnings += [f"among the kernels, {doubt}" for doubt in told]

    def measure_counterpart(self, device: "torch.device") -> None:
        """Note what the attention took; time the global one beside it where it fits and does not take too long."""
        from attnscope.profiling.timing import time_forward

        assert self.time is not None
        if isinstance(self.spec, networks.NetworkSpec):
            return
        own_s, reference_s = self.time.whole_median_s, None
        counterpart = self.spec.counterpart()
        if counterpart is not None:
            plan = plan_of(counterpart)
            told = lacking(needed_bytes(plan), device)
            expected_s = own_s * plan.macs / self.plan.macs
            if told is not None:
                self.notes.append(f"global attention was not timed: it needs {told}")
            elif expected_s > LONGEST_COUNTERPART_S:
                self.notes.append(f"global attention was not timed: it would take some {expected_s:.0f} s a run")
            else:
                reference_s = time_forward(
                    *build(counterpart, device), self.asked.budget / 2, self.asked.telling("global attention")
                )
        self.complexity = self.complexity.timed(own_s, reference_s)


def _build_where_it_fits(spec: Spec, device: "torch.device") -> "nn.Module":
    """The module of a kernel that is looked at besides.

    Raises:
        DeviceError: its run needs more memory than there is.
    """
    told = lacking(needed_bytes(plan_of(spec)), device)
    if told is not None:
        raise DeviceError(f"it needs {told}")
    return build_module(spec)
