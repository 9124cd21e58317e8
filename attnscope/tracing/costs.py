"""Compute the cost of one aten operator with the registry of operations.

The cost of an operator that is not in the registry is unknown, not zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from attnscope import ops
from attnscope.core.axes import Shape
from attnscope.ops.attention import Attend
from attnscope.ops.attention import fused_attention as described
from attnscope.ops.operation import Arguments, Operation, bytes_moved, each_out, tensors_in

__all__ = ["Attend", "Cost", "cost_of", "fused_attention", "shapes_in", "tensors_in"]


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of one operator. MACs and FLOPs are None if it has no formula."""

    macs: int | None
    other_flops: int | None
    bytes_read: int
    bytes_written: int
    is_view: bool = False


FREE = Cost(0, 0, 0, 0, is_view=True)


def cost_of(operator: Any, args: Arguments, kwargs: Mapping[str, Any], out: Any) -> Cost:
    """Return the cost of one call of an aten operator (an OpOverload) with these arguments and this result."""
    operation, is_known = _operation(operator)
    if operation.is_view:
        return FREE
    read, written = bytes_moved(operation, (args, kwargs), out)
    if not is_known:
        return Cost(None, None, read, written)
    arguments = positional(operator, args, kwargs)
    macs, flops = (0 if formula is None else formula(arguments, out) for formula in (operation.macs, operation.flops))
    return Cost(macs, flops, read, written)


def positional(operator: Any, args: Arguments, kwargs: Mapping[str, Any]) -> Arguments:
    """Return all arguments, including keyword arguments, in the order of the operator's schema."""
    if not kwargs:
        return args
    rest = operator._schema.arguments[len(args) :]
    return [*args, *[kwargs.get(each.name) for each in rest]]


@cache
def _operation(operator: Any) -> tuple[Operation, bool]:
    """Return the operation of an operator, and whether the operation has its cost."""
    name = name_of(operator)
    found = ops.find(name)
    if operator.is_view or (found is not None and found.is_view):
        return Operation(name, is_view=True), True
    if found is not None:
        return found, True
    is_elementwise = torch.Tag.pointwise in operator.tags
    return Operation(name, flops=each_out() if is_elementwise else None), is_elementwise


def name_of(operator: Any) -> str:
    """Return the aten name without the overload: `addmm`."""
    return str(operator.overloadpacket).removeprefix("aten.")


def fused_attention(operator: Any, args: Arguments) -> Attend | None:
    """Describe the attention that a fused operator computes; None for any other operator."""
    return described(name_of(operator), args)


def shapes_in(values: Any) -> list[Shape]:
    """Return the shapes of the tensors in nested arguments."""
    return [tuple(tensor.shape) for tensor in tensors_in(values)]
