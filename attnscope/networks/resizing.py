"""Resizing of position biases and position embeddings, for a checkpoint of another window or image; equal to timm's."""

import torch
from torch import Tensor
from torch.nn import functional as F

from attnscope.core.errors import UsageError
from attnscope.core.sizes import Pair
from attnscope.core.windows import spread


def resize_bias_table(table: Tensor, window: Pair, new_window: Pair) -> Tensor:
    """Resize a relative position bias table of Swin: ((2p − 1)(2q − 1), h) of one window to that of another.

    The old offsets are spread geometrically from the center, and the values at the new offsets are interpolated linearly,
    as in BEiT (Bao et al., arXiv 2106.08254) and timm. Swin V2 needs no resizing, since an MLP computes its table.

    Args:
        table: the table, with a row for each offset and a column for each head.
        window, new_window: window sizes in tokens, (down, across).

    Raises:
        UsageError: the table does not have the rows of the window.

    Example:
        >>> import attnscope, torch
        >>> attnscope.resize_bias_table(torch.zeros(13 * 13, 3), (7, 7), (12, 12)).shape
        torch.Size([529, 3])
    """
    old, new = ([2 * side - 1 for side in sides] for sides in (window, new_window))
    if table.dim() != 2 or table.shape[0] != old[0] * old[1]:
        raise UsageError(
            f"a table for a window of {window[0]}×{window[1]} must have {old[0] * old[1]} rows "
            f"(got the shape {tuple(table.shape)}); give the window of the checkpoint"
        )
    if old == new:
        return table
    values = table.float().unflatten(0, (old[0], old[1]))
    places = [_interpolation(of, to, table.device) for of, to in zip(old, new, strict=True)]
    (rows, row_weights), (columns, column_weights) = places
    summed = torch.zeros(new[0], new[1], table.shape[1], device=table.device)
    for row, row_weight in zip(rows, row_weights, strict=True):
        for column, column_weight in zip(columns, column_weights, strict=True):
            weight = row_weight[:, None, None] * column_weight[None, :, None]
            summed += values[row[:, None], column[None, :]] * weight
    whole = sum(row_weights)[:, None, None] * sum(column_weights)[None, :, None]  # type: ignore[index]
    return (summed / whole).flatten(0, 1).to(table.dtype)


def resize_positions(positions: Tensor, grid: Pair, new_grid: Pair, prefix: int = 1) -> Tensor:
    """Resize position embeddings of ViT, (1, n, c), to another grid of patches with bicubic interpolation, as timm does.

    Args:
        positions: an embedding for each token before the patches, then one for each patch.
        grid, new_grid: number of patches down and across.
        prefix: number of tokens before the patches, whose embeddings do not change.

    Raises:
        UsageError: the number of embeddings is not that of the tokens.

    Example:
        >>> import attnscope, torch
        >>> attnscope.resize_positions(torch.zeros(1, 1 + 14 * 14, 768), (14, 14), (24, 24), prefix=1).shape
        torch.Size([1, 577, 768])
    """
    tokens = prefix + grid[0] * grid[1]
    if positions.dim() != 3 or positions.shape[1] != tokens:
        raise UsageError(
            f"position embeddings of {grid[0]}×{grid[1]} patches after {prefix} tokens must have the shape "
            f"(1, {tokens}, c) (got {tuple(positions.shape)}); give the grid of the checkpoint"
        )
    if grid == new_grid:
        return positions
    first, patches = positions.split((prefix, tokens - prefix), dim=1)
    planes = patches.unflatten(1, grid).permute(0, 3, 1, 2).float()
    planes = F.interpolate(planes, new_grid, mode="bicubic", antialias=True).to(positions.dtype)
    return torch.cat((first, planes.flatten(2).transpose(1, 2)), dim=1)


def _interpolation(old: int, new: int, device: torch.device) -> tuple[list[Tensor], list[Tensor]]:
    """Return the two neighbours of each new offset among the old ones, and their weights, which do not sum to 1."""
    places = torch.tensor(spread(old, new), device=device)
    offsets = torch.arange(-(new // 2.0), new // 2.0 + 0.1, 1.0, device=device)
    right = torch.bucketize(offsets, places).clamp(max=old - 1)
    left = (right - 1).clamp(min=0)
    from_left, from_right = (offsets - places[left]).clamp(min=0), (places[right] - offsets).clamp(min=0)
    on_both = (from_left == 0) & (from_right == 0)
    from_left[on_both] = from_right[on_both] = 1.0
    return [left, right], [from_right, from_left]
