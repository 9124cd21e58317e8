"""Draft -> Scaling: the MACs of an attention at other sizes, by its closed form. No torch."""

from dataclasses import dataclass
from fractions import Fraction

from attnscope.attentions.draft import Draft
from attnscope.core.errors import AttnscopeError
from attnscope.core.sizes import Sides

FACTORS = (Fraction(1, 4), Fraction(1, 2), Fraction(1), Fraction(2), Fraction(4))
"""The sizes to look at, as multiples of the size of the draft."""


@dataclass(frozen=True)
class Point:
    """The MACs at one size: of the attention, and of global attention on the same tokens."""

    size: int
    macs: int
    global_macs: int


@dataclass(frozen=True)
class Scaling:
    """The growth of the MACs with the size.

    Args:
        field: the field that sets the size.
        points: the MACs at each size; the size is the last side of a grid.
        current: the point of the draft itself.
    """

    field: str
    points: list[Point]
    current: Point


def scaling_of(draft: Draft) -> Scaling:
    """Return the MACs of a draft at its own size, and at those of the other sizes that its Spec accepts."""
    name = draft.kind.SIZE_FIELD
    size = getattr(draft.spec, name)
    if size is None:  # another field sets it
        size = draft.spec.neighbourhood.tokens
    current = _point(draft, size)
    points = []
    for factor in FACTORS:
        try:
            sized = _times(size, factor)
            points.append(current if factor == 1 else _point(draft.with_value(name, sized), sized))
        except AttnscopeError:
            continue
    return Scaling(name, points, current)


def _times(size: int | Sides, factor: Fraction) -> int | Sides:
    """Return a size times a factor, rounded; the time of a volume stays as it is."""
    if isinstance(size, int):
        return max(1, round(size * factor))
    return (*size[:-2], *[max(1, round(side * factor)) for side in size[-2:]])


def _point(draft: Draft, size: int | Sides) -> Point:
    found = draft.spec.complexity()
    return Point(size if isinstance(size, int) else size[-1], found.own_macs, found.reference_macs)
