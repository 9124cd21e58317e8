"""Halos: the places of a cut axis that each rank needs for a step that reads the places of other ranks."""

from collections.abc import Sequence

from attnscope.plan.mesh import Shards

Needs = tuple[tuple[range, ...], ...]
"""For each rank, the places of a cut letter that it needs, in order."""


def rolled(shards: Shards, unit: int, shift: int) -> Needs:
    """Return the places that each rank needs for a roll by `shift` places towards the start.

    Args:
        shards: the size of the cut letter on each rank.
        unit: places for each of its values.
        shift: the shift in places; negative towards the end.
    """
    total, start, needs = unit * sum(shards), 0, []
    for size in shards:
        first, stop = (start + shift) % total, (start + shift) % total + unit * size
        parts = (range(first, min(stop, total)), range(max(0, stop - total)))
        needs.append(tuple([part for part in parts if part]))
        start += unit * size
    return tuple(needs)


def gathered(shards: Shards, unit: int, reach: Sequence[range]) -> Needs:
    """Return the places that each rank needs for the keys of its queries, without gaps.

    Args:
        shards: the rows of each rank.
        unit: places in a row.
        reach: the rows that the queries of each row look at.
    """
    start, needs = 0, []
    for size in shards:
        rows = reach[start : start + size]
        first, last = min(min(each) for each in rows), max(max(each) for each in rows)
        needs.append((range(unit * first, unit * (last + 1)),))
        start += size
    return tuple(needs)


def overlaps(shards: Shards, unit: int, needs: Sequence[range], rank: int) -> list[range]:
    """Return the places that a rank holds of those that another one needs, in the order of the needs."""
    first = unit * sum(shards[:rank])
    stop = first + unit * shards[rank]
    found = [range(max(each.start, first), min(each.stop, stop)) for each in needs]
    return [each for each in found if each]
