"""Verify that the steps of a run agree with the plan, and that independent counts of their MACs agree."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attnscope.attentions.spec import Spec
from attnscope.core.axes import AxisError, spell
from attnscope.core.errors import PlanError, in_a_line, literal
from attnscope.core.optional import sum_of
from attnscope.core.packages import describe_missing, missing_package
from attnscope.ops.kernels import COMPILED
from attnscope.plan.plan import Plan, SizedStep, place
from attnscope.profiling.building import kernel_errors_explained
from attnscope.profiling.options import RunOptions
from attnscope.reports.report import Audit, StepAudit

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Counted:
    """MACs of one counter by the place of each step; None if it was not used or is not available."""

    macs: Mapping[str, int] | None = None
    uncounted: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CountedBackward:
    """MACs of the whole backward counted with torch, None if not available, and whether they agree with the plan."""

    macs: int | None = None
    agree: bool = True
    notes: tuple[str, ...] = ()


NOT_COUNTED = Counted()
BACKWARD_NOT_COUNTED = CountedBackward()


@dataclass(frozen=True)
class Verification:
    """Result of a verification. `order` has the row in the plan of each step that ran; it is empty if nothing ran."""

    audit: Audit
    order: tuple[int, ...] = ()
    backward_macs: int | None = None
    """MACs of the whole backward, counted with torch while it ran."""
    warnings: tuple[str, ...] = ()
    """A warning if the output is not finite."""


def verify_plan(spec: Spec, plan: Plan) -> Verification:
    """Compare the MACs of a plan with the closed form of its Spec. Does not import torch."""
    return Verification(compare_counts(plan, spec.closed_form()))


def verify_run(
    spec: Spec,
    plan: Plan,
    module: "nn.Module",
    x: "tuple[Tensor, ...]",
    options: RunOptions,
    backward_macs: Sequence[int | None],
) -> Verification:
    """Run a module, and compare its steps, their shapes and their counts with the plan.

    Args:
        spec: the Spec from which the module was built.
        plan: its plan.
        module: the module, in evaluation mode.
        x: its inputs.
        options: with `audit`, torch counts too; with `audit` and `backward`, also the backward.
        backward_macs: MACs of the backward of each run of a step, by the plan.

    Raises:
        FolderError: the steps differ from the plan. For an attention of this package it is another AttnscopeError.
        DeviceError: the kernel of the Spec does not run on this device, or has no backward.
    """
    from attnscope.profiling.outputs import OutputCheck

    device, check = x[0].device, OutputCheck()
    check.expect(module)
    with kernel_errors_explained(spec, device):
        try:
            order = verify_steps(module, x, plan)
        except PlanError as error:
            raise spec.fault(error.args[0]) from None
    fvcore = count_by_fvcore(module, x, spec.kernel)
    torch = count_by_torch(module, x, plan) if options.audit else NOT_COUNTED
    backward = BACKWARD_NOT_COUNTED
    if options.audit and options.backward:
        from attnscope.profiling.counters import count_backward_with_torch

        with kernel_errors_explained(spec, device, backward=True):
            counted = count_backward_with_torch(module, *x, input_grad=options.input_grad)
        backward = compare_backward(plan, backward_macs, counted)
    audit = compare_counts(plan, spec.closed_form(), fvcore, torch, backward)
    return Verification(audit, tuple(order), backward.macs, tuple(check.warnings.values()))


def verify_steps(module: "nn.Module", x: "tuple[Tensor, ...]", plan: Plan) -> list[int]:
    """Run a module once, and compare its steps and their shapes with the plan.

    Returns:
        The row in the plan of each step that ran.

    Raises:
        PlanError: the steps or their shapes differ from the plan.
    """
    from attnscope.profiling.steps import trace_steps

    try:
        steps = trace_steps(module, *x)
    except AxisError as error:
        raise PlanError(literal(error)) from error
    rows = {where: index for index, step in enumerate(plan.steps) for where in step.places}
    ran = [step.places[0] for step in steps]
    if difference := _difference(rows, ran):
        raise PlanError(
            f"{difference}; forward must call the method of each step (@steps.NAME) in the order of the plan"
        )
    for where, step in zip(ran, steps, strict=True):
        planned = plan.steps[rows[where]]
        if (planned.inputs, planned.outputs) != (step.inputs, step.outputs):
            expected, actual = (" and ".join(map(spell, one.outputs)) for one in (planned, step))
            raise PlanError(f"{where} must return {expected}, by the plan (got {actual})")
    return [rows[where] for where in ran]


def _difference(rows: Mapping[str, int], ran: Sequence[str]) -> str | None:
    """Describe the first kind of difference between the steps that ran and those of the plan; None if they agree.

    Args:
        rows: the row in the plan of each place where a step runs.
        ran: the places of the steps that ran, in their order.
    """
    counts = Counter(ran)
    if unplanned := [where for where in counts if where not in rows]:
        return f"steps that ran and are not in the plan: {', '.join(unplanned)}"
    if missing := [where for where in rows if where not in counts]:
        return f"steps of the plan that did not run: {', '.join(missing)}"
    if again := [where for where, times in counts.items() if times > 1]:
        return f"steps that ran more than once: {', '.join(again)}"
    first_of: dict[int, str] = {}  # identical modules share a row, whose order is that of the first module
    for where in ran:
        first_of.setdefault(rows[where], where)
    early = [where for planned, (row, where) in enumerate(first_of.items()) if planned != row]
    return f"a step that ran too early: {early[0]}" if early else None


def count_by_fvcore(module: "nn.Module", x: "tuple[Tensor, ...]", kernel: str) -> Counted:
    """Count the MACs of a forward with fvcore. If fvcore fails, the count is not available, and the run continues."""
    from attnscope.profiling.counters import count_with_fvcore

    try:
        counts = count_with_fvcore(module, *x)
    except ModuleNotFoundError as error:
        return Counted(notes=(describe_missing(missing_package(error) or "fvcore"),))
    except Exception as error:
        compiled = "it cannot trace compiled code; use --kernel eager, which has the same counts"
        why = compiled if kernel in COMPILED else in_a_line(error)
        return Counted(notes=(f"fvcore is not available: {why}",))
    return Counted(counts.macs, tuple(counts.uncounted))


def count_by_torch(module: "nn.Module", x: "tuple[Tensor, ...]", plan: Plan) -> Counted:
    """Count the MACs of a forward with torch's FlopCounterMode."""
    from attnscope.profiling.counters import count_with_torch

    try:
        macs = count_with_torch(module, *x).macs
    except Exception as error:
        return _torch_is_not_available(type(error).__name__)
    attend = [step for step in plan.steps if step.name == "attend"]
    if any(_macs_of(step, macs) == 0 for step in attend):
        # FlopCounterMode (up to torch 2.14) has formulas for the fused kernels of CUDA, but not for that of the CPU
        return _torch_is_not_available("this version counts fused attention on the CPU as 0")
    return Counted(macs)


def _torch_is_not_available(why: str) -> Counted:
    return Counted(notes=(f"torch's FlopCounterMode is not available: {why}",))


def compare_counts(
    plan: Plan,
    closed_form: Mapping[str, int],
    fvcore: Counted = NOT_COUNTED,
    torch: Counted = NOT_COUNTED,
    backward: CountedBackward = BACKWARD_NOT_COUNTED,
) -> Audit:
    """Compare four counts of the MACs of each step: from its shapes, the closed form, fvcore and torch.

    Args:
        plan: the plan, whose MACs follow from the shapes of its steps.
        closed_form: MACs of one instance of each step that has MACs, by its place.
        fvcore, torch: counts of a forward.
        backward: count of a backward by torch.
    """
    steps = [
        StepAudit(
            name=place(step.path, step.name),
            declared=step.times * step.macs,
            closed_form=step.times * closed_form.get(place(step.path, step.name), 0),
            fvcore=_macs_of(step, fvcore.macs),
            torch=_macs_of(step, torch.macs),
        )
        for step in plan.steps
    ]
    named = {row.name for row in steps}
    places = {where for step in plan.steps for where in step.places}
    did_not_run = {name: macs for name, macs in closed_form.items() if name not in named}
    elsewhere = {name: macs for name, macs in (fvcore.macs or {}).items() if macs and name not in places}
    disagreements = [
        *filter(None, map(disagreement, steps)),
        *(
            f"{name}: the closed form has {macs:,} MACs for a step that did not run"
            for name, macs in did_not_run.items()
        ),
        *(f"{name}: fvcore counted {macs:,} MACs, which no step of the plan has" for name, macs in elsewhere.items()),
    ]
    return Audit(
        declared=plan.macs,
        closed_form=sum(row.closed_form for row in steps) + sum(did_not_run.values()),
        fvcore=None if fvcore.macs is None else sum(fvcore.macs.values()),
        torch=None if torch.macs is None else sum(row.torch or 0 for row in steps),
        agree=not disagreements and backward.agree,
        uncounted=list(fvcore.uncounted),
        steps=steps,
        notes=[*disagreements, *fvcore.notes, *torch.notes, *backward.notes],
    )


def _macs_of(step: SizedStep, macs: Mapping[str, int] | None) -> int | None:
    return None if macs is None else sum([macs.get(where, 0) for where in step.places])


def disagreement(row: StepAudit) -> str | None:
    """Return the counts of a step in one line if they disagree, or None if they agree."""
    counts = {"shapes": row.declared, "closed form": row.closed_form, "fvcore": row.fvcore, "torch": row.torch}
    available = {way: macs for way, macs in counts.items() if macs is not None}
    if len(set(available.values())) == 1:
        return None
    return f"{row.name}: counts disagree: " + ", ".join(f"{way} {macs:,}" for way, macs in available.items())


def compare_backward(plan: Plan, backward_macs: Sequence[int | None], counted: int) -> CountedBackward:
    """Compare the MACs of the backward by the plan with the count of FlopCounterMode.

    Args:
        plan: the plan of the steps.
        backward_macs: MACs of the backward of each run of a step; None if the plan does not have them.
        counted: MACs that FlopCounterMode counted.
    """
    declared = sum_of(backward_macs)
    if declared is None or counted == declared:
        return CountedBackward(counted)
    runs = zip(plan.runs, backward_macs, strict=True)
    fused = sum([macs or 0 for number, macs in runs if plan.steps[number].is_fused])
    if fused and counted == declared - fused:
        # FlopCounterMode (up to torch 2.14) has no formula for the backward of the CPU's fused kernel
        return CountedBackward(notes=("torch's FlopCounterMode counts the fused backward on the CPU as 0",))
    return CountedBackward(counted, False, (f"backward: counts disagree: shapes {declared:,}, torch {counted:,} MACs",))
