"""Find rotary position embeddings: queries and keys whose pairs of channels rotate by an angle of the position."""

from collections.abc import Iterator
from math import prod

from attnscope.attentions.observed import Rotation
from attnscope.tracing.flow.axes import TOKEN, kind_of
from attnscope.tracing.flow.record import Node, Value

PRODUCTS = frozenset({"mul", "mul_"})
SUMS = frozenset({"add", "add_", "sub", "sub_", "addcmul", "addcmul_"})
NEGATIONS = frozenset({"neg", "neg_", "sub", "sub_", "rsub"})
ANGLES = frozenset({"cos", "sin", "polar"})
COMPLEX = "view_as_complex"
SWAPS = {"roll": 2, "flip": 1}
"""Operators that may swap the channels of a pair, and the place of the axes among their arguments."""
PAIR = 2
"""Number of channels that rotate together."""
FARTHEST = 60
"""The largest number of tensors between a projection and q·kᵀ that are searched."""
NEAREST = 30
"""The largest number of tensors that are searched from a factor of the rotation."""
PARTS = {"slice": 1, "select": 1, "unbind": 1, "chunk": 2, "split": 2, "split_with_sizes": 2}
"""Operators that take a part of a tensor, and the place of the axis among their arguments."""
STEP = 4
"""The place of the distance among the arguments of a slice."""


def rotation_of(query: Value) -> Rotation | None:
    """Return how the pairs of channels of a query or key rotate; None if they do not.

    The two channels of a pair, x and y, become x·cos − y·sin and y·cos + x·sin (Su et al., arXiv 2104.09864, equation 34).
    Complex numbers do the same in one product. The factors are constants, or a cosine and a sine.
    """
    for value in _before(query, FARTHEST):
        found = _of_sum(value.maker) or _of_complex(value.maker) if value.maker else None
        if found is not None:
            return found
    return None


def _of_sum(node: Node) -> Rotation | None:
    """Return the rotation that ends with this sum of two products; None for any other operator."""
    terms = _terms(node) if node.name in SUMS else []
    factors = [_factors(term) for term in terms]
    if len(factors) != PAIR or None in factors:
        return None
    (one, table), (other, _) = [each for each in factors if each]
    paths = [{*_before(value, NEAREST)} for value in (one, other)]
    makers = [value.maker for path in paths for value in path - (paths[0] & paths[1]) if value.maker]
    is_negative = any(maker.name in NEGATIONS for maker in (node, *makers))
    is_turned = (is_negative and any(map(_takes_channels, makers))) or any(map(_swaps_pairs, makers))
    if not is_turned or not paths[0] & paths[1] or prod(table.shape[:-1]) == 1:
        return None
    return Rotation(_tokens(node.outputs[0]), not any(map(_is_of_neighbours, makers)), _is_learned(table))


def _of_complex(node: Node) -> Rotation | None:
    """Return the rotation that a product of complex numbers is; None for any other operator."""
    found = _factors([*node.inputs]) if node.name in PRODUCTS else None
    maker = found[0].maker if found else None
    if found is None or maker is None or maker.name != COMPLEX:
        return None
    return Rotation(_tokens(next(maker.inputs)), False, _is_learned(found[1]))


def _terms(node: Node) -> list[list[Value]]:
    """Return the factors of each product in a sum; fewer than two if a term has no factors."""
    values = [*node.inputs]
    if node.name.startswith("addcmul"):
        return [_of_product(values[0]), values[1:]]
    return [_of_product(value) for value in values]


def _of_product(value: Value) -> list[Value]:
    is_product = value.maker is not None and value.maker.name in PRODUCTS
    return [*value.maker.inputs] if value.maker and is_product else []


def _factors(values: list[Value]) -> tuple[Value, Value] | None:
    """Return the factor that is data, and that which is a table of angles; None if they are not these."""
    tables = [value for value in values if _is_table(value)]
    data = [value for value in values if value not in tables]
    return (data[0], tables[0]) if len(data) == len(tables) == 1 else None


def _is_table(value: Value) -> bool:
    """Return whether a factor is a constant, or made from a cosine or sine of positions that are an input."""
    return value.is_constant or any(each.maker and each.maker.name in ANGLES for each in _before(value, NEAREST))


def _is_learned(table: Value) -> bool:
    """Return whether a table of angles is made from parameters."""
    return any(each.is_trainable for each in _before(table, NEAREST))


def _takes_channels(node: Node) -> bool:
    """Return whether an operator takes a part of the last axis."""
    place = PARTS.get(node.name)
    if place is None or not isinstance(node.args[0], Value):
        return False
    axis = node.args[place] if len(node.args) > place else 0
    return axis in (-1, len(node.args[0].shape) - 1)


def _swaps_pairs(node: Node) -> bool:
    """Return whether an operator swaps the two channels of each pair, whose signs are then those of the table."""
    if node.name not in SWAPS or not isinstance(node.args[0], Value):
        return False
    shape, axes = node.args[0].shape, node.args[SWAPS[node.name]]
    if len(axes) != 1:
        return False
    axis = axes[0] % len(shape)
    is_by_half = node.name == "roll" and axis == len(shape) - 1 and abs(node.args[1][0]) * PAIR == shape[axis]
    return is_by_half or (shape[axis] == PAIR and axis >= len(shape) - PAIR)


def _is_of_neighbours(node: Node) -> bool:
    """Return whether an operator takes every second channel, or one of a pair."""
    has_step = node.name == "slice" and len(node.args) > STEP and node.args[STEP] == PAIR
    is_swap = _swaps_pairs(node) and isinstance(node.args[0], Value) and node.args[0].shape[-1] == PAIR
    return has_step or is_swap or node.name in ("unbind", "select", "stack")


def _tokens(value: Value) -> int:
    """Return the number of tokens that rotate."""
    return prod(size for axis, size in zip(value.axes, value.shape, strict=False) if kind_of(axis) == TOKEN)


def _before(value: Value, farthest: int) -> Iterator[Value]:
    """Yield a tensor, and those from which it is made without a matmul or convolution."""
    queue = [value]
    seen = {value}
    for each in queue:
        yield each
        if len(seen) > farthest or each.maker is None or each.maker.macs:
            continue
        new = [before for before in each.maker.inputs if before not in seen]
        seen.update(new)
        queue += new
