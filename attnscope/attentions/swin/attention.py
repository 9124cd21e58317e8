"""Swin's attention as a module (Liu et al., arXiv 2103.14030, section 3.2); parameter names are timm's."""

from collections.abc import Sequence
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnscope.attentions.attention import SelfAttention
from attnscope.attentions.heads import Headed
from attnscope.attentions.kernels import fused_attention
from attnscope.attentions.swin import steps
from attnscope.attentions.swin.spec import SwinSpec
from attnscope.attentions.windowed import Windowed
from attnscope.core.sizes import Pair, Sides, pair
from attnscope.core.windows import GridWindows, Windows

UNKNOWN_SIDES = torch.__version__ >= "2.8"  # a TorchVersion, which compares as a version
"""A flag: code that torch compiles can ask what is known about a size. Before, torch compiles for padded grids
and for grids without padding separately."""


class WindowAttention(SelfAttention):
    """Multi-head self-attention in windows: (b, height, width, c) -> (b, height, width, c), for any height and width.

    The module includes the cyclic shift, the mask, the window partition and their inverses. If the window does not
    divide the grid, the grid is padded at the bottom and on the right before the shift, as in torchvision. timm 1.0
    shifts before it pads, which leaks rows across the border. The padding takes part in the softmax, as in every
    published Swin.

    Args:
        dim: embedding dimension, c.
        heads: number of attention heads, h; must divide dim.
        window: window size in tokens, one number or (height, width).
        shift: shift in tokens, one number or (down, across); must be smaller than the window. An axis with a single
            window is not shifted.
        qkv_bias: whether to add a bias to q, k and v.
        qk_scale: factor of q·kᵀ; default 1/√d with d = dim / heads.
        attn_drop: dropout probability of the attention weights in training.
        proj_drop: dropout probability of the output in training.
        kernel: "eager" runs each step separately; the others of KERNELS compute score to mix in one call.
        kv_heads: number of key/value heads, g; must divide heads. Default heads.

    Raises:
        UsageError: if a value is out of range or contradicts another one. dim must be divisible by heads, and heads by
            kv_heads. The shift must be smaller than the window.
    """

    spelling: ClassVar[dict[str, str]] = steps.WINDOWS
    relative_position_index: Tensor
    shift_mask: Tensor | None

    def __init__(
        self,
        dim: int,
        heads: int,
        window: int | Pair = 7,
        shift: int | Pair = 0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        kernel: str = "eager",
        kv_heads: int | None = None,
    ) -> None:
        self.set_up(
            SwinSpec(
                dim=dim,
                heads=heads,
                kv_heads=kv_heads,
                window=pair(window),
                shift_size=pair(shift),
                qkv_bias=qkv_bias,
                qk_scale=qk_scale,
                attn_drop=attn_drop,
                proj_drop=proj_drop,
                kernel=kernel,
            )
        )

    def set_up(self, spec: Headed) -> None:
        super().set_up(spec)
        assert isinstance(spec, Windowed)
        self.window = spec.window
        self.shift_size = spec.windows.shift
        rows = prod(2 * p - 1 for p in self.window)
        self.relative_position_bias_table = nn.Parameter(torch.empty(rows, spec.heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", relative_position_index(self.window), persistent=False)
        self.register_buffer("shift_mask", None, persistent=False)
        self.masked_grid: GridWindows | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        p, q = self.window
        return {"p": p, "q": q, "n": p * q, "m": p * q, "t": 2 * p - 1, "u": 2 * q - 1} | super().sizes

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the module that its repr shows, by name."""
        return {**super().arguments(), "window": self.window, "shift": self.shift_size}

    def forward(self, x: Tensor) -> Tensor:
        grid = self.grid_of(x)
        q, k, v = self.queries_keys_values(self.into_windows(x, grid))
        x = self.output(self.merge_heads(self.window_attention(q, k, v, grid)))
        x = self.reverse(x, grid)
        if grid.is_shifted:
            x = self.unshift(x, grid)
        if may_be_padded(grid):
            x = self.crop(x, grid)
        return x

    def grid_of(self, x: Tensor) -> GridWindows:
        """Return the geometry of the windows of an input, whose shape it checks."""
        self.check_input(x, ("b", "height", "width"))
        (p, q), (down, across) = self.window, self.shift_size
        return Windows(x.shape[1], x.shape[2], (p, q), (down, across))

    def into_windows(self, x: Tensor, grid: GridWindows) -> Tensor:
        if may_be_padded(grid):
            x = self.pad(x, grid)
        if grid.is_shifted:
            x = self.shift(x, grid)
        return self.partition(x, grid)

    def window_attention(self, q: Tensor, k: Tensor, v: Tensor, grid: GridWindows) -> Tensor:
        """Return the output of each head in each window: softmax(q·kᵀ·scale + B + mask)·v."""
        if self.kernel != "eager":
            return self.attend(q, k, v, grid)
        attn = self.score(q, k)
        attn = self.add_bias(attn)
        if grid.is_shifted:
            attn = self.add_mask(attn, self.mask(grid, attn))
        attn = self.softmax(attn)
        return self.mix(attn, v)

    # A step that permutes axes copies the tensor with `contiguous`, even if torch could defer the copy to a later step.
    # The time and the memory of the copy then belong to the step that moves the data.

    @steps.pad
    def pad(self, x: Tensor, grid: GridWindows) -> Tensor:
        return pad_ends(x, grid.padding)

    @steps.shift
    def shift(self, x: Tensor, grid: GridWindows) -> Tensor:
        return roll(x, -1, grid)

    @steps.partition
    def partition(self, x: Tensor, grid: GridWindows) -> Tensor:
        return partition(x, grid.window).flatten(1, -2).contiguous()

    @steps.add_bias
    def add_bias(self, scores: Tensor) -> Tensor:
        return scores + self.position_bias(scores.shape[-1])

    @steps.add_mask
    def add_mask(self, scores: Tensor, mask: Tensor) -> Tensor:
        return (scores.unflatten(0, (-1, mask.shape[0])) + mask[:, None]).flatten(0, 1)

    @steps.attend
    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: GridWindows) -> Tensor:  # type: ignore[override]
        return self.attend_with(self.fused_bias(self.position_bias(q.shape[-2]), q, grid), q, k, v, self.scale)

    def attend_with(self, bias: Tensor, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Compute attention in one kernel, with a bias of shape (1, h, n, m) or (b·r·s, h, n, m)."""
        drop = self.attn_drop.p if self.training else 0.0
        return fused_attention(self.kernel, q, k, v, bias, drop, scale)

    def fused_bias(self, bias: Tensor, q: Tensor, grid: GridWindows) -> Tensor:
        """Return the bias for a fused kernel: B, (1, h, n, m), or B + mask for a shifted grid, (b·r·s, h, n, m)."""
        if not grid.is_shifted:
            return bias[None]
        mask = self.mask(grid, q)[:, None]
        return (bias + mask).repeat(q.shape[0] // mask.shape[0], 1, 1, 1)

    @steps.reverse
    def reverse(self, windows: Tensor, grid: GridWindows) -> Tensor:
        return reverse(windows, grid.window, grid.padded).contiguous()

    @steps.unshift
    def unshift(self, x: Tensor, grid: GridWindows) -> Tensor:
        return roll(x, 1, grid)

    @steps.crop
    def crop(self, x: Tensor, grid: GridWindows) -> Tensor:
        return pad_ends(x, [-tokens for tokens in grid.padding])

    def position_bias(self, n: int) -> Tensor:
        """Return B, the bias of each head for each pair of the first n tokens of a window, (h, n, m)."""
        return self.relative_position_bias_table[self.relative_position_index[:n, :n]].permute(2, 0, 1).contiguous()

    def mask(self, grid: GridWindows, like: Tensor) -> Tensor:
        """Return the mask of a shifted grid, (r·s, n, m), and cache it for the next call."""
        if torch.compiler.is_compiling():
            return shift_mask(grid, like)
        kept = self.shift_mask
        if kept is None or (self.masked_grid, kept.dtype, kept.device) != (grid, like.dtype, like.device):
            return self.keep_mask(grid, like)
        return kept

    def keep_mask(self, grid: GridWindows, like: Tensor) -> Tensor:
        """Compute and cache the mask of a shifted grid, with the dtype and the device of `like`."""
        mask = self.shift_mask = shift_mask(grid, like)
        self.masked_grid = grid
        return mask

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Published checkpoints include the index, which the window determines.
        state_dict.pop(prefix + "relative_position_index", None)
        super()._load_from_state_dict(state_dict, prefix, *args)


def may_be_padded(grid: GridWindows) -> bool:
    """Return whether a grid is padded. One whose sides are unknown while torch compiles is, unless it never needs it.

    A compiled or an exported module then takes sides that need padding and sides that do not.
    """
    if not (torch.compiler.is_compiling() and UNKNOWN_SIDES):
        return grid.is_padded
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return not all([statically_known_true(tokens == 0) for tokens in grid.padding])


def pad_ends(x: Tensor, padding: Sequence[int]) -> Tensor:
    """Pad (b, height, width, c) with zeros at the end of each side by a number of tokens; crop it if that is negative."""
    return F.pad(x, (0, 0, *[number for tokens in reversed(padding) for number in (0, tokens)]))


def roll(x: Tensor, sign: int, grid: GridWindows) -> Tensor:
    """Roll (b, height, width, c) by the grid's shift: up and to the left if `sign` is −1; skip axes without a shift."""
    axes = [(sign * tokens, axis) for axis, tokens in enumerate(grid.roll, start=1) if tokens]
    return x.roll(*zip(*axes, strict=True))


def window_partition(x: Tensor, window: int | Pair) -> Tensor:
    """Partition (b, height, width, c) into windows of (p, q): (b·r·s, p, q, c), with the batch as the slowest index.

    Raises:
        ValueError: if x does not have four axes, or the window does not divide the grid.

    Example:
        >>> import attnscope, torch
        >>> attnscope.window_partition(torch.zeros(2, 14, 14, 96), 7).shape
        torch.Size([8, 7, 7, 96])
    """
    p, q = pair(window)
    if x.dim() != 4:
        raise ValueError(f"x must have the shape (b, height, width, c) (got {tuple(x.shape)}); reshape it")
    height, width = x.shape[1:3]
    if height % p or width % q:
        raise ValueError(f"the grid must be divisible by the window {p}×{q} (got {height}×{width}); pad it first")
    return partition(x, (p, q))


def partition(x: Tensor, window: Sides) -> Tensor:
    """Partition a grid with any number of axes, as `window_partition` a grid with two."""
    b, *sides, c = x.shape
    axes = len(window)
    x = x.reshape(b, *[size for side, p in zip(sides, window, strict=True) for size in (side // p, p)], c)
    return x.permute(0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2), -1).flatten(0, axes)


def window_reverse(windows: Tensor, window: int | Pair, height: int, width: int) -> Tensor:
    """Merge windows, (b·r·s, p, q, c) or (b·r·s, p·q, c), into a grid: (b, height, width, c).

    It is the exact inverse of `window_partition`.

    Raises:
        ValueError: if the window does not divide the grid, or the windows have another shape or number.

    Example:
        >>> import attnscope, torch
        >>> x = torch.randn(2, 14, 14, 96)
        >>> torch.equal(attnscope.window_reverse(attnscope.window_partition(x, 7), 7, 14, 14), x)
        True
    """
    p, q = pair(window)
    if height % p or width % q:
        raise ValueError(
            f"the grid must be divisible by the window {p}×{q} (got {height}×{width}); give the padded size"
        )
    count = height // p * (width // q)
    if tuple(windows.shape[1:-1]) not in ((p, q), (p * q,)) or (
        not torch.compiler.is_compiling() and len(windows) % count  # the number can be symbolic
    ):
        raise ValueError(
            f"the windows must have the shape (b·{count}, {p}, {q}, c) or (b·{count}, {p * q}, c) "
            f"(got {tuple(windows.shape)}); give the window and the padded size of window_partition"
        )
    return reverse(windows, (p, q), (height, width))


def reverse(windows: Tensor, window: Sides, sides: Sides) -> Tensor:
    """Merge windows into a grid with any number of axes, as `window_reverse` into a grid with two."""
    axes = len(window)
    counts = [side // p for side, p in zip(sides, window, strict=True)]
    x = windows.reshape(-1, *counts, *window, windows.shape[-1])
    # merging each axis alone would make torch.export check the number of windows along it, which is not known there
    order = [place for axis in range(1, axes + 1) for place in (axis, axis + axes)]
    return x.permute(0, *order, -1).flatten(1, 2 * axes).unflatten(1, sides)


def relative_position_index(window: Sides) -> Tensor:
    """Return the row of the bias table for each pair of tokens of a window, as integers, (n, m).

    The row for an image is `(dy + p − 1)(2q − 1) + (dx + q − 1)`, where (dy, dx) is the query's position minus the key's.
    A volume has the distance in time before them, in the same way.
    """
    row = torch.zeros((), dtype=torch.long)
    for p, places in zip(window, torch.meshgrid(*map(torch.arange, window), indexing="ij"), strict=True):
        place = places.flatten()
        row = row * (2 * p - 1) + (place[:, None] - place[None, :] + p - 1)
    return row


def shift_mask(grid: GridWindows, like: Tensor) -> Tensor:
    """Return the mask of a shifted grid: 0 for two tokens of a window from the same region of the grid, −inf otherwise.

    Its shape is (r·s, n, m); dtype and device are those of `like`. Many implementations use −100 instead of −inf, but
    exp(−100) is a subnormal number, which slows a CPU down several times. −inf is safe, since no row is fully masked.
    """
    groups = torch.zeros((), dtype=torch.long, device=like.device)
    for side, roll in zip(grid.padded, grid.roll, strict=True):
        along = torch.arange(side, device=like.device) < side - roll
        groups = 2 * groups[..., None] + along.long()
    groups = partition(groups[None, ..., None], grid.window).flatten(1)
    apart = groups[:, :, None] != groups[:, None, :]
    return torch.zeros(apart.shape, dtype=like.dtype, device=like.device).masked_fill_(apart, float("-inf"))


def build(spec: SwinSpec) -> WindowAttention:
    """Build the module that a Spec describes, with the mask of the Spec's grid."""
    return with_mask(WindowAttention.of(spec), spec)


def with_mask(module: WindowAttention, spec: Windowed) -> WindowAttention:
    """Compute the mask of the Spec's grid before the first forward, and return the module."""
    if spec.windows.is_shifted:
        module.keep_mask(spec.windows, module.proj.weight)
    return module
