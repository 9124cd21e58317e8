"""Find what rearranges images or frames on the way to a query, key or value: keys may be those of another image."""

from collections.abc import Iterator, Sequence

from attnscope.tracing.flow.axes import BATCH, TOKEN, Axis, Root, kind_of, roots_of
from attnscope.tracing.flow.projections import data_of, is_projection
from attnscope.tracing.flow.record import Node, Value

AXES = {
    "flip": 1,
    "roll": 2,
    "select": 1,
    "slice": 1,
    "unbind": 1,
    "chunk": 2,
    "split": 2,
    "split_with_sizes": 2,
    "cat": 1,
}
"""Operators that choose or move positions, and the place of their axes among the arguments."""
FARTHEST = 60
"""The largest number of operators that are searched."""


def is_of_others(query: Value, key: Value, value: Value, tokens: frozenset[Root]) -> bool:
    """Return whether keys and values come from other images or frames than the queries.

    These are positions along axes that are not among the `tokens` of an attention: `x[:, 0]` attends to `x[:, 1]`, or
    each frame to the one before.
    """
    of_query, of_key, of_value = ([*_rearranged(each, tokens)] for each in (query, key, value))
    return of_query != of_key == of_value


def _rearranged(value: Value, tokens: frozenset[Root]) -> Iterator[tuple[object, ...]]:
    """Yield the operators that made a tensor by choosing or moving positions along other axes than tokens."""
    for _ in range(FARTHEST):
        node = value.maker
        if node is None:
            return
        for axis in _axes(node):
            if kind_of(axis) in (BATCH, TOKEN) and not roots_of(axis) & tokens:
                yield node.name, axis, *_arguments(node, value)
        before = data_of(node) if is_projection(node) else next(iter(node.inputs), None)
        if before is None:
            return
        value = before


def _axes(node: Node) -> Iterator[Axis]:
    """Yield the axes along which an operator chooses or moves positions."""
    place = AXES.get(node.name)
    if place is None:
        return
    tensor = node.outputs[0] if node.name == "cat" else next(node.inputs)
    given = node.args[place] if len(node.args) > place else 0
    for axis in given if isinstance(given, list) else [given]:
        if isinstance(axis, int) and -len(tensor.axes) <= axis < len(tensor.axes):  # an axis may have a name
            yield tensor.axes[axis]


def _arguments(node: Node, value: Value) -> Sequence[object]:
    """Return the arguments that are not tensors, and which of its results the operator returned."""
    plain = [str(arg) for arg in node.args if not isinstance(arg, Value | list) or node.name in ("flip", "roll")]
    parts = [id(part) for part in node.inputs] if node.name == "cat" else []
    return [*plain[node.name in ("flip", "roll") :], node.outputs.index(value), *parts]
