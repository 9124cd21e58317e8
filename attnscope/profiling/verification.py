"""What ran held against the plan, and MACs that were counted in independent ways held against each other."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attnscope.attentions.spec import Spec
from attnscope.core.axes import spell
from attnscope.core.errors import AttnscopeError, in_a_line
from attnscope.core.optional import sum_of
from attnscope.ops.kernels import COMPILED
from attnscope.plan.plan import Plan, SizedStep, place
from attnscope.reports.report import Audit, StepAudit

if TYPE_CHECKING:
    from torch import Tensor, nn


def hold_against_plan(module: "nn.Module", x: "tuple[Tensor, ...]", plan: Plan) -> list[int]:
    """Run the module once and hold its steps and their shapes against the plan.

    Returns:
        For each step that ran, its row in the plan.

    Raises:
        AttnscopeError: they differ, which is a mistake in attnscope.
    """
    from attnscope.profiling.steps import trace_steps

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


def audit_counts(
    spec: Spec, plan: Plan, module: "nn.Module | None" = None, x: "tuple[Tensor, ...]" = (), with_torch: bool = False
) -> Audit:
    """MACs of each step counted in independent ways: letters, closed form and, with a module, fvcore and torch's own."""
    closed = spec.closed_form()
    fvcore, torch_counts, uncounted, notes = None, None, [], []
    if module is not None:
        from attnscope.profiling.counters import count_with_fvcore, count_with_torch

        try:
            counts = count_with_fvcore(module, *x)
            fvcore, uncounted = counts.macs, counts.uncounted
        except Exception as error:  # a second opinion that fails is not available; it does not take the first one along
            is_compiled = spec.kernel in COMPILED
            why = "it traces, and what torch has compiled cannot be traced; --kernel eager counts the same"
            notes.append(f"fvcore is not available: {why if is_compiled else in_a_line(error)}")
        if with_torch:
            try:
                torch_counts = count_with_torch(module, *x).macs
            except Exception as error:
                notes.append(f"torch's FlopCounterMode is not available: {type(error).__name__}")

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


def hold_backward(plan: Plan, each: Sequence[int | None], counted: int) -> tuple[int | None, bool, list[str]]:
    """The MACs of each run's backward held against what FlopCounterMode counted of the real one.

    Returns:
        What it counted, None where it cannot; whether they agree; and what there is to say of it.
    """
    declared = sum_of(each)
    if declared is None or counted == declared:
        return counted, True, []
    fused = sum([macs or 0 for number, macs in zip(plan.runs, each, strict=True) if plan.steps[number].is_fused])
    if fused and counted == declared - fused:
        # up to torch 2.14 FlopCounterMode has no formula for the fused backward of the CPU
        return None, True, ["torch's FlopCounterMode counts the fused backward on the CPU as 0"]
    return counted, False, [f"backward: letters {declared:,}, torch {counted:,} MACs"]
