"""Verification: the steps that ran against the plan, and MACs that were counted in independent ways against each other."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attnscope.attentions.spec import Spec
from attnscope.core.axes import AxisError, spell
from attnscope.core.errors import PlanError, in_a_line, literal
from attnscope.core.optional import sum_of
from attnscope.ops.kernels import COMPILED
from attnscope.plan.plan import Plan, SizedStep, place
from attnscope.profiling.building import kernel_errors_explained
from attnscope.profiling.options import RunOptions
from attnscope.reports.report import Audit, StepAudit

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Counted:
    """MACs by the place of each step, as one counter saw them; None if it was not used or is not available."""

    macs: Mapping[str, int] | None = None
    uncounted: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CountedBackward:
    """MACs of the whole backward as torch saw them, None if not available, and whether they agree with the plan."""

    macs: int | None = None
    agree: bool = True
    notes: tuple[str, ...] = ()


NOT_COUNTED = Counted()
BACKWARD_NOT_COUNTED = CountedBackward()


@dataclass(frozen=True)
class Verification:
    """What was verified: `order` has, for each step that ran, its row in the plan; it is empty if nothing ran."""

    audit: Audit
    order: tuple[int, ...] = ()
    backward_macs: int | None = None
    """MACs of the real backward, as torch counted them."""


def verify_plan(spec: Spec, plan: Plan) -> Verification:
    """Compare the MACs of a plan with the closed form of its Spec. No torch."""
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
        spec: what the module was built from.
        plan: its plan.
        module: the module, in evaluation mode.
        x: its inputs.
        options: torch counts too if `audit` says so, and the backward if `backward` does as well.
        backward_macs: MACs of the backward of each run of a step, as the plan has them.

    Raises:
        FolderError: the steps differ from the plan. It is another AttnscopeError for an attention of this package.
        DeviceError: the kernel of the Spec does not run here, or has no backward.
    """
    device = x[0].device
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
    return Verification(audit, tuple(order), backward.macs)


def verify_steps(module: "nn.Module", x: "tuple[Tensor, ...]", plan: Plan) -> list[int]:
    """Run a module once, and compare its steps and their shapes with the plan.

    Returns:
        For each step that ran, its row in the plan.

    Raises:
        PlanError: they differ.
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
            said, made = (" and ".join(map(spell, one.outputs)) for one in (planned, step))
            raise PlanError(f"the plan says {where} makes {said}, but {where} made {made}")
    return [rows[where] for where in ran]


def _difference(rows: Mapping[str, int], ran: Sequence[str]) -> str | None:
    """Return how the steps that ran differ from those of the plan, or None.

    Args:
        rows: for each place where a step of the plan runs, its row.
        ran: the places of the steps that ran, in their order.
    """
    counts = Counter(ran)
    if unplanned := [where for where in counts if where not in rows]:
        return f"steps that ran and are not in the plan: {', '.join(unplanned)}"
    if missing := [where for where in rows if where not in counts]:
        return f"steps of the plan that did not run: {', '.join(missing)}"
    if again := [where for where, times in counts.items() if times > 1]:
        return f"steps that ran more than once: {', '.join(again)}"
    first_of: dict[int, str] = {}  # identical modules are one row: the first of them counts
    for where in ran:
        first_of.setdefault(rows[where], where)
    early = [where for planned, (row, where) in enumerate(first_of.items()) if planned != row]
    return f"a step that ran too early: {early[0]}" if early else None


def count_by_fvcore(module: "nn.Module", x: "tuple[Tensor, ...]", kernel: str) -> Counted:
    """Count a real forward with fvcore; a second opinion that fails is not available, and does not fail the run."""
    from attnscope.profiling.counters import count_with_fvcore

    try:
        counts = count_with_fvcore(module, *x)
    except Exception as error:
        compiled = "it traces, and what torch has compiled cannot be traced; --kernel eager counts the same"
        why = compiled if kernel in COMPILED else in_a_line(error)
        return Counted(notes=(f"fvcore is not available: {why}",))
    return Counted(counts.macs, tuple(counts.uncounted))


def count_by_torch(module: "nn.Module", x: "tuple[Tensor, ...]", plan: Plan) -> Counted:
    """Count a real forward with torch's FlopCounterMode."""
    from attnscope.profiling.counters import count_with_torch

    try:
        macs = count_with_torch(module, *x).macs
    except Exception as error:
        return _torch_is_not_available(type(error).__name__)
    attend = [step for step in plan.steps if step.name == "attend"]
    if any(_macs_of(step, macs) == 0 for step in attend):
        # FlopCounterMode has a formula for each fused kernel of CUDA and none for the CPU's (in torch 2.14 neither)
        return _torch_is_not_available("this torch counts fused attention on the CPU as 0")
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
    """Compare the MACs of each step by each way of counting: the letters, the closed form, fvcore and torch.

    Args:
        plan: counts by the letters of its steps.
        closed_form: MACs of one instance of each step that has any, by its place.
        fvcore, torch: what the counters saw of a real forward.
        backward: what torch saw of a real backward.
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
        *(f"{name}: fvcore counted {macs:,} MACs there" for name, macs in elsewhere.items()),
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
    """Return which ways of counting disagree on a step, or None if they agree."""
    ways = {"letters": row.declared, "closed form": row.closed_form, "fvcore": row.fvcore, "torch": row.torch}
    counted = {way: macs for way, macs in ways.items() if macs is not None}
    if len(set(counted.values())) == 1:
        return None
    return f"{row.name}: " + ", ".join(f"{way} {macs:,}" for way, macs in counted.items())


def compare_backward(plan: Plan, backward_macs: Sequence[int | None], counted: int) -> CountedBackward:
    """Compare the MACs of the backward with what FlopCounterMode counted of the real one.

    Args:
        plan: the steps.
        backward_macs: MACs of the backward of each run of a step; None if they are not known.
        counted: MACs that were counted.
    """
    declared = sum_of(backward_macs)
    if declared is None or counted == declared:
        return CountedBackward(counted)
    runs = zip(plan.runs, backward_macs, strict=True)
    fused = sum([macs or 0 for number, macs in runs if plan.steps[number].is_fused])
    if fused and counted == declared - fused:
        # FlopCounterMode has no formula for the backward of the CPU's fused kernel (in torch 2.14 neither)
        return CountedBackward(notes=("torch's FlopCounterMode counts the fused backward on the CPU as 0",))
    return CountedBackward(counted, False, (f"backward: letters {declared:,}, torch {counted:,} MACs",))
