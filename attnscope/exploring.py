"""Spec -> Report: the one place that joins plan, module and probes."""

import platform
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeVar

from attnscope import __version__, attentions, networks
from attnscope.axes import spell
from attnscope.backward import backward_macs
from attnscope.bounds import Kernel, Peaks, bound, kernels
from attnscope.complexity import Complexity
from attnscope.doubts import doubts
from attnscope.errors import AttnscopeError, DeviceError, UsageError
from attnscope.probes import process
from attnscope.report import (
    Audit,
    Backward,
    Formula,
    KernelRow,
    PartRow,
    Report,
    StepAudit,
    StepBackward,
    StepRow,
    StepTime,
    Time,
    Totals,
)
from attnscope.report import Complexity as ComplexityFigures
from attnscope.spec import KERNELS, LARGEST, Spec
from attnscope.steps import Plan, SizedStep, most, place

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from attnscope.probes.time import Timing

DEVICES = {
    "auto": "the fastest that is here",
    "cpu": "this processor",
    "cuda": "an NVIDIA or AMD GPU",
    "mps": "an Apple GPU",
    "meta": "shapes alone, nothing is computed",
}
BUDGET_S = 0.3
LONGEST_COUNTERPART_S = 5.0
LONGEST_FUSED_S = 0.3
"""A forward that takes longer is not run in the fused kernel besides, unless kernels are what was asked for."""

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Asked:
    """How a Spec is to be run, and what is to be found out; see `explore`."""

    device: str = "auto"
    time: bool = True
    budget: float = BUDGET_S
    threads: int = 1
    seed: int = 0
    audit: bool = False
    backward: bool = False
    input_grad: bool = True
    kernels: bool = False
    progress: Callable[[float], None] | None = None


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
    progress: Callable[[float], None] | None = None,
    command: str | None = None,
    figures: Sequence[Mapping[str, str]] = (),
) -> Report:
    """Lay an attention open: shapes, exact costs and measured times of its steps.

    Args:
        spec: what is asked: an attention, such as a ViTSpec, or a network, such as a SwinNetworkSpec.
        device: "auto", "cpu", "cuda", "mps", or "meta", on which the module is built but nothing is computed.
        time: run it and measure. Without it, and on another device than meta, torch is not imported.
        budget: seconds of measuring; up to twice as long where other processes are busy.
        threads: processor threads; with one, times hold on a busy machine too.
        seed: of the weights and of the input, which are random normals.
        audit: count with torch's FlopCounterMode as well (it takes over a second the first time).
        backward: tell what the backward of each step costs, and measure it.
        input_grad: whether the input needs a gradient, in the backward.
        kernels: time the attention in every kernel that runs here, and tell how far each is from float64.
        focus: what the reader wants to see above the rest: "memory", "roofline".
        progress: is told now and then which share of the measuring is done.
        command: what was typed, for the record.
        figures: what others printed for this network, each a "figure" and its "source", to be explained.

    Returns:
        A Report: counts are whole numbers, times are seconds, sizes are bytes, and what was not measured is None.

    Raises:
        UsageError: an argument that cannot be asked for.
        DeviceError: the device is not here, or the forward does not fit in its memory. Nothing is allocated then.

    The costs are those of the letters in the attention's `steps.py`; they are held against the paper's closed form (Liu et
    al., arXiv 2103.14030, equations 1 and 2) and, where torch is imported, against fvcore's count of the real forward.
    """
    check_arguments(device, budget, threads, seed)
    plan = plan_of(spec)
    asked = Asked(device, time, budget, threads, seed, audit, backward, input_grad, kernels, progress)
    run = _Run(spec, plan, asked)
    if time or device == "meta" or audit:
        run.execute()
    rows = [_row(*columns) for columns in zip(plan.steps, plan.live_bytes, plan.saved_bytes, run.times, strict=True)]
    for row, training, allocated in zip(rows, plan.training_bytes, run.allocated, strict=True):
        row.bytes_training, row.bytes_allocated = training, allocated
    for row, step in zip(rows, plan.steps, strict=True):
        row.bound = bound(step, run.peaks, run.best) if run.peaks else None
    each_back = run.backward_macs() if backward else ()
    for row, macs, time_back in zip(rows, each_back, run.backward_times, strict=False):
        row.backward = StepBackward(macs, time_back)
    published = None
    if whole := isinstance(spec, networks.NetworkSpec) and spec.is_whole:
        from attnscope.networks.published import compare_published

        published = compare_published(spec, plan, figures)
    return Report(
        command=command,
        title=" · ".join(
            [spec.title, *spec.headline(), spec.dtype, *([f"batch {spec.batch}"] if spec.batch > 1 else [])]
        ),
        spec={"network" if isinstance(spec, networks.NetworkSpec) else "attention": spec.name, **spec.as_dict()},
        environment={"attnscope": __version__, "python": platform.python_version(), **run.environment},
        steps=rows,
        totals=_totals(plan),
        time=run.time,
        audit=run.audit,
        complexity=run.complexity,
        notes=[*spec.cautions(), *run.notes],
        warnings=run.warnings,
        next=spec.next_command(),
        focus=list(focus),
        peaks=run.peaks,
        kernels=run.kernels,
        backward=Backward(sum_backward(plan, each_back), input_grad, run.backward_torch, run.backward_time)
        if backward
        else None,
        parameter_bytes=spec.itemsize * plan.params,
        parts=part_rows(plan, rows) if whole else [],
        published=published,
    )


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
        self.complexity = complexity_figures(spec.complexity())

    def execute(self) -> None:
        """Build the module, hold its shapes and counts against the plan, and measure."""
        from attnscope.probes.device import environment, find_device

        device = find_device(self.asked.device)
        asked = self.asked = replace(self.asked, device=device.type)  # auto has become a device
        self.refuse_what_does_not_fit(self.plan, device)
        self.environment = environment(device, asked.threads, asked.seed)
        with told_when_memory_runs_out(device), settled(asked.threads, asked.seed):
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
                self.go_back(module, x, order)

    def refuse_what_does_not_fit(self, plan: Plan, device: "torch.device") -> None:
        """Refuse before anything is allocated.

        Raises:
            DeviceError: parameters, input and activations together are more than the device has.
        """
        from attnscope.probes.device import free_memory

        need, free = needed_bytes(plan), free_memory(device)
        if free is not None and need > free:
            smaller = largest_that_fits(self.spec, free)
            raise DeviceError(
                f"this needs {gigabytes(need)} and {device.type} has {gigabytes(free)} free; "
                f"type {{no_time}} for shapes and costs alone{f', or {smaller}' if smaller else ''}"
            )

    def measure(self, module: "nn.Module", x: "tuple[Tensor, ...]", order: list[int]) -> None:
        """Time the steps and the whole, and say what makes the figures doubtful."""
        from attnscope.probes.peaks import best_seconds, peaks_of
        from attnscope.probes.time import time_steps

        asked = self.asked
        timing = time_steps(module, x, asked.budget, asked.progress)
        self.times, self.time = step_times(timing, order), whole_time(timing, asked.threads)
        self.complexity.windowed_s = self.time.whole_median_s
        if asked.device == "cuda":
            from attnscope.probes.cuda import eager_seconds, graph_seconds

            self.time.eager_s, self.time.graph_s = eager_seconds(module, x), graph_seconds(module, x)
        where = x[0].device, x[0].dtype, asked.threads
        self.peaks, self.best = peaks_of(*where), best_seconds(kernels(self.plan.steps), *where)
        self.warnings += doubts(self.time, asked.threads, on_processor=x[0].device.type == "cpu")

    def go_back(self, module: "nn.Module", x: "tuple[Tensor, ...]", order: list[int]) -> None:
        """Hold the backward's MACs against the real backward where that is asked, and time it."""
        asked = self.asked
        if asked.audit:
            from attnscope.probes.audit import count_backward_with_torch

            counted = count_backward_with_torch(module, *x, input_grad=asked.input_grad)
            self.backward_torch, note = hold_backward(self.plan, self.backward_macs(), counted)
            self.audit.notes += note
            self.audit.agree &= self.backward_torch in (None, sum_backward(self.plan, self.backward_macs()))
        if not self.timed:
            return
        from attnscope.probes.backward import time_backward

        timing, went = time_backward(module, x, asked.budget, asked.input_grad, asked.progress)
        reached = {row for row, back in zip(order, went, strict=True) if back}
        times = step_times(timing, order)
        self.backward_times = [time if row in reached else None for row, time in enumerate(times)]
        self.backward_time = whole_time(timing, asked.threads)
        told = doubts(self.backward_time, asked.threads, on_processor=asked.device == "cpu")
        self.warnings += [f"in the backward, {doubt}" for doubt in told]

    def allocated_bytes(self, module: "nn.Module", x: "tuple[Tensor, ...]", order: list[int]) -> list[int | None]:
        """What the device's allocator held at the fullest moment of each step, of a row's several runs the most."""
        from attnscope.probes.memory import allocated_bytes

        fullest: list[int | None] = [None] * len(self.plan.steps)
        for row, held in zip(order, allocated_bytes(module, x), strict=True):
            fullest[row] = max(held, fullest[row] or 0)
        return fullest

    def backward_macs(self) -> tuple[int | None, ...]:
        """MACs of each step's backward, once however often it stands."""
        return backward_macs(self.plan, self.spec.kernel, self.asked.input_grad, self.asked.device)

    def measure_kernels(self, module: "nn.Module", x: "tuple[Tensor, ...]") -> None:
        """Time the fused kernel beside the steps; where it is asked for all kernels, with how far each is from float64."""
        from attnscope.probes.kernels import compare_kernels

        assert self.time is not None
        quick = self.spec.kernel == "eager" and self.time.whole_median_s <= LONGEST_FUSED_S
        wanted = list(KERNELS) if self.asked.kernels else ["eager", "sdpa"] if quick else []
        specs = {kernel: replace(self.spec, kernel=kernel) for kernel in wanted}
        self.kernels = compare_kernels(
            {kernel: partial(build_module, spec) for kernel, spec in specs.items()},
            module,
            x,
            self.asked.budget if self.asked.kernels else self.asked.budget / 2,
            errors=self.asked.kernels,
        )

    def measure_counterpart(self, device: "torch.device") -> None:
        """Time global attention on the same tokens, where it fits and does not take too long."""
        from attnscope.probes.device import free_memory
        from attnscope.probes.time import time_forward

        assert self.time is not None
        counterpart = self.spec.counterpart()
        if isinstance(self.spec, networks.NetworkSpec):
            self.complexity.windowed_s = None
            return
        if counterpart is None:
            self.complexity.windowed_s, self.complexity.global_s = None, self.time.whole_median_s
            return
        plan = plan_of(counterpart)
        free = free_memory(device)
        expected_s = self.time.whole_median_s * plan.macs / self.plan.macs
        if free is not None and needed_bytes(plan) > free:
            self.notes.append(f"global attention was not timed: it needs {gigabytes(needed_bytes(plan))}")
        elif expected_s > LONGEST_COUNTERPART_S:
            self.notes.append(f"global attention was not timed: it would take some {expected_s:.0f} s a run")
        else:
            self.complexity.global_s = time_forward(*build(counterpart, device), self.asked.budget / 2)


def hold_backward(plan: Plan, each: Sequence[int | None], counted: int) -> tuple[int | None, list[str]]:
    """What FlopCounterMode counted of the real backward, None where it cannot, and what there is to say of it."""
    declared = sum_backward(plan, each)
    fused = sum(step.times * (macs or 0) for step, macs in zip(plan.steps, each, strict=True) if step.step.fused)
    if fused and declared is not None and counted == declared - fused:
        # up to torch 2.14 FlopCounterMode has no formula for the fused backward of the CPU
        return None, ["torch's FlopCounterMode counts the fused backward on the CPU as 0"]
    if declared is not None and counted != declared:
        return counted, [f"backward: letters {declared:,}, torch {counted:,} MACs"]
    return counted, []


def sum_backward(plan: Plan, each: Sequence[int | None]) -> int | None:
    """MACs of the whole backward; None where a kernel does not tell."""
    return sum_of([None if macs is None else s.times * macs for s, macs in zip(plan.steps, each, strict=True)])


def plan_of(spec: Spec) -> Plan:
    """The steps that this Spec runs, of an attention or of a network."""
    return networks.plan(spec) if isinstance(spec, networks.NetworkSpec) else attentions.plan(spec)


def build_module(spec: Spec) -> "nn.Module":
    """The module of this Spec, an attention or a network."""
    return networks.build(spec) if isinstance(spec, networks.NetworkSpec) else attentions.build(spec)


def build(spec: Spec, device: "torch.device") -> tuple["nn.Module", "tuple[Tensor, ...]"]:
    """The module of a Spec in evaluation mode, and inputs of random normals."""
    import torch

    dtype = getattr(torch, spec.dtype)
    with torch.device(device):
        module = build_module(spec).to(dtype).eval()
        return module, tuple(torch.randn(shape).to(dtype) for shape in spec.input_shapes)


@contextmanager
def told_when_kernel_does_not_run(spec: Spec, device: "torch.device") -> Iterator[None]:
    """Raises a DeviceError that says which kernels there are, where the one that was asked for is not."""
    import torch

    try:
        yield
    except (AttnscopeError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if spec.kernel in ("eager", "sdpa"):
            raise
        from attnscope.probes.kernels import backends_here, why_not

        here = ", ".join(["eager", "sdpa", *backends_here(device), "flex", "compile"])
        raise DeviceError(f"{{kernel}} {spec.kernel} does not run here ({why_not(error)}); there is: {here}") from None


def hold_against_plan(module: "nn.Module", x: "tuple[Tensor, ...]", plan: Plan) -> list[int]:
    """Run the module once and hold its steps and their shapes against the plan.

    Returns:
        For each step that ran, its row in the plan.

    Raises:
        AttnscopeError: they differ, which is a mistake in attnscope.
    """
    from attnscope.probes.shapes import trace_steps

    rows = {where: index for index, step in enumerate(plan.steps) for where in step.places}
    order = []
    for ran in trace_steps(module, *x):
        (where,) = ran.places
        planned = plan.steps[rows[where]] if where in rows else None
        if planned is None or (planned.inputs, planned.outputs) != (ran.inputs, ran.outputs):
            said = " and ".join(map(spell, planned.outputs)) if planned else "nothing"
            raise AttnscopeError(
                f"the plan says {where} makes {said}, but {where} made {' and '.join(map(spell, ran.outputs))}: "
                "please report this as a bug"
            )
        order.append(rows[where])
    if list(dict.fromkeys(order)) != list(range(len(plan.steps))) or len(order) != len(rows):
        raise AttnscopeError("the steps did not run in the order of the plan: please report this as a bug")
    return order


@contextmanager
def told_when_memory_runs_out(device: "torch.device") -> Iterator[None]:
    """Tell in a line when there was less memory than there seemed to be.

    Raises:
        DeviceError: the device ran out of memory.
    """
    import torch

    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise DeviceError(
                f"{device.type} ran out of memory; type {{no_time}} for shapes and costs alone, or a smaller {{batch}}"
            ) from None
        raise


@contextmanager
def settled(threads: int, seed: int) -> Iterator[None]:
    """Seeded and with this many threads; both are put back at the end."""
    import torch

    before = torch.get_num_threads()
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=gpus):
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def audit_counts(
    spec: Spec, plan: Plan, module: "nn.Module | None" = None, x: "tuple[Tensor, ...]" = (), with_torch: bool = False
) -> Audit:
    """MACs of each step counted in independent ways: letters, closed form and, with a module, fvcore and torch's own."""
    closed = spec.closed_form()
    fvcore, torch_counts, uncounted, notes = None, None, [], []
    if module is not None:
        from attnscope.probes.audit import count_with_fvcore, count_with_torch

        try:
            counts = count_with_fvcore(module, *x)
            fvcore, uncounted = counts.macs, counts.uncounted
        except Exception as error:  # a second opinion that fails is not available; it does not take the first one along
            notes.append(
                f"fvcore is not available: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            )
        if with_torch:
            torch_counts = count_with_torch(module, *x).macs

    def taken(counts: dict[str, int] | None, step: SizedStep) -> int | None:
        return None if counts is None else sum([counts.pop(where, 0) for where in step.places])

    steps = [
        StepAudit(
            name=place(step.path, step.name),
            declared=step.times * step.macs,
            closed_form=step.times * closed.pop(place(step.path, step.name), 0),
            fvcore=taken(fvcore, step),
            torch=taken(torch_counts, step),
        )
        for step in plan.steps
    ]
    if any(row.torch == 0 and row.name.endswith("attend") for row in steps):
        # up to torch 2.13 FlopCounterMode has no formula for the fused kernel of the CPU
        torch_counts = None
        notes.append("torch's FlopCounterMode is not available: this torch counts fused attention on the CPU as 0")
        for row in steps:
            row.torch = None
    left_over = [
        f"{name}: the closed form has {macs:,} MACs for a step that did not run" for name, macs in closed.items()
    ]
    left_over += [f"{name}: fvcore counted {macs:,} MACs there" for name, macs in (fvcore or {}).items() if macs]
    disagreements = [*filter(None, map(disagreement, steps)), *left_over]
    return Audit(
        declared=plan.macs,
        closed_form=sum(row.closed_form for row in steps) + sum(closed.values()),
        fvcore=None if fvcore is None else sum(row.fvcore or 0 for row in steps) + sum(fvcore.values()),
        torch=None if torch_counts is None else sum(row.torch or 0 for row in steps),
        agree=not disagreements,
        uncounted=uncounted,
        steps=steps,
        notes=[*disagreements, *notes],
    )


def disagreement(row: StepAudit) -> str | None:
    """Which ways disagree on a step, or None."""
    ways = {"letters": row.declared, "closed form": row.closed_form, "fvcore": row.fvcore, "torch": row.torch}
    counted = {way: macs for way, macs in ways.items() if macs is not None}
    if len(set(counted.values())) == 1:
        return None
    return f"{row.name}: " + ", ".join(f"{way} {macs:,}" for way, macs in counted.items())


def step_times(timing: "Timing", order: list[int]) -> list[StepTime | None]:
    """A mean over the middle half of the runs for each row, the same runs for all, so that the rows add up.

    `order` tells the row of each step that ran; a row that ran several times tells the mean of them.
    """
    from attnscope.probes.time import middle, spread

    def rows(seconds: list[float]) -> list[float]:
        sums = [0.0] * (max(order) + 1)
        for row, taken in zip(order, seconds[:-1], strict=True):
            sums[row] += taken
        return [total / order.count(row) for row, total in enumerate(sums)]

    columns = zip(*(rows(run.seconds) for run in middle(timing.chains)), strict=True)
    samples = zip(*(rows(run.seconds) for run in timing.chains), strict=True)
    return [
        StepTime(median_s=sum(column) / len(column), iqr_s=spread(every), samples_s=list(every))
        for column, every in zip(columns, samples, strict=True)
    ]


def whole_time(timing: "Timing", threads: int = 1) -> Time:
    """The untouched forward beside the sum of its steps."""
    from attnscope.probes.time import middle, spread

    wholes = [run.total for run in timing.wholes]
    kept = middle(timing.wholes)
    whole = sum(run.total for run in kept) / len(kept)
    steps = sum(sum(run.seconds[:-1]) for run in middle(timing.chains)) / len(middle(timing.chains))
    return Time(
        whole_median_s=whole,
        whole_iqr_s=spread(wholes),
        whole_samples_s=wholes,
        steps_sum_s=steps,
        remainder_s=whole - steps,
        runs=len(wholes),
        clean_runs=timing.clean_runs,
        stamp_s=timing.stamp_s,
        tried=timing.tried,
        clock=timing.clock,
        cpu_share=median([run.effort.share(threads) for run in timing.wholes if run.effort]),
        page_faults=median(
            [run.effort.faults for run in timing.wholes if run.effort and run.effort.faults is not None]
        ),
        others=timing.load.others,
        pressure=timing.load.pressure,
    )


def median(values: Sequence[float]) -> float | None:
    """The middle one; None where there is none."""
    return statistics.median(values) if values else None


def complexity_figures(complexity: Complexity) -> ComplexityFigures:
    """The paper's two formulas with this input's values."""
    terms = (complexity.of_global, complexity.of_windows)
    return ComplexityFigures(
        global_macs=complexity.global_macs,
        windowed_macs=complexity.windowed_macs,
        ratio=complexity.ratio,
        formulas=[Formula(term.name, term.formula, term.values, complexity.batch * term.macs) for term in terms],
        global_s=None,
        windowed_s=None,
        saving=complexity.saving,
    )


def needed_bytes(plan: Plan) -> int:
    """What a run allocates: parameters, input and the fullest moment of the forward."""
    return plan.steps[0].itemsize * plan.params + plan.input_bytes + plan.least_peak_bytes


def largest_that_fits(spec: Spec, free: int) -> str | None:
    """What to ask for so that a run fits in this many bytes: a smaller batch, or else fewer tokens."""
    for name, build_spec in (("batch", lambda size: replace(spec, batch=size)), (spec.SIZE_FIELD, spec.of_size)):
        low, high = 0, LARGEST
        while low < high:
            middle = (low + high + 1) // 2
            fits = needed_bytes(plan_of(build_spec(middle))) <= free
            low, high = (middle, high) if fits else (low, middle - 1)
        if low:
            return f"{{{name}}} {low} at most"
    return None


def gigabytes(size: int) -> str:
    """A size in words, `44.7 TiB`."""
    import humanize

    return humanize.naturalsize(size, binary=True)


def check_arguments(device: str, budget: float = BUDGET_S, threads: int = 1, seed: int = 0) -> None:
    """Raises a UsageError where something cannot be asked for."""
    if device not in DEVICES:
        raise UsageError(f"{{device}} {device} is unknown; there is: {', '.join(DEVICES)}")
    if not 0 < budget <= 3600:
        raise UsageError(f"{{budget}} {budget:g} is no time to measure in; give seconds above 0, up to 3600")
    if not 1 <= threads <= process.cores():
        raise UsageError(f"{{threads}} {threads} cannot be had here; there are 1 to {process.cores()}")
    if not 0 <= seed < 2**63:
        raise UsageError(f"{{seed}} {seed} is no seed; give a whole number from 0 to {2**63 - 1}")


def part_rows(plan: Plan, rows: list[StepRow]) -> list[PartRow]:
    """The parts of a network, each stage before its parts."""
    parts = [_part(list(both)) for _, both in groupby(zip(plan.steps, rows, strict=True), lambda both: both[0].part)]
    told = []
    for stage, same in groupby(parts, lambda part: part.stage):
        members = list(same)
        if stage is not None:
            told.append(_stage(stage, members))
        told += members
    return told


def _part(members: list[tuple[SizedStep, StepRow]]) -> PartRow:
    first, steps = members[0][0], [step for step, _ in members]
    rows = [row for _, row in members]
    assert first.part is not None
    return PartRow(
        name=first.part.title,
        stage=first.part.stage,
        is_stage=False,
        path=first.path,
        times=first.times,
        outputs=list(steps[-1].outputs),
        macs=sum(row.times * row.macs for row in rows),
        flops=sum(row.times * row.flops for row in rows),
        other_flops=sum(row.times * row.other_flops for row in rows),
        params=sum(row.times * row.params for row in rows),
        bytes_live=most([row.bytes_live for row in rows]),
        bytes_training=most([row.bytes_training for row in rows]),
        bytes_saved=sum_of([None if row.bytes_saved is None else row.times * row.bytes_saved for row in rows]),
        sees=first.part.sees,
        time_s=sum_of([row.times * row.time.median_s if row.time else None for row in rows]),
    )


def _stage(number: int, parts: list[PartRow]) -> PartRow:
    return PartRow(
        name=f"stage {number}",
        stage=number,
        is_stage=True,
        path=f"layers.{number - 1}",
        times=1,
        outputs=parts[-1].outputs,
        macs=sum(part.macs for part in parts),
        flops=sum(part.flops for part in parts),
        other_flops=sum(part.other_flops for part in parts),
        params=sum(part.params for part in parts),
        bytes_live=most([part.bytes_live for part in parts]),
        bytes_training=most([part.bytes_training for part in parts]),
        bytes_saved=sum_of([part.bytes_saved for part in parts]),
        sees=parts[-1].sees,
        time_s=sum_of([part.time_s for part in parts]),
    )


def sum_of(values: Sequence[Number | None]) -> Number | None:
    """The sum; None where one of them is not known."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _row(step: SizedStep, live: int | None, saved: int | None, time: StepTime | None) -> StepRow:
    return StepRow(
        name=step.name,
        path=step.path,
        doc=step.step.doc,
        pattern=str(step.step.letters),
        inputs=list(step.inputs),
        outputs=list(step.outputs),
        macs=step.macs,
        flops=step.flops,
        other_flops=step.other_flops,
        params=step.params,
        bytes_read=step.bytes_read,
        bytes_written=step.bytes_written,
        bytes_saved=saved,
        bytes_live=live,
        time=time,
        times=step.times,
        part=step.part.title if step.part else "",
        stage=step.part.stage if step.part else None,
    )


def _totals(plan: Plan) -> Totals:
    return Totals(
        macs=plan.macs,
        flops=plan.flops,
        other_flops=plan.other_flops,
        params=plan.params,
        bytes_read=sum(step.times * step.bytes_read for step in plan.steps),
        bytes_written=sum(step.times * step.bytes_written for step in plan.steps),
        peak_bytes=plan.peak_bytes,
        training_peak_bytes=most(plan.training_bytes),
        kept_bytes=plan.kept_bytes,
    )
