"""Record the steps that a module runs, and check their shapes against their letters."""

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
    """Run a module once, and return the steps of attnscope that ran in it, in their order.

    The module may be any network that contains attentions of attnscope. Within one attention, each letter keeps its size
    from the first step to the last. Every shape is checked against the letters before and after each step.

    Args:
        module: the network. It runs in evaluation mode and without gradients; its mode is restored.
        inputs: the inputs of its forward.

    Returns:
        One SizedStep for each step that ran. It has the name, path, shapes and costs of the step: MACs
        (multiply-accumulates), FLOPs (two per MAC), elementwise FLOPs and bytes.

    Raises:
        AxisError: a shape contradicts the letters of a step; the message names the letters.
        PlanError: a module with steps does not have the sizes of its letters.

    Example:
        >>> import attnscope, torch
        >>> attention = attnscope.ViTAttention(dim=96, heads=3)
        >>> [(step.name, step.macs) for step in attnscope.trace_steps(attention, torch.randn(1, 49, 96)) if step.macs]
        [('project', 1354752), ('score', 230496), ('mix', 230496), ('output', 451584)]
    """
    traced: list[SizedStep] = []
    sizes_of: dict[str, dict[str, int]] = {}

    def start(path: str) -> Callable[..., None]:
        def hook(attention: nn.Module, given: tuple[Any, ...]) -> None:
            sizes_of[path] = {**_sizes_of(attention), **_sizes_for(attention, given)}

        return hook

    def listener(path: str, attention: Any, step: Step, method: Callable[..., Any]) -> Callable[..., Any]:
        if step.weights.keys() - dict(attention.named_parameters()).keys():
            step = step.without_bias()

        def call(*args: Any) -> Any:
            sizes = sizes_of[path] if path in sizes_of else sizes_of.setdefault(path, _sizes_of(attention))
            tensors = [value for value in args if isinstance(value, Tensor)]
            _check(step, step.letters.inputs, tensors, sizes)
            result = method(*args)
            results = tensors_of(result)
            _check(step, step.letters.outputs, results, sizes)
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
    """Return the tensors in the result of a step as a list."""
    return [result] if isinstance(result, Tensor) else list(result or ())


def _sizes_of(attention: nn.Module) -> dict[str, int]:
    """Return the sizes of the letters that a module sets, by letter.

    Raises:
        PlanError: the module has no mapping `sizes`.
    """
    sizes = getattr(attention, "sizes", None)
    if not isinstance(sizes, Mapping):
        raise PlanError(
            f"{type(attention).__name__} needs a property sizes, a mapping from each letter it sets to its size"
        )
    return dict(sizes)


def _sizes_for(attention: nn.Module, inputs: tuple[Any, ...]) -> dict[str, int]:
    """Return the sizes of the letters that a module sets for its inputs, if it has the method `sizes_for`."""
    sizes_for = getattr(attention, "sizes_for", None)
    return {} if sizes_for is None else dict(sizes_for(*inputs))


def _check(step: Step, letters: tuple[Letters, ...], tensors: list[Tensor], sizes: dict[str, int]) -> None:
    """Check the shapes of tensors against the letters of a step, and add the sizes of new letters to `sizes`.

    Raises:
        AxisError: a shape, or the number of tensors, contradicts the letters.
    """
    if len(tensors) != len(letters):
        raise AxisError(
            f"{step.name}: {step.pattern} must have {len(letters)} tensors on this side (got {len(tensors)})"
        )
    for tensor, expected in zip(tensors, letters, strict=True):
        try:
            expected.bind(tuple(tensor.shape), sizes)
        except AxisError as error:
            raise AxisError(f"{step.name}: {error}") from None
