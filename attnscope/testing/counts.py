"""Checks of the costs of the steps: shapes, closed form, fvcore, FlopCounterMode and `trace`."""

import torch

from attnscope.attentions.spec import Spec
from attnscope.ops.kernels import COMPILED
from attnscope.plan.plan import SizedStep
from attnscope.profiling.building import build
from attnscope.profiling.counters import count_with_fvcore, count_with_torch
from attnscope.testing.comparison import built, fail, hold_equal
from attnscope.tracing.trace import trace

META = torch.device("meta")
MACS_HINT = "the step's operation and letters, and closed_form() of the Spec"


def hold_macs(spec: Spec) -> None:
    """Check that the MACs of each step equal those of the closed form, fvcore and torch's FlopCounterMode.

    FlopCounterMode has no formula for fused attention on the CPU; these steps are not compared with it.

    Raises:
        AssertionError: if they differ, or if fvcore finds an operator that is not in the registry.
    """
    plan = spec.plan()
    declared = {where: step.macs for step in plan.steps for where in step.places}
    closed = spec.closed_form()
    firsts = {step.places[0]: step.macs for step in plan.steps}
    hold_equal(spec, "MACs by letters and by closed_form", firsts, closed, MACS_HINT)
    if spec.kernel in COMPILED:
        return  # compiled code cannot be traced
    with built(spec) as (module, x):
        module(*x)  # fills caches, such as a mask, which are not part of a step
        fvcore, counted = count_with_fvcore(module, *x), count_with_torch(module, *x).macs
    hold_equal(spec, "MACs by letters and by fvcore", declared, fvcore.macs, MACS_HINT)
    if fvcore.uncounted:
        hint = "declare the operator in attnscope.ops by its aten name"
        fail(spec, "operators without a formula", "the forward", [], fvcore.uncounted, hint)
    fused = {where for step in plan.steps if step.is_fused for where in step.places}
    by_torch = {where: declared[where] if where in fused else macs for where, macs in counted.items()}
    hold_equal(spec, "MACs by letters and by FlopCounterMode", declared, by_torch, MACS_HINT)


def hold_elementwise_flops(spec: Spec) -> None:
    """Check that the elementwise FLOPs of each step equal those of the operators that run in it.

    Raises:
        AssertionError: if they differ.
    """
    plan = spec.plan()
    if spec.kernel in COMPILED:
        return
    with built(spec) as (module, x):
        module(*x)
        counted = count_with_fvcore(module, *x).other_flops
    declared = {where: step.other_flops for step in plan.steps for where in step.places}
    hint = "the step's operation and its method run different operators"
    hold_equal(spec, "elementwise FLOPs", declared, counted, hint)


def hold_trace(spec: Spec) -> None:
    """Check that the totals of the plan equal those of `trace` for the module on the meta device, exactly.

    The totals are MACs, elementwise FLOPs, parameters, bytes read and bytes written.

    Raises:
        AssertionError: if they differ.
    """
    plan = spec.plan()
    if spec.kernel in COMPILED or spec.kernel == "math":
        return  # compiled code cannot be traced, and on meta torch replaces the math kernel
    module, x = build(spec, META)
    totals = trace(module, *x).totals
    predicted = {
        "MACs": plan.macs,
        "elementwise FLOPs": plan.other_flops,
        "parameters": plan.params,
        "bytes read": sum([step.times * step.bytes_read for step in plan.steps]),
        "bytes written": sum([step.times * step.bytes_written for step in plan.steps]),
    }
    real = {
        "MACs": totals.macs,
        "elementwise FLOPs": totals.other_flops,
        "parameters": totals.params,
        "bytes read": totals.bytes_read,
        "bytes written": totals.bytes_written,
    }
    hold_equal(spec, "total in explore and in trace", predicted, real, _hint(plan.steps))


def _hint(steps: tuple[SizedStep, ...]) -> str:
    copying = [step.name for step in steps if any(run.name == "clone" for run in step.forward.runs)]
    copies = f"; the plan has copies in {', '.join(copying)}" if copying else ""
    return f"a copy in the module that is missing in the step's operation, or vice versa{copies}"
