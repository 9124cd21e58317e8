"""The stages of a hierarchical network: width, heads, grid and window of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attnscope.core.sizes import Pair, pair


@dataclass(frozen=True)
class Stage:
    """One stage: its place from 0, the width of its tokens, their heads, its grid, its windows, how many blocks it has."""

    index: int
    dim: int
    heads: int
    grid: Pair
    window: Pair
    depth: int

    def fields(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of an attention in this stage, and those that are given; a given window is clipped, too."""
        window = clipped(pair(given.get("window", self.window)), self.grid)
        return {"dim": self.dim, "heads": self.heads, **given, "window": window}


def halving(depths: Sequence[int], dim: int, heads: int, grid: Pair, window: Pair) -> tuple[Stage, ...]:
    """Return stages of which each has half the sides, twice the channels and twice the heads of the one before.

    So it is in Swin (Liu et al., arXiv 2103.14030, 3.1). A grid with an odd side is padded by one before it merges, and a
    window that is larger than the grid is clipped to it.
    """
    stages = []
    for index, depth in enumerate(depths):
        sides = -(-grid[0] // 2**index), -(-grid[1] // 2**index)
        stages.append(Stage(index, dim << index, heads << index, sides, clipped(window, sides), depth))
    return tuple(stages)


def clipped(window: Pair, grid: Pair) -> Pair:
    """The window, no larger than the grid."""
    return min(window[0], grid[0]), min(window[1], grid[1])
