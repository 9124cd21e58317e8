"""The mesh of ranks on which an attention is sharded: `tp=2,windows=2x2`, and what each of its axes cuts."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from attnscope.core.errors import UsageError, did_you_mean, quoted

Shards = tuple[int, ...]
"""The size of an axis on each rank, from rank 0."""


class Kind(NamedTuple):
    """A way to shard an attention.

    Args:
        title: its name in words.
        source: the paper that describes it.
        enters: what the input is cut along: "tokens", "grid" (rows, or rows and columns), or "" if each rank has all of
            it.
        cuts_heads: each rank computes some of the heads, and has their weights only.
        meets: the collective that brings queries and the keys of other ranks together; "" if no query needs them.
    """

    title: str
    source: str
    enters: str = ""
    cuts_heads: bool = False
    meets: str = ""


KINDS = {
    "tp": Kind("tensor parallelism", "Shoeybi et al., arXiv 1909.08053", cuts_heads=True),
    "sp": Kind("sequence parallelism", "Korthikanti et al., arXiv 2205.05198", "tokens", cuts_heads=True),
    "ulysses": Kind("Ulysses", "Jacobs et al., arXiv 2309.14509", "tokens", meets="all-to-all"),
    "ring": Kind("ring attention", "Liu et al., arXiv 2310.01889", "tokens", meets="ring"),
    "context": Kind(
        "context parallelism by all-gather", "Dubey et al., arXiv 2407.21783", "tokens", meets="all-gather"
    ),
    "windows": Kind("windows", "each rank has some rows of windows", "grid"),
    "rows": Kind("rows", "each rank has some rows of the grid", "grid"),
}
"""The ways to shard, by their names in `--plan`."""
MOST_COUNTS = 8
"""The most numbers of ranks that an error lists; of more, it has the nearest."""
LARGEST_MESH = 1 << 16
"""The largest number of ranks."""
ROWS, COLUMNS = 1, 2
"""The axes of an input on a grid, after the batch."""


@dataclass(frozen=True)
class MeshAxis:
    """One axis of the mesh.

    Args:
        name: a key of KINDS.
        ranks: its number of ranks.
        place: the axis of the input that it cuts, if the input enters cut: 1, or 2 for the columns of a grid.
    """

    name: str
    ranks: int
    place: int = ROWS

    @property
    def kind(self) -> Kind:
        """Return the way to shard along this axis."""
        return KINDS[self.name]


Mesh = tuple[MeshAxis, ...]


def parse_mesh(text: str) -> Mesh:
    """Parse `tp=4`, `windows=2x2` or `tp=2,windows=2` into the axes of a mesh; the last axis has consecutive ranks.

    Raises:
        UsageError: a word is not `name=ranks`, a name is unknown or repeated, or ranks are out of range.
    """
    axes: list[MeshAxis] = []
    for word in text.split(","):
        name, equals, sides = map(str.strip, word.partition("="))
        if name not in KINDS:
            fix = did_you_mean(name, KINDS)
            raise UsageError(f"{{plan}} must be a list of name=ranks, such as tp=4 (got {quoted(word)}); {fix}")
        pattern = r"\d+([x×]\d+)?" if KINDS[name].enters == "grid" else r"\d+"
        if not equals or not re.fullmatch(pattern, sides) or len(sides) > 40:
            example = f"{name}=4 or {name}=2x2" if "x" in pattern else f"{name}=4"
            raise UsageError(f"{{plan}} {name} must have a number of ranks (got {quoted(word)}); such as {example}")
        if name in [axis.name for axis in axes]:
            raise UsageError(f"{{plan}} must have each name once (got {name} twice); remove one of them")
        ranks = [int(side) for side in re.split("[x×]", sides)]
        for place, count in enumerate(ranks, ROWS):
            axes.append(MeshAxis(name, count, place))
    check_mesh(tuple(axes))
    return tuple(axes)


def mesh_of(plan: str | Mesh) -> Mesh:
    """Return the axes of a mesh that is given as text, such as "tp=4", or as a tuple of its axes.

    Raises:
        UsageError: it is neither, or not legal.
    """
    if isinstance(plan, str):
        return parse_mesh(plan)
    if not (isinstance(plan, tuple) and plan and all(isinstance(axis, MeshAxis) for axis in plan)):
        raise UsageError(f"{{plan}} must be a text, such as 'tp=4', or a tuple of MeshAxis (got {plan!r})")
    check_mesh(plan)
    return plan


def check_mesh(mesh: Mesh) -> None:
    """Check the number of ranks of a mesh, and that its axes can be combined.

    Raises:
        UsageError: if it has no rank or too many, or if two axes cut the same.
    """
    total = ranks_of(mesh)
    if not 1 <= total <= LARGEST_MESH:
        raise UsageError(f"{{plan}} must have between 1 and {LARGEST_MESH} ranks (got {total})")
    cutting = {
        "the heads": [axis.name for axis in mesh if axis.kind.cuts_heads or axis.kind.meets == "all-to-all"],
        "the tokens": [axis.name for axis in mesh if axis.kind.enters],
    }
    for what, names in cutting.items():
        if len(set(names)) > 1:
            one, other = list(dict.fromkeys(names))[:2]
            raise UsageError(f"{{plan}} {one} and {other} both cut {what} (got {spell_mesh(mesh)}); remove one of them")


def ranks_of(mesh: Sequence[MeshAxis]) -> int:
    """Return the number of ranks of a mesh."""
    total = 1
    for axis in mesh:
        total *= axis.ranks
    return total


def spell_mesh(mesh: Sequence[MeshAxis]) -> str:
    """Return a mesh as `--plan` takes it: `tp=2,windows=2x2`."""
    ranks: dict[str, list[int]] = {}
    for axis in mesh:
        ranks.setdefault(axis.name, []).append(axis.ranks)
    return ",".join(f"{name}={'x'.join(map(str, counts))}" for name, counts in ranks.items())


def coordinates(mesh: Mesh, rank: int) -> tuple[int, ...]:
    """Return the place of a rank along each axis of the mesh; the last axis has consecutive ranks."""
    places = []
    for axis in reversed(mesh):
        rank, place = divmod(rank, axis.ranks)
        places.append(place)
    return tuple(reversed(places))


def distinct_ranks(mesh: Mesh) -> list[tuple[int, ...]]:
    """Return the places of ranks that may differ in what they do: the first two and the last two along each axis."""
    along = [sorted({0, min(1, axis.ranks - 1), max(0, axis.ranks - 2), axis.ranks - 1}) for axis in mesh]
    return list(product(*along))


class UncuttableError(UsageError):
    """An error for an attention that a plan does not cut for any number of ranks; its message names no legal plan."""


class LegalCounts(NamedTuple):
    """Numbers of ranks that are legal for an axis: all of them, or the nearest."""

    counts: tuple[int, ...]
    are_all: bool = True

    def __str__(self) -> str:
        *most, last = map(str, self.counts)
        spelled = f"{', '.join(most)} or {last}" if most else last
        return spelled if self.are_all else f"nearest: {spelled}"


class CountError(UsageError):
    """An error for a number of ranks along one axis of a mesh.

    Args:
        rule: the rule that it breaks, and the number.
        axis: the axis of the mesh.
        legal: the numbers of ranks that keep this rule; at least one.
    """

    def __init__(self, rule: str, axis: MeshAxis, legal: LegalCounts) -> None:
        super().__init__(f"{rule}; {legal}")
        self.rule, self.axis, self.legal = rule, axis, legal


def count_error(rule: str, total: int, axis: MeshAxis, must_divide: bool) -> UsageError:
    """Return the error for a number of ranks that breaks a rule, with the legal numbers; see `legal_counts`."""
    legal = legal_counts(total, axis.ranks, must_divide)
    return CountError(rule, axis, legal) if legal.counts else UncuttableError(rule)


def chunk(total: int, ranks: int) -> Shards:
    """Return the sizes of chunks as torch.chunk and DTensor cut them: ⌈total/ranks⌉ each, and less at the end."""
    size = -(-total // ranks)
    return tuple([max(0, min(size, total - rank * size)) for rank in range(ranks)])


def leaves_a_rank_empty(total: int, ranks: int) -> bool:
    """Return whether the last chunk is empty."""
    return (ranks - 1) * -(-total // ranks) >= total


def legal_counts(total: int, ranks: int, must_divide: bool) -> LegalCounts:
    """Return the numbers of ranks that are legal for an axis: all, or the nearest if there are many.

    Args:
        total: the size of the axis.
        ranks: the number that is not legal.
        must_divide: the number must divide the size; otherwise it must leave no rank empty.
    """
    if must_divide:
        found = [count for count in range(2, min(total, LARGEST_MESH) + 1) if total % count == 0]
    else:
        low, high = max(2, ranks // 2), min(total, 2 * ranks)
        near = range(2, total + 1) if total <= 64 else range(low, high + 1)
        found = [count for count in near if not leaves_a_rank_empty(total, count)]
    if not found and total >= 2:
        found = [total]
    if len(found) > MOST_COUNTS or (total > 64 and not must_divide):
        below = [count for count in found if count < ranks][-1:]
        above = [count for count in found if count > ranks][:1]
        return LegalCounts((*below, *above), are_all=False)
    return LegalCounts(tuple(found))
