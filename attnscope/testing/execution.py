"""Checks of the module as it runs: the steps of the plan, on its shapes, with its parameters, and nothing outside them."""

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

STEPS_HINT = "forward calls the methods of the steps that plan(spec) lists, in that order, and each is tied to its Step"
SHAPES_HINT = (
    "the letters of the step's pattern, the sizes that plan(spec) gives them, "
    "and the module's `spelling` of the letters of inherited steps"
)


def hold_steps(spec: Spec) -> None:
    """Hold the steps that run, and their shapes, MACs and parameters, against the plan.

    Raises:
        AssertionError: other steps run, or in another order, or on other shapes.
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
    """Hold the module's parameters, by name and shape, against those of the plan's steps.

    Raises:
        AssertionError: the plan lacks a parameter, or has one too many, or of another shape.
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
    """Notes every operator that runs while no step does."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.inside = False
        self.outside: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.inside:
            self.outside.append(str(func))
        return func(*args, **(kwargs or {}))


def hold_operators(spec: Spec) -> None:
    """Hold the forward to its steps: no operator runs outside them, from the second forward on.

    Raises:
        AssertionError: an operator runs outside a step.
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
        module(*x)  # what a module makes once and keeps, such as a mask, is not a step
        with listening(module, listener), operators:
            module(*x)
    if operators.outside:
        hint = "forward only calls methods tied to steps; move the operator into one of them"
        fail(spec, "operators outside the steps", "the forward", [], operators.outside, hint)
