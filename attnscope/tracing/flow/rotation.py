"""Find rotary position embeddings: queries and keys whose pairs of channels rotate by an angle of the position."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from attnscope.attentions.observed import Rotation
from attnscope.tracing.flow.axes import FEATURE, TOKEN, kind_of
from attnscope.tracing.flow.record import Node, Value

PRODUCTS = frozenset({"mul", "mul_", "div", "div_"})
SUMS = frozenset({"add", "add_", "sub", "sub_", "addcmul", "addcmul_"})
NEGATIONS = frozenset({"neg", "neg_", "sub", "sub_", "rsub"})
SCALED = frozenset({"mul", "mul_", *SUMS})
"""Operators whose last argument may be the number −1."""
ANGLES = frozenset({"cos", "sin", "polar"})
COMPLEX = frozenset({"view_as_complex", "complex"})
JOINS = frozenset({"cat", "stack"})
SWAPS = {"roll": 2, "flip": 1}
"""Operators that may swap the channels of a pair, and the place of the axes among their arguments."""
PAIR = 2
"""Number of channels that rotate together."""
FARTHEST = 60
"""The largest number of tensors between a projection and q·kᵀ that are searched."""
NEAREST = 30
"""The largest number of tensors that are searched from a factor of the rotation."""
LONGEST = 120
"""The largest number of tensors that are searched from a table of angles, of which layers may keep ever fewer tokens."""
PARTS = {"slice": 1, "select": 1, "unbind": 1, "chunk": 2, "split": 2, "split_with_sizes": 2}
"""Operators that take a part of a tensor, and the place of the axis among their arguments."""
STEP = 4
"""The place of the distance among the arguments of a slice."""


def rotation_of(query: Value) -> Rotation | None:
    """Return how the pairs of channels of a query or key rotate; None if they do not.

    The two channels of a pair, x and y, become x·cos − y·sin and y·cos + x·sin (Su et al., arXiv 2104.09864, equation 34).
    Complex numbers do the same in one product. The factors are constants, or a cosine and a sine.
    """
    halves: list[_Sum] = []
    for value in _before(query, FARTHEST):
        found = _of_complex(value.maker) or _of_sum(value.maker) if value.maker else None
        if isinstance(found, Rotation):
            return found
        if found is not None and found.is_both:
            return found.rotation
        halves += [found] if found else []
        if {half.is_negative for half in halves} == {True, False}:
            return halves[0].rotation
    return None


@dataclass(frozen=True)
class _Sum:
    """A sum of two products, of channels of a query with constants.

    Args:
        rotation: the rotation that it belongs to.
        is_both: whether it computes both channels of each pair, with opposite signs of the second product.
        is_negative: whether it subtracts, if it computes one channel of each pair.
    """

    rotation: Rotation
    is_both: bool
    is_negative: bool


def _of_sum(node: Node) -> _Sum | None:
    """Return the part of a rotation that this sum of two products is; None for any other operator."""
    terms = _terms(node) if node.name in SUMS else []
    factors = [_factors(term) for term in terms]
    if len(factors) != PAIR or None in factors:
        return None
    (one, table), (other, _) = [each for each in factors if each]
    paths = [{*_before(value, NEAREST)} for value in (one, other)]
    makers = [value.maker for path in paths for value in path - (paths[0] & paths[1]) if value.maker]
    if not paths[0] & paths[1] or prod(table.shape[:-1]) == 1:
        return None
    rotation = Rotation(_tokens(node.outputs[0]), not any(map(_is_of_neighbours, makers)), _is_learned(table))
    if any(map(_swaps_pairs, makers)):  # the signs are those of the table
        return _Sum(rotation, True, False) if table.shape[-1] > 1 else None
    if not any(map(_takes_channels, makers)):
        return None
    signs = [_is_negation(maker) for maker in makers]
    if any(signs) or any(maker.name in JOINS for maker in makers):
        return _Sum(rotation, True, False) if sum(signs) == 1 else None
    if _has_signs(table):
        return _Sum(rotation, True, False)
    return _Sum(rotation, False, _is_negation(node))


def _of_complex(node: Node) -> Rotation | None:
    """Return the rotation that a product of complex numbers is; None for any other operator."""
    found = _factors([*node.inputs]) if node.name in PRODUCTS else None
    if found is None:
        return None
    made = next((value.maker for value in _viewed(found[0]) if value.maker and value.maker.name in COMPLEX), None)
    if made is None:
        return None
    parts = [*made.inputs]
    makers = [value.maker for part in parts for value in _viewed(part) if value.maker]
    takers = [maker for maker in makers if _takes_channels(maker)]
    is_by_half = bool(takers) and not any(map(_is_of_neighbours, takers))
    return Rotation(_tokens(parts[0]), is_by_half, _is_learned(found[1]))


def _viewed(value: Value) -> Iterator[Value]:
    """Yield a tensor, and those of which it is a view or a copy."""
    for _ in range(NEAREST):
        yield value
        if value.maker is None or value.maker.macs or len([*value.maker.inputs]) != 1 or value.maker.name in COMPLEX:
            return
        value = next(value.maker.inputs)


def _terms(node: Node) -> list[list[Value]]:
    """Return the factors of each product in a sum; fewer than two if a term has no factors."""
    values = [*node.inputs]
    if node.name.startswith("addcmul"):
        return [_of_product(values[0]), [factor for value in values[1:] for factor in _scaled(value)]]
    return [_of_product(value) for value in values]


def _of_product(value: Value) -> list[Value]:
    is_product = value.maker is not None and value.maker.name in PRODUCTS
    return [factor for each in value.maker.inputs for factor in _scaled(each)] if value.maker and is_product else []


def _scaled(value: Value) -> list[Value]:
    """Return the factors of a tensor that is scaled by constants before it is a factor itself: q·cos·scale."""
    factors = _of_product(value)
    is_scaled = len([factor for factor in factors if not _is_table(factor)]) == 1
    return factors if is_scaled else [value]


def _factors(values: list[Value]) -> tuple[Value, Value] | None:
    """Return the factor that is data, and that which is a table of angles; None if they are not these."""
    tables = [value for value in values if _is_table(value)]
    data = [value for value in values if value not in tables]
    tables.sort(key=lambda table: (not _has_angles(table), prod(table.shape[:-1]) == 1))
    if len(data) != 1 or not tables or (_is_learned(tables[0]) and not _has_angles(tables[0])):
        return None
    return data[0], tables[0]


def _has_angles(value: Value) -> bool:
    """Return whether a tensor is made from a cosine or sine."""
    return any(each.maker and each.maker.name in ANGLES for each in _before(value, LONGEST))


def _has_signs(table: Value) -> bool:
    """Return whether a table of angles has cosines and sines, some of them negative."""
    names = {each.maker.name for each in _before(table, LONGEST) if each.maker}
    return {"cos", "sin"} <= names and bool(names & NEGATIONS)


def _is_negation(node: Node) -> bool:
    """Return whether an operator changes the sign of a tensor, or subtracts one."""
    return node.name in NEGATIONS or (node.name in SCALED and node.args[-1] == -1)


def _is_table(value: Value) -> bool:
    """Return whether a factor is a constant, or made from a cosine or sine of positions that are an input."""
    queue, has_angles = [value], False
    seen = {value}
    for each in queue:
        if each.is_constant:
            continue
        if each.maker is None or each.maker.macs or len(queue) > LONGEST:
            return False
        if each.maker.name in ANGLES:
            has_angles = True
        else:
            # indices only choose positions
            factors = [before for before in each.maker.inputs if before.is_real and before not in seen]
            seen.update(factors)
            queue += factors
    return value.is_constant or has_angles


def _is_learned(table: Value) -> bool:
    """Return whether a table of angles is made from parameters."""
    return any(each.is_trainable for each in _before(table, LONGEST))


def _takes_channels(node: Node) -> bool:
    """Return whether an operator takes a part of the channels: of the last axis, or of the one before tokens."""
    place = PARTS.get(node.name)
    if place is None or not isinstance(node.args[0], Value) or not node.args[0].shape:
        return False
    axes, rank = node.args[0].axes, len(node.args[0].shape)
    axis = (node.args[place] if len(node.args) > place else 0) % rank
    is_before_tokens = axis == rank - 2 and len(axes) == rank and kind_of(axes[-1]) == TOKEN
    return axis == rank - 1 or (is_before_tokens and kind_of(axes[axis]) == FEATURE)


def _swaps_pairs(node: Node) -> bool:
    """Return whether an operator swaps the two channels of each pair, whose signs are then those of the table."""
    if node.name not in SWAPS or not isinstance(node.args[0], Value):
        return False
    shape, place = node.args[0].shape, SWAPS[node.name]
    axes = node.args[place] if len(node.args) > place else []  # a roll without axes is one of the flattened tensor
    if len(axes) != 1 or not shape:
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
