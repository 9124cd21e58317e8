"""The registry of operator costs, by aten name, which plans, traces and counters share.

MACs are the work of matmuls and convolutions. Elementwise FLOPs are counted separately: an elementary operation or
function (add, multiply, compare, exp, erf, square root) on one element is 1 FLOP. Bytes count each input and output
tensor once; an expanded axis occupies memory once. Moving data has bytes but no FLOPs; a view has neither.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from attnscope.core.optional import sum_of
from attnscope.ops.tensor import Description, distinct_elements

Arguments = Sequence[Any]
"""Arguments in the order of the operator's schema; omitted trailing arguments have their defaults."""

Formula = Callable[[Arguments, Any], int | None]
"""A function that counts the cost of one call from its arguments and its result; None if the cost is unknown."""


class Moved(NamedTuple):
    """The tensors that a call reads and those that it writes, which may be nested in tuples, lists and dictionaries."""

    read: Any
    written: Any


Moves = Callable[[Arguments, Any], Moved]
"""A function that returns what one call reads and writes, from its arguments and its result."""


def nothing(arguments: Arguments, out: Any) -> Moved:
    """Return that a call only allocates its result."""
    return Moved((), ())


def filled(arguments: Arguments, out: Any) -> Moved:
    """Return that a call writes numbers that do not depend on the elements of its arguments."""
    return Moved((), out)


def gathered(arguments: Arguments, out: Any) -> Moved:
    """Return that a call reads only the elements that it returns."""
    return Moved(out, out)


def without_statistics(arguments: Arguments, out: Any) -> Moved:
    """Return the arguments and the first result; the others are statistics for the backward, which depend on the device."""
    return Moved(arguments, out[0] if isinstance(out, tuple | list) else out)


class Operation:
    """The costs of one operator.

    Args:
        name: the aten name without its overload, such as `addmm`.
        macs: counts the multiply-accumulates of a call; None for an operator without MACs.
        flops: counts the elementwise FLOPs of a call; None for an operator without FLOPs.
        is_view: the result shares the memory of the argument.
        moves: returns what a call reads and writes; by default, its arguments and its result.
    """

    __slots__ = ("flops", "is_view", "macs", "moves", "name")

    def __init__(
        self,
        name: str,
        macs: Formula | None = None,
        flops: Formula | None = None,
        is_view: bool = False,
        moves: Moves = Moved,
    ) -> None:
        self.name = name
        self.macs = macs
        self.flops = flops
        self.is_view = is_view
        self.moves = moves


OPERATIONS: dict[str, Operation] = {}
"""All registered operators, by aten name."""


def register(
    names: str | Iterable[str],
    macs: Formula | None = None,
    flops: Formula | None = None,
    is_view: bool = False,
    moves: Moves = Moved,
) -> None:
    """Register operators that share their costs.

    Args:
        names: aten names, or one text with names separated by whitespace.
        macs, flops, is_view, moves: see `Operation`.

    Raises:
        ValueError: an operator is registered already.
    """
    for name in names.split() if isinstance(names, str) else names:
        if name in OPERATIONS:
            raise ValueError(f"operation {name} is declared twice")
        OPERATIONS[name] = Operation(name, macs, flops, is_view, moves)


def find(name: str) -> Operation | None:
    """Return the operation with this aten name, in place (`relu_`) or not; None if it is not registered."""
    return OPERATIONS.get(name) or OPERATIONS.get(name.removesuffix("_"))


PLAIN = frozenset({int, float, bool, str, type(None)})
"""Types of most arguments that are not tensors."""


def tensors_in(value: Any) -> Iterator[Any]:
    """Return an iterator over the tensors, abstract or real, in nested tuples, lists and dictionaries."""
    found: list[Any] = []
    _collect(value, found)
    return iter(found)


def _collect(value: Any, found: list[Any]) -> None:
    """Append the tensors in a value to a list; nested generators would take three times as long."""
    if type(value) in PLAIN:
        return
    if hasattr(value, "element_size"):
        found.append(value)
    elif isinstance(value, tuple | list):
        for item in value:
            _collect(item, found)
    elif isinstance(value, dict):
        for item in value.values():
            _collect(item, found)


def bytes_of(tensor: Any) -> int | None:
    """Return the bytes of a tensor in memory, where an expanded axis counts once; None if they are unknown."""
    if isinstance(tensor, Description):
        return tensor.nbytes
    return int(tensor.element_size() * distinct_elements(tensor))


def bytes_moved(operation: Operation, arguments: Arguments, out: Any) -> tuple[int | None, int | None]:
    """Return the bytes that a call reads and writes; each input and output tensor counts once.

    A number is None if the bytes of a tensor are unknown.
    """
    read, written = operation.moves(arguments, out)
    return _bytes_in(read), _bytes_in(written)


def _bytes_in(tensors: Any) -> int | None:
    return sum_of([bytes_of(tensor) for tensor in tensors_in(tensors)])


def argument(arguments: Arguments, index: int) -> Any:
    """Return an argument by index, or None if it is omitted."""
    return arguments[index] if len(arguments) > index else None


def each_out(flops: int = 1) -> Formula:
    """Return a formula that counts the given FLOPs for each element of the result."""
    return lambda arguments, out: flops * sum([tensor.numel() for tensor in tensors_in(out)])


def each_in(flops: int = 1) -> Formula:
    """Return a formula that counts the given FLOPs for each element of the first argument."""
    return lambda arguments, out: flops * sum([tensor.numel() for tensor in tensors_in(arguments[0])])
