"""Stages of a hierarchical network: embedding dimension, heads, grid and window of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attnscope.core.sizes import Pair, pair


@dataclass(frozen=True)
class Stage:
    """A stage: its index from 0, embedding dimension, number of heads, grid, window and number of blocks."""

    index: int
    dim: int
    heads: int
    grid: Pair
    window: Pair
    depth: int

    def fields(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of an attention in this stage, updated with `given`; clip the window to the grid."""
        window = clipped(pair(given.get("window", self.window)), self.grid)
        return {"dim": self.dim, "heads": self.heads, **given, "window": window}


def halving(depths: Sequence[int], dim: int, heads: int, grid: Pair, window: Pair) -> tuple[Stage, ...]:
    """Return stages that each halve the grid and double the embedding dimension and the heads of the previous one.

    Swin is built this way (Liu et al., arXiv 2103.14030, 3.1). A grid with an odd side is padded by one before merging.
    A window larger than the grid is clipped to the grid.
    """
    stages = []
    for index, depth in enumerate(depths):
        sides = -(-grid[0] // 2**index), -(-grid[1] // 2**index)
        stages.append(Stage(index, dim << index, heads << index, sides, clipped(window, sides), depth))
    return tuple(stages)


def clipped(window: Pair, grid: Pair) -> Pair:
    """Return the window, clipped to the grid."""
    return min(window[0], grid[0]), min(window[1], grid[1])
