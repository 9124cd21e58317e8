"""Checks of a running module: it runs the plan's steps, with the planned shapes and parameters, and nothing else."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from attnscope.attentions.spec import Spec
from attnscope.core.axes import AxisError
from attnscope.plan.step import Step
from attnscope.profiling.hooks import listening
from attnscope.profiling.steps import trace_steps
from attnscope.testing.comparison import built, fail, hold_equal

STEPS_HINT = "forward must call the methods of the steps that plan(spec) lists, in order, each decorated with its Step"
SHAPES_HINT = (
    "the letters of the step's pattern, the sizes that plan(spec) gives them, "
    "and the module's `spelling` of the letters of inherited steps"
)


def hold_steps(spec: Spec) -> None:
    """Check that the module runs the steps of the plan, with the planned shapes, MACs and parameters.

    Raises:
        AssertionError: if the steps, their order or their shapes differ.
    """
    plan = spec.plan()
    with built(spec) as (module, x):
        try:
            ran = trace_steps(module, *x)
        except AxisError as error:
            raise AssertionError(f"shapes: {error}\n  hint: {SHAPES_HINT}\n  spec: {spec}") from error
    rows = {where: step for step in plan.steps for where in step.places}
    order = [step.places[0] for step in ran]
    planned = [plan.steps[number] for number in plan.runs]
    if set(order) != set(rows) or [where.rpartition(".")[2] for where in order] != [step.name for step in planned]:
        fail(spec, "order", "the steps", [step.name for step in planned], order, STEPS_HINT)
    for step in ran:
        expected = rows[step.places[0]]
        for what in ("inputs", "outputs", "macs", "params"):
            if getattr(step, what) != getattr(expected, what):
                fail(spec, what, step.places[0], getattr(expected, what), getattr(step, what), SHAPES_HINT)


def hold_parameters(spec: Spec) -> None:
    """Check that the module's parameters have the names and shapes that the plan's steps declare.

    Raises:
        AssertionError: if a parameter is missing in the plan or in the module, or has another shape.
    """
    planned = {
        f"{path}.{name}" if path else name: shape
        for step in spec.plan().steps
        for path in (step.path, *step.also)
        for name, shape in step.weights.items()
    }
    with built(spec) as (module, _):
        real = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    hold_equal(spec, "shape", planned, real, "weights={'proj.weight': 'c c'} of the step that uses the parameter")


class _Operators(TorchDispatchMode):
    """A mode that records every operator that runs outside the steps."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.inside = False
        self.outside: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.inside:
            self.outside.append(str(func))
        return func(*args, **(kwargs or {}))


def hold_operators(spec: Spec) -> None:
    """Check that the second forward runs no operator outside the steps.

    Raises:
        AssertionError: if an operator runs outside a step.
    """
    operators = _Operators()

    def listener(path: str, owner: nn.Module, step: Step, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            operators.inside = True
            try:
                return method(*args)
            finally:
                operators.inside = False

        return call

    with built(spec) as (module, x), torch.no_grad():
        module(*x)  # fills caches, such as a mask, which are not part of a step
        with listening(module, listener), operators:
            module(*x)
    if operators.outside:
        hint = "forward must only call the methods of steps; move the operator into one of them"
        fail(spec, "operators outside the steps", "the forward", [], operators.outside, hint)
