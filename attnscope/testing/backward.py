"""Checks of the backward of each step: its MACs and its peak memory."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.profiler import record_function

from attnscope.attentions.spec import Spec
from attnscope.core.optional import sum_of
from attnscope.ops.kernels import COMPILED
from attnscope.plan.backward import backward_held, backward_macs
from attnscope.plan.memory import Memory
from attnscope.plan.plan import place
from attnscope.plan.step import Step
from attnscope.profiling.counters import count_backward_with_torch
from attnscope.profiling.hooks import listening
from attnscope.profiling.steps import tensors_of
from attnscope.profiling.verification import compare_backward
from attnscope.testing.comparison import built, fail
from attnscope.testing.memory import hold_bytes, peak_bytes, profiling


def hold_backward_macs(spec: Spec, input_grad: bool = True) -> None:
    """Check that the predicted MACs of the backward equal those that torch's FlopCounterMode counts.

    Args:
        spec: Spec to test.
        input_grad: whether the inputs require a gradient.

    Raises:
        AssertionError: if they differ.
    """
    plan = spec.plan()
    if spec.kernel in COMPILED:
        return  # FlopCounterMode does not see the operators of compiled code
    macs = backward_macs(plan, spec.kernel, input_grad)
    with built(spec) as (module, x):
        counted = count_backward_with_torch(module, *x, input_grad=input_grad)
    if None in macs or not compare_backward(plan, macs, counted).agree:
        by_step = ", ".join(
            f"{plan.steps[number].name} {each:,}" for number, each in zip(plan.runs, macs, strict=True) if each
        )
        hint = f"constants= of a step whose operand needs no gradient; by steps: {by_step}"
        fail(spec, "MACs of the backward", "all steps", sum_of(macs), counted, hint)


def hold_backward_memory(spec: Spec, input_grad: bool = True) -> None:
    """Check the predicted peak memory of each step's backward with torch's profiler.

    Args:
        spec: Spec to test.
        input_grad: whether the inputs require a gradient.

    Raises:
        AssertionError: if a step's peak differs from the prediction, or is below a predicted lower bound.
    """
    memory = Memory(spec.plan())
    predicted = backward_held(memory, input_grad)
    exact, least = [each.known for each in predicted], [each.size for each in predicted]
    with built(spec) as (module, x):
        held = held_backward_bytes(module.train(), *[tensor.requires_grad_(input_grad) for tensor in x])
    hold_bytes(spec, "bytes held in the backward", memory.plan, exact, least, held)


def held_backward_bytes(module: nn.Module, *x: Tensor) -> dict[str, int]:
    """Return the peak memory of each step's backward in bytes, without earlier allocations, by the step's place.

    A step's backward begins when autograd has computed the gradient of the step's output, and ends when the backward of
    another step begins.
    """

    def mark(where: str) -> None:
        with record_function(f"step:{where}"):
            pass

    def listener(path: str, owner: nn.Module, step: Step, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            result = method(*args)
            for tensor in tensors_of(result):
                if tensor.requires_grad:
                    tensor.register_hook(lambda _: mark(place(path, step.name)))
            return result

        return call

    module(*x).sum().backward()
    module.zero_grad(set_to_none=True)
    for tensor in x:
        tensor.grad = None
    with listening(module, listener), profiling() as profiler:
        result = module(*x)
        result.backward(result.new_ones(result.shape))
        mark("end")
    return peak_bytes(profiler, until_next=True)
