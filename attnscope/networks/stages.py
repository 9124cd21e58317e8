"""Stages of a hierarchical network: embedding dimension, heads, grid and window of each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attnscope.core.sizes import Pair, pair


@dataclass(frozen=True)
class Clip:
    """A rule for windows on a grid that is smaller than a window.

    Args:
        libraries: the libraries that follow it.
        cut: the window, and the shift of shifted blocks, for a given window and a grid.
    """

    libraries: str
    cut: Callable[[Pair, Pair], tuple[Pair, Pair]]


def _per_axis(window: Pair, grid: Pair) -> tuple[Pair, Pair]:
    """Clip each side of the window to the grid; an axis with a single window is not shifted."""
    return clipped(window, grid), _shift(clipped(window, grid), grid)


def _square(window: Pair, grid: Pair) -> tuple[Pair, Pair]:
    """Take a square window of the grid's shorter side, without shift, if that side is not longer than the window."""
    side = min(grid)
    return ((side, side), (0, 0)) if side <= min(window) else (window, _shift(window, grid))


def _none(window: Pair, grid: Pair) -> tuple[Pair, Pair]:
    """Keep the window and pad the grid to it; an axis with a single window is not shifted."""
    return window, _shift(window, grid)


def _shift(window: Pair, grid: Pair) -> Pair:
    down, across = (side // 2 if tokens > side else 0 for side, tokens in zip(window, grid, strict=True))
    return down, across


PER_AXIS = "per-axis"
CLIPS: Mapping[str, Clip] = {
    PER_AXIS: Clip("timm", _per_axis),
    "square": Clip("Microsoft's code and transformers", _square),
    "none": Clip("torchvision", _none),
}
"""The rules for windows on small grids, by the value of --clip."""


@dataclass(frozen=True)
class Stage:
    """A stage: its index from 0, embedding dimension, number of heads, grid, window and number of blocks.

    The window is (0, 0) in a network without windows. `shift` is the shift of every second block.
    """

    index: int
    dim: int
    heads: int
    grid: Pair
    window: Pair
    depth: int
    shift: Pair = (0, 0)

    def fields(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of an attention in this stage, updated with `given`; clip the window to the grid."""
        window = pair(given.get("window", self.window))
        own = {"window": clipped(window, self.grid)} if any(window) else {}
        return {"dim": self.dim, "heads": self.heads, **given, **own}


def halving(
    depths: Sequence[int], dim: int, heads: int, grid: Pair, window: Pair, clip: str = PER_AXIS
) -> tuple[Stage, ...]:
    """Return stages that each halve the grid and double the embedding dimension and the heads of the previous one.

    Swin is built this way (Liu et al., arXiv 2103.14030, 3.1). A grid with an odd side is padded by one before merging.
    The rule `clip`, one of CLIPS, gives the window and the shift on a small grid.
    """
    stages = []
    for index, depth in enumerate(depths):
        sides = -(-grid[0] // 2**index), -(-grid[1] // 2**index)
        window_here, shift = CLIPS[clip].cut(window, sides)
        stages.append(Stage(index, dim << index, heads << index, sides, window_here, depth, shift))
    return tuple(stages)


def clipped(window: Pair, grid: Pair) -> Pair:
    """Return the window, clipped to the grid."""
    return min(window[0], grid[0]), min(window[1], grid[1])
