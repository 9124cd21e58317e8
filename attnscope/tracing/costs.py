"""Compute the cost of one operator with the registry of operations.

The cost of an operator that is not in the registry is unknown, not zero.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from attnscope import ops
from attnscope.ops.attention import ATTENDING, Attend
from attnscope.ops.attention import fused_attention as attend
from attnscope.ops.operation import Arguments, Formula, Operation, bytes_moved, each_out
from attnscope.ops.operation import tensors_in as sizes_in
from attnscope.ops.tensor import Description, UnknownSizeError
from attnscope.tracing.tensors import described, shapes_in, tensors_in

__all__ = ["COUNTS", "Attend", "Cost", "cost_of", "fused_attention", "shapes_in", "tensors_in"]

COUNTS = ("macs", "other_flops", "bytes_read", "bytes_written")
"""The counts of a Cost, by name."""
COMPLEX_MACS = 4
"""Multiply-accumulates of real numbers in one of complex numbers."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of one operator. A count that is unknown is None."""

    macs: int | None
    other_flops: int | None
    bytes_read: int | None
    bytes_written: int | None
    is_view: bool = False


FREE = Cost(0, 0, 0, 0, is_view=True)
UNKNOWN = Cost(None, None, None, None)


def cost_of(operator: Any, args: Arguments, kwargs: Mapping[str, Any], out: Any) -> Cost:
    """Return the cost of one call of an operator with these arguments and this result.

    Args:
        operator: an OpOverload, or a HigherOrderOperator.
        args: its positional arguments.
        kwargs: its keyword arguments.
        out: its result.
    """
    operation, is_known = _operation(operator)
    if operation.is_view:
        return FREE
    args, kwargs, out = described(args), described(kwargs), described(out)
    written_only = _written_only(operator)
    inputs = {name: value for name, value in kwargs.items() if name not in written_only}
    arguments = positional(operator, args, inputs)
    read, written = bytes_moved(operation, arguments, out)
    if not is_known:
        return Cost(_by_torchs_formula(operator, args, kwargs, out), None, read, written)
    macs = _count(operation.macs, arguments, out)
    if macs and next(sizes_in(out)).is_complex():
        macs *= COMPLEX_MACS
    return Cost(macs, _count(operation.flops, arguments, out), read, written)


def _count(formula: Formula | None, arguments: Arguments, out: Any) -> int | None:
    """Return a count by its formula, 0 without a formula, or None if a size is unknown."""
    if formula is None:
        return 0
    try:
        return formula(arguments, out)
    except UnknownSizeError:
        return None


def _by_torchs_formula(operator: Any, args: Arguments, kwargs: Mapping[str, Any], out: Any) -> int | None:
    """Return MACs by the formula of FlopCounterMode, which users can register for their operators; None without one."""
    from torch.utils.flop_counter import flop_registry

    formula: Any = flop_registry.get(getattr(operator, "overloadpacket", operator))
    if formula is None or any(isinstance(each, Description) for each in sizes_in((args, kwargs))):
        return None
    return int(formula(*args, **kwargs, out_val=out)) // 2


def positional(operator: Any, args: Arguments, kwargs: Mapping[str, Any]) -> Arguments:
    """Return all arguments, including keyword arguments, in the order of the operator's schema, if it has one."""
    if not kwargs or not hasattr(operator, "_schema"):
        return [*args, *kwargs.values()]
    rest = operator._schema.arguments[len(args) :]
    return [*args, *[kwargs.get(each.name) for each in rest]]


@cache
def _written_only(operator: Any) -> frozenset[str]:
    """Return the names of the arguments into which an operator writes its result, such as `out`."""
    schema = getattr(operator, "_schema", None)
    return frozenset(each.name for each in schema.arguments if each.is_out) if schema else frozenset()


@cache
def _operation(operator: Any) -> tuple[Operation, bool]:
    """Return the operation of an operator, and whether the operation has its cost."""
    name = name_of(operator)
    found = ops.find(name)
    if getattr(operator, "is_view", False) or (found is not None and found.is_view):
        return Operation(name, is_view=True), True
    if found is not None:
        return found, True
    is_elementwise = any(torch.Tag.pointwise in each.tags for each in _and_out_of_place(operator))
    return Operation(name, flops=each_out() if is_elementwise else None), is_elementwise


def _and_out_of_place(operator: Any) -> Iterator[Any]:
    """Yield an operator of a schema, and the overloads of what it does in place or as a prim, since torch tags not all."""
    packet = getattr(operator, "overloadpacket", None)
    if packet is None:
        return
    yield operator
    library = torch.ops.aten if operator.namespace == "prims" else getattr(torch.ops, operator.namespace)
    if (name := packet.__name__.removesuffix("_")) and (other := getattr(library, name, None)) not in (None, packet):
        yield from (getattr(other, overload) for overload in other.overloads())


def is_known(operator: Any) -> bool:
    """Return whether the registry has the cost of an operator."""
    return _operation(operator)[1]


def is_view(operator: Any) -> bool:
    """Return whether the result of an operator shares the memory of its argument."""
    return _operation(operator)[0].is_view


@cache
def name_of(operator: Any) -> str:
    """Return the name without the overload: `addmm`; with its namespace, unless that is aten or prims."""
    return str(getattr(operator, "overloadpacket", operator)).removeprefix("aten.").removeprefix("prims.")


@cache
def name_of_operator(operator: Any) -> str:
    """Return the name without namespace and overload: `addmm`, `cond`."""
    packet = getattr(operator, "overloadpacket", None)
    return str(operator if packet is None else packet.__name__)


@cache
def full_name(operator: Any) -> str:
    """Return the name with the namespace: `aten::addmm`, `higher_order::cond`."""
    packet = getattr(operator, "overloadpacket", None)
    return f"higher_order::{operator}" if packet is None else str(packet).replace(".", "::")


def fused_attention(operator: Any, args: Arguments) -> Attend | None:
    """Describe the attention that a fused operator computes; None for any other operator."""
    return attend(name_of(operator), described(args)) if name_of(operator) in ATTENDING else None
