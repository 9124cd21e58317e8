"""Follow axes through views: which tokens, channels or images each axis of a tensor counts, and in which order.

A Root is an axis as it came to be, such as the height of an image or the output channels of a projection. An Atom is every
`stride`-th position of a Root: `view` splits an Atom into an outer and an inner one, and joins neighbours again. An axis of
a tensor is a sequence of Atoms, from the outermost to the innermost; one of size 1 has none.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import prod
from typing import NamedTuple

from attnscope.core.axes import Shape

BATCH, TOKEN, FEATURE, TABLE, UNKNOWN = "batch", "token", "feature", "table", "unknown"
"""Kinds of Roots: images, tokens (or another axis of an input), output channels of a weight, rows of a table."""
RANK = {BATCH: 4, TOKEN: 3, FEATURE: 2, TABLE: 1, UNKNOWN: 0}
"""The kinds in the order in which they take precedence if an operator broadcasts two tensors."""
IMAGE = 4
"""Number of axes of an image with a batch axis, and of queries with an axis of heads."""
LONGEST_LINE = 64
"""The largest number of ancestors of a Root that are remembered, since a loop may have any number."""

_numbers = count()


@dataclass(eq=False, slots=True)
class Root:
    """An axis as it came to be.

    Args:
        size: its size.
        kind: what it counts.
        how: how it came from `origin`: "slice", "pad", "windows" and "window" (overlapping ones), "keys", "input", …
        origin: the Atoms of the axis that it came from; () for a new one.
        start: the first position of a slice, the padding before, or the place of an axis of an input.
        rank: the number of axes of that input.
        parts: the axes that a joint one has one after another; () for another Root.
    """

    size: int
    kind: str
    how: str = ""
    origin: "Axis" = ()
    start: int = 0
    rank: int = 0
    parts: "tuple[Axis, ...]" = ()
    line: "frozenset[Root]" = field(init=False)
    number: int = field(init=False)

    def __post_init__(self) -> None:
        before = frozenset().union(*[atom.root.line for atom in self.origin])
        self.line = (before if len(before) < LONGEST_LINE else frozenset()) | {self}
        self.number = next(_numbers)

    @property
    def whole(self) -> "Axis":
        """Return the axis with all positions."""
        return (Atom(self, 1, self.size),) if self.size != 1 else ()


class Atom(NamedTuple):
    """`size` positions of a Root at a distance of `stride`."""

    root: Root
    stride: int
    size: int


Axis = tuple[Atom, ...]
Axes = tuple[Axis, ...]


class MixedError(Exception):
    """A view that splits an axis inside of another one, so that its axes mix several."""


def size_of(axis: Iterable[Atom]) -> int:
    """Return the number of positions of an axis."""
    return prod([atom.size for atom in axis])


def kind_of(axis: Axis) -> str:
    """Return what most of an axis counts; UNKNOWN without Atoms."""
    return max(axis, key=lambda atom: atom.size).root.kind if axis else UNKNOWN


def roots_of(axes: Iterable[Atom]) -> frozenset[Root]:
    """Return the Roots of Atoms, and those that they came from."""
    return frozenset().union(*[atom.root.line for atom in axes])


def sources_of(axes: Iterable[Atom]) -> frozenset[Root]:
    """Return the Roots that Atoms ultimately came from, which came from no other."""
    found, queue = [], [atom.root for atom in axes]
    seen = {*queue}
    for root in queue:
        before = [atom.root for atom in root.origin if atom.root not in seen]
        if not root.origin:
            found.append(root)
        seen.update(before)
        queue += before
    return frozenset(found)


def joined(atoms: Iterable[Atom]) -> Axis:
    """Join neighbours that are the outer and the inner part of one Atom."""
    done: list[Atom] = []
    for atom in atoms:
        while done and done[-1].root is atom.root and done[-1].stride == atom.stride * atom.size:
            atom = Atom(atom.root, atom.stride, atom.size * done.pop().size)
        done.append(atom)
    return tuple(done)


def viewed(axes: Axes, shape: Shape) -> Axes:
    """Return the axes of a view with this shape.

    Axes that the view mixes, such as 6×4 as 8×3, are new; the equal ones before and after remain.
    """
    try:
        return _viewed(axes, shape)
    except MixedError:
        pass
    sizes = [size_of(axis) for axis in axes]
    before = 0
    while before < min(len(sizes), len(shape)) and sizes[before] == shape[before]:
        before += 1
    after = 0
    while after < min(len(sizes), len(shape)) - before and sizes[-1 - after] == shape[-1 - after]:
        after += 1
    mixed = tuple(atom for axis in axes[before : len(axes) - after] for atom in axis)
    kinds = {atom.root.kind for atom in mixed}
    kind = kinds.pop() if len(kinds) == 1 else UNKNOWN
    middle = [Root(size, kind, "", mixed).whole for size in shape[before : len(shape) - after]]
    return (*axes[:before], *middle, *axes[len(axes) - after :])


def _viewed(axes: Axes, shape: Shape) -> Axes:
    if 0 in shape:  # an empty tensor may be viewed in any shape with such an axis
        raise MixedError
    rest = [atom for axis in reversed(axes) for atom in reversed(axis)]
    made = []
    for size in shape:
        axis = []
        while size > 1:
            if not rest or not rest[-1].size:  # a size of zero has no factors
                raise MixedError
            atom = rest.pop()
            if size % atom.size == 0:
                axis.append(atom)
                size //= atom.size
            elif atom.size % size == 0:
                inner = atom.size // size
                axis.append(Atom(atom.root, atom.stride * inner, size))
                rest.append(Atom(atom.root, atom.stride, inner))
                size = 1
            else:
                raise MixedError
        made.append(joined(axis))
    if rest:
        raise MixedError
    return tuple(made)


def best(candidates: Sequence[Axis]) -> Axis:
    """Return the axis that says most about what it counts; the first of equal ones."""
    return max(candidates, key=lambda axis: min([_precedence(atom.root) for atom in axis], default=-1), default=())


def _precedence(root: Root) -> float:
    """Return the rank of a Root; the second axis of an input with four axes may count tokens, heads or channels.

    So may the first axis of an input with three axes that does not count images, since queries may have no batch axis.
    """
    is_open = root.how == "input" and root.kind == TOKEN and root.rank <= IMAGE and root.start == root.rank - 3
    return RANK[FEATURE] - 0.5 if is_open else RANK[root.kind]
