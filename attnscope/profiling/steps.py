"""Which steps a module really ran, on which shapes, held against their letters."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from attnscope.core.axes import AxisError
from attnscope.core.axes import Tensor as Letters
from attnscope.core.errors import PlanError
from attnscope.plan.plan import SizedStep
from attnscope.plan.step import Step
from attnscope.profiling.hooks import listening


def trace_steps(module: nn.Module, *inputs: Tensor) -> list[SizedStep]:
    """Run a module once and tell the steps of attnscope's that ran in it, in their order.

    Works for any network that has attentions of attnscope's somewhere inside. The letters of one attention keep their
    sizes from its first step to its last, and every shape is held against them before and after each step.

    Args:
        module: the network. It runs in evaluation mode and without gradients, and is left as it was.
        inputs: what its forward takes.

    Returns:
        One SizedStep for each step that ran: its name, path, shapes, MACs (multiply-accumulates), FLOPs (two a MAC),
        elementwise FLOPs and bytes.

    Raises:
        AxisError: a shape that is not what a step's letters say, named in these letters.
        PlanError: a module with steps that does not say the sizes of its letters.
    """
    traced: list[SizedStep] = []
    sizes_of: dict[str, dict[str, int]] = {}

    def start(path: str) -> Callable[..., None]:
        def hook(attention: nn.Module, *_: Any) -> None:
            sizes_of[path] = _sizes_of(attention)

        return hook

    def listener(path: str, attention: Any, step: Step, method: Callable[..., Any]) -> Callable[..., Any]:
        if step.weights.keys() - dict(attention.named_parameters()).keys():
            step = step.without_bias()

        def call(*args: Any) -> Any:
            sizes = sizes_of[path] if path in sizes_of else sizes_of.setdefault(path, _sizes_of(attention))
            tensors = [value for value in args if isinstance(value, Tensor)]
            _hold(step, step.letters.inputs, tensors, sizes)
            result = method(*args)
            results = tensors_of(result)
            _hold(step, step.letters.outputs, results, sizes)
            traced.append(SizedStep(step, sizes, results[0].element_size(), path))
            return result

        return call

    with ExitStack() as stack:
        for path, submodule in module.named_modules():
            if hasattr(submodule, "sizes"):
                stack.enter_context(submodule.register_forward_pre_hook(start(path)))
        for submodule in module.modules():
            stack.callback(setattr, submodule, "training", submodule.training)
        stack.enter_context(listening(module, listener))
        stack.enter_context(torch.no_grad())
        module.eval()(*inputs)
    return traced


def tensors_of(result: Tensor | Iterable[Tensor] | None) -> list[Tensor]:
    """Return the tensors that a step returned: several, one or none."""
    return [result] if isinstance(result, Tensor) else list(result or ())


def _sizes_of(attention: nn.Module) -> dict[str, int]:
    """Return the letters that a module sets, with their sizes.

    Raises:
        PlanError: it does not say them.
    """
    sizes = getattr(attention, "sizes", None)
    if not isinstance(sizes, Mapping):
        raise PlanError(f"{type(attention).__name__} needs a property sizes: the letters that the module sets, by name")
    return dict(sizes)


def _hold(step: Step, letters: tuple[Letters, ...], tensors: list[Tensor], sizes: dict[str, int]) -> None:
    """Hold real tensors against a step's letters, and learn the sizes they tell."""
    if len(tensors) != len(letters):
        raise AxisError(f"{step.name}: {step.pattern} has {len(letters)} tensors on this side, not {len(tensors)}")
    for tensor, expected in zip(tensors, letters, strict=True):
        try:
            expected.bind(tuple(tensor.shape), sizes)
        except AxisError as error:
            raise AxisError(f"{step.name}: {error}") from None
