"""The stages of a hierarchical network, as attention sees them: width, heads, grid, window."""

from dataclasses import dataclass
from typing import Any

from attnscope.core.errors import UsageError
from attnscope.core.sizes import Pair
from attnscope.networks import configs


@dataclass(frozen=True)
class Stage:
    """One stage: channels of a token, heads, the sides of the grid in tokens, and those of a window."""

    dim: int
    heads: int
    resolution: Pair
    window: Pair


def halving(stages: int, dim: int, heads: int, resolution: Pair, window: Pair) -> tuple[Stage, ...]:
    """Stages of which each has half the sides (rounded up), twice the channels and twice the heads of the one before.

    So it is in Swin (Liu et al., arXiv 2103.14030, 3.1). A window that is larger than the grid is clipped to it.
    """
    height, width = resolution
    grids = [(-(-height // 2**index), -(-width // 2**index)) for index in range(stages)]
    return tuple(Stage(dim << index, heads << index, grid, clipped(window, grid)) for index, grid in enumerate(grids))


def clipped(window: Pair, grid: Pair) -> Pair:
    """The window, no larger than the grid."""
    return min(window[0], grid[0]), min(window[1], grid[1])


SWIN_T = halving(4, dim=96, heads=3, resolution=(56, 56), window=(7, 7))
"""Swin-T at 224 pixels (Liu et al., arXiv 2103.14030, table 7)."""


def read_stages(preset: str | None = None) -> tuple[Stage, ...]:
    """The stages of a preset's network, or of Swin-T without one.

    A network has stages where a table of its preset says `depths`; beside it stand dim and heads of the first stage, the
    image and the patch in pixels, and the window.

    Raises:
        UsageError: there is no such preset, or its network has no stages.
    """
    if preset is None:
        return SWIN_T
    path = configs.preset_path(preset, lambda tables: _with_depths(tables) is not None)
    table = _with_depths(configs.read_tables(path))
    if table is None:
        raise UsageError(f"{{preset}} {preset} has no stages: no depths stand in it; leave it out for those of Swin-T")
    try:
        image, patch, window = (_pair(table.get(key, default)) for key, default in _SWIN_T_SIDES.items())
        grid = image[0] // patch[0], image[1] // patch[1]
        return halving(len(table["depths"]), table.get("dim", 96), table.get("heads", 3), grid, window)
    except (TypeError, ValueError, ZeroDivisionError):
        raise UsageError(f"{{preset}} {preset} says of its stages what cannot be read") from None


def _with_depths(tables: configs.Tables) -> dict[str, Any] | None:
    return next((table for table in tables.values() if "depths" in table), None)


_SWIN_T_SIDES = {"image": 224, "patch": 4, "window": 7}


def _pair(sides: int | list[int]) -> Pair:
    height, width = sides if isinstance(sides, list) else (sides, sides)
    return int(height), int(width)
