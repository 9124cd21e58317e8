"""The registry: what one operator costs, declared once by its aten name and read by plans, traces and counters alike.

MACs are matmul-class work. Elementwise FLOPs are counted apart: an elementary operation or function (add, multiply,
compare, exp, erf, square root) on one number is 1 FLOP. Bytes are those of the tensors that the operator takes and makes,
each once; an expanded axis lies in memory once. Moving data has bytes and no FLOPs; a view has neither.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from attnscope.ops.tensor import distinct_elements

Arguments = Sequence[Any]
"""Arguments in the order of the operator's schema; those left out at the end have their defaults."""

Formula = Callable[[Arguments, Any], int]
"""Counts from the arguments and the result of one call."""


class Operation:
    """One operator: its costs.

    Args:
        name: the aten name without its overload, such as `addmm`.
        macs: multiply-accumulates of a call; None if it has none.
        flops: elementwise FLOPs of a call; None if it has none.
        is_view: the result is the memory of the argument.
        gathers: it reads the elements that it gives, not all there are.
        by_products: behind its result it makes statistics for the backward, which differ from device to device and are not
            counted.
    """

    __slots__ = ("by_products", "flops", "gathers", "is_view", "macs", "name")

    def __init__(
        self,
        name: str,
        macs: Formula | None = None,
        flops: Formula | None = None,
        is_view: bool = False,
        gathers: bool = False,
        by_products: bool = False,
    ) -> None:
        self.name = name
        self.macs = macs
        self.flops = flops
        self.is_view = is_view
        self.gathers = gathers
        self.by_products = by_products


OPERATIONS: dict[str, Operation] = {}
"""Every operator that is known, by its aten name."""


def register(
    names: str | Iterable[str],
    macs: Formula | None = None,
    flops: Formula | None = None,
    is_view: bool = False,
    gathers: bool = False,
    by_products: bool = False,
) -> None:
    """Declare operators that cost the same; `names` may be one text with several names in it."""
    for name in names.split() if isinstance(names, str) else names:
        if name in OPERATIONS:
            raise ValueError(f"operation {name} is declared twice")
        OPERATIONS[name] = Operation(name, macs, flops, is_view, gathers, by_products)


def find(name: str) -> Operation | None:
    """Return the operation with this aten name; `relu_` is `relu` in place. None if it is unknown."""
    return OPERATIONS.get(name) or OPERATIONS.get(name.removesuffix("_"))


def tensors_in(value: Any) -> Iterator[Any]:
    """Yield the tensors, abstract or real, in nested tuples, lists and dictionaries."""
    if hasattr(value, "element_size"):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)


def bytes_of(tensor: Any) -> int:
    """Return the bytes of a tensor's elements as they lie in memory; an expanded axis lies there once."""
    try:
        return int(tensor.element_size() * distinct_elements(tensor))
    except (RuntimeError, NotImplementedError):  # a real tensor without strides, such as a sparse one
        return int(tensor.element_size() * tensor.numel())


def bytes_moved(operation: Operation, arguments: Any, out: Any) -> tuple[int, int]:
    """Return the bytes that a call reads and writes: each tensor that it takes and makes, once."""
    result = out[0] if operation.by_products and isinstance(out, tuple | list) else out
    written = sum([bytes_of(tensor) for tensor in tensors_in(result)])
    return written if operation.gathers else sum([bytes_of(tensor) for tensor in tensors_in(arguments)]), written


def argument(arguments: Arguments, index: int) -> Any:
    """Return an argument that may have been left out."""
    return arguments[index] if len(arguments) > index else None


def each_out(flops: int = 1) -> Formula:
    """Count so many FLOPs for each element of the result."""
    return lambda arguments, out: flops * sum([tensor.numel() for tensor in tensors_in(out)])


def each_in(flops: int = 1) -> Formula:
    """Count so many FLOPs for each element of the first argument."""
    return lambda arguments, out: flops * sum([tensor.numel() for tensor in tensors_in(arguments[0])])
