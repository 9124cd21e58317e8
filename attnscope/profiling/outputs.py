"""Check that the outputs of modules are finite."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

CANNOT_TEST = NotImplementedError, RuntimeError, TypeError
"""Errors of dtypes such as float4, and of tensor classes of other libraries."""


class OutputCheck:
    """A check of the first output of each module; `warnings` has one for each output with NaN or infinite values.

    Later outputs are not checked, so that the check does not add to measured times.
    """

    def __init__(self) -> None:
        self.warnings: dict[str, str] = {}

    def expect(self, module: nn.Module, name: str = "the output") -> None:
        """Check the next output of a module, which must be a tensor; `name` names that output in a warning."""

        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            handle.remove()
            if name not in self.warnings and (warning := not_finite([output], name)):
                self.warnings[name] = warning

        handle = module.register_forward_hook(hook)


def not_finite(outputs: Iterable[Tensor], name: str = "the output") -> str | None:
    """Return a warning such as `the output has 3 NaN or infinite values of 96 …`; None if all values are finite.

    Tensors without values, such as those on meta, and those whose values torch cannot test are not checked.
    """
    tensors = [tensor for tensor in outputs if _has_values(tensor)]
    wrong, count = sum(map(_count, tensors)), sum(tensor.numel() for tensor in tensors)
    if not wrong:
        return None
    is_half = any(tensor.dtype == torch.float16 for tensor in tensors)
    fix = "float16 ends at 65,504, so use bfloat16 or float32" if is_half else "check the weights and the input"
    return f"{name} has {wrong:,} NaN or infinite values of {count:,}: {fix}"


def tensors_of(output: Any) -> list[Tensor]:
    """Return the tensors in the output of a module: nested tuples, lists and dictionaries, and what torch registers."""
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def _has_values(tensor: Tensor) -> bool:
    kind = tensor.dtype.is_floating_point or tensor.dtype.is_complex
    return kind and tensor.layout == torch.strided and not (tensor.is_meta or tensor.is_nested)


def _count(tensor: Tensor) -> int:
    try:
        values = tensor.detach()
        return 0 if _has_finite_sum(values) else values.numel() - int(values.isfinite().sum())
    except CANNOT_TEST:
        return 0


def _has_finite_sum(values: Tensor) -> bool:
    """Return whether the sum is finite: no value is NaN or infinite then. It takes a fiftieth of the time of a count."""
    try:
        return bool(values.sum().isfinite())
    except CANNOT_TEST:
        return False
