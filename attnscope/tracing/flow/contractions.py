"""Find the matmuls of data with data: q·kᵀ, the weighted sum of values, and kᵀ·v."""

from collections.abc import Iterator
from dataclasses import dataclass

from attnscope.tracing.flow.axes import Atom, Axis, joined
from attnscope.tracing.flow.record import Flow, Node, Value
from attnscope.tracing.flow.rules import EXPANDED, operands, reduced_places

MATMULS = frozenset({"mm", "addmm", "bmm", "baddbmm", "baddbmm_", "mv", "dot"})
RUNNING = frozenset({"cumsum", "cumsum_"})
"""Operators that sum over all positions up to each one, and keep the axis."""
SUMS = frozenset({"sum", "mean"}) | RUNNING


@dataclass(frozen=True, eq=False, slots=True)
class Contraction:
    """A product of two tensors that is summed over an axis of both: `out[batch, rows, columns]`.

    `rows` are axes of `left` alone, `columns` axes of `right` alone, as the result has them, and `batch` axes of both.
    `keys` are the columns as `right` has them.
    """

    node: Node
    left: Value
    right: Value
    out: Value
    batch: Axis
    rows: Axis
    columns: Axis
    keys: Axis
    contracted: Axis


def contractions(flow: Flow) -> Iterator[Contraction]:
    """Yield all contractions of data with data, in their order."""
    for node in flow.nodes:
        if node.name in MATMULS:
            found = _matmul(node)
        elif node.name in SUMS:
            found = _sum_of_product(node)
        else:
            continue
        if found is not None and all(_is_data(value, node) for value in (found.left, found.right)):
            yield found


def _is_data(value: Value, node: Node) -> bool:
    """Return whether a factor is data. Learned queries are data too, which have heads, unlike a weight that is computed."""
    return not (value.is_weight if node.name.startswith(("bmm", "baddbmm")) else value.is_constant)


def _matmul(node: Node) -> Contraction | None:
    left, right = operands(node)
    if left is None or right is None or not left.axes or not right.axes:
        return None
    out = node.outputs[0]
    rows = left.axes[-2] if len(left.axes) > 1 else ()
    columns = out.axes[-1] if len(right.axes) > 1 else ()
    keys = right.axes[-1] if len(right.axes) > 1 else ()
    batch = out.axes[0] if len(out.axes) > 2 else ()
    return Contraction(node, left, right, out, batch, rows, columns, keys, left.axes[-1])


def _sum_of_product(node: Node) -> Contraction | None:
    """Read `(left * right).sum(axis)`, and `(left * right).cumsum(axis)`, which keeps the axis."""
    product = node.args[0]
    maker = product.maker
    if maker is None or maker.name not in ("mul", "mul_") or len(list(maker.inputs)) != 2:
        return None
    left, right = maker.inputs
    places = set(reduced_places(node))
    rank = len(product.shape)
    parts: dict[str, list[Atom]] = {"batch": [], "rows": [], "columns": [], "contracted": []}
    for place in range(rank):
        in_left, in_right = (_varies(value, place - rank) for value in (left, right))
        shared = "batch" if in_left and in_right else "rows" if in_left else "columns"
        parts["contracted" if place in places else shared] += product.axes[place]
    axes = {name: joined(atoms) for name, atoms in parts.items()}
    return Contraction(node, left, right, node.outputs[0], keys=axes["columns"], **axes)


def _varies(value: Value, place: int) -> bool:
    """Return whether a tensor has different positions along an axis, rather than one that is broadcast."""
    if len(value.shape) < -place or value.shape[place] == 1:
        return False
    return len(value.axes) < -place or any(atom.root.how != EXPANDED for atom in value.axes[place])
