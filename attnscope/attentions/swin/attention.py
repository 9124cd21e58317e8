"""Swin's attention as a module (Liu et al., arXiv 2103.14030, section 3.2); parameter names are timm's."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnscope.attentions.attention import SelfAttention
from attnscope.attentions.heads import Headed
from attnscope.attentions.kernels import fused_attention
from attnscope.attentions.swin import steps
from attnscope.attentions.swin.spec import SwinSpec
from attnscope.core.sizes import Pair, pair
from attnscope.core.windows import Windows


class WindowAttention(SelfAttention):
    """Multi-head self-attention in windows: (b, height, width, c) -> (b, height, width, c), for any height and width.

    The roll, the mask, the partition and its inverse are inside. A grid that is no multiple of the window is padded at the
    bottom and on the right before it rolls (as torchvision does; timm 1.0 rolls first, and rows leak across the border),
    and the padding takes part in the softmax, as in every published Swin.

    Args:
        dim: channels of a token, c.
        heads: attention heads, h; dim is divisible by it.
        window: side of a window in tokens, or (height, width).
        shift: roll by this many tokens, or by (down, across); smaller than the window. An axis with a single window is not
            rolled.
        qkv_bias: give q, k and v a bias.
        qk_scale: multiplies q·kᵀ; 1/√d unless given, with d = dim / heads.
        attn_drop: dropout of the attention weights, in training.
        proj_drop: dropout of the output, in training.
        kernel: "eager" computes every step on its own, any other of KERNELS the middle ones at once.
        kv_heads: heads of keys and values, g; heads is divisible by it. As many as heads unless given.

    Raises:
        UsageError: a value is out of range, dim is not divisible by heads, heads not by kv_heads, or the shift is not
            smaller than the window.
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
        assert isinstance(spec, SwinSpec)
        self.window = spec.window
        self.shift_size = spec.windows.shift
        p, q = self.window
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * p - 1) * (2 * q - 1), spec.heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", relative_position_index(self.window), persistent=False)
        self.register_buffer("shift_mask", None, persistent=False)
        self.masked_grid: Windows | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """The letters that the module itself sets."""
        p, q = self.window
        return {"p": p, "q": q, "n": p * q, "m": p * q, "t": 2 * p - 1, "u": 2 * q - 1} | super().sizes

    def forward(self, x: Tensor) -> Tensor:
        grid = Windows(x.shape[1], x.shape[2], self.window, self.shift_size)
        q, k, v = self.queries_keys_values(self.into_windows(x, grid))
        x = self.output(self.merge_heads(self.window_attention(q, k, v, grid)))
        x = self.reverse(x, grid)
        if grid.is_shifted:
            x = self.unshift(x, grid)
        if grid.is_padded:
            x = self.crop(x, grid)
        return x

    def into_windows(self, x: Tensor, grid: Windows) -> Tensor:
        if grid.is_padded:
            x = self.pad(x, grid)
        if grid.is_shifted:
            x = self.shift(x, grid)
        return self.partition(x)

    def window_attention(self, q: Tensor, k: Tensor, v: Tensor, grid: Windows) -> Tensor:
        """What each head finds in each window: softmax(q·kᵀ·scale + B + mask)·v."""
        if self.kernel != "eager":
            return self.attend(q, k, v, grid)
        attn = self.score(q, k)
        attn = self.add_bias(attn)
        if grid.is_shifted:
            attn = self.add_mask(attn, self.mask(grid, attn))
        attn = self.softmax(attn)
        return self.mix(attn, v)

    # Where letters change places the tensor is copied here, also where torch would put the copy off to the next step: the
    # step that moves the data has the time and the memory of it.

    @steps.pad
    def pad(self, x: Tensor, grid: Windows) -> Tensor:
        rows, columns = grid.padding
        return F.pad(x, (0, 0, 0, columns, 0, rows))

    @steps.shift
    def shift(self, x: Tensor, grid: Windows) -> Tensor:
        return roll(x, -1, grid)

    @steps.partition
    def partition(self, x: Tensor) -> Tensor:
        return window_partition(x, self.window).flatten(1, 2).contiguous()

    @steps.add_bias
    def add_bias(self, scores: Tensor) -> Tensor:
        return scores + self.position_bias()

    @steps.add_mask
    def add_mask(self, scores: Tensor, mask: Tensor) -> Tensor:
        return (scores.unflatten(0, (-1, len(mask))) + mask[:, None]).flatten(0, 1)

    @steps.attend
    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Windows) -> Tensor:  # type: ignore[override]
        return self.attend_with(self.fused_bias(self.position_bias(), q, grid), q, k, v, self.scale)

    def attend_with(self, bias: Tensor, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Attend in one kernel with a bias of (1, h, n, m) or (b·r·s, h, n, m)."""
        drop = self.attn_drop.p if self.training else 0.0
        return fused_attention(self.kernel, q, k, v, bias, drop, scale)

    def fused_bias(self, bias: Tensor, q: Tensor, grid: Windows) -> Tensor:
        """Return what a fused kernel adds to the scores: B, (1, h, n, m), or B + mask for each image, (b·r·s, h, n, m)."""
        if not grid.is_shifted:
            return bias[None]
        mask = self.mask(grid, q)[:, None]
        return (bias + mask).repeat(len(q) // len(mask), 1, 1, 1)

    @steps.reverse
    def reverse(self, windows: Tensor, grid: Windows) -> Tensor:
        return window_reverse(windows, self.window, *grid.padded).contiguous()

    @steps.unshift
    def unshift(self, x: Tensor, grid: Windows) -> Tensor:
        return roll(x, 1, grid)

    @steps.crop
    def crop(self, x: Tensor, grid: Windows) -> Tensor:
        rows, columns = grid.padding
        return F.pad(x, (0, 0, 0, -columns, 0, -rows))

    def position_bias(self) -> Tensor:
        """B: the bias of each head for each pair of a window's tokens, (h, n, m)."""
        return self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1).contiguous()

    def mask(self, grid: Windows, like: Tensor) -> Tensor:
        """Return the mask of a shifted grid, (r·s, n, m); it is made once and kept for the next call."""
        if torch.compiler.is_compiling():
            return shift_mask(grid, like)
        kept = self.shift_mask
        if kept is None or (self.masked_grid, kept.dtype, kept.device) != (grid, like.dtype, like.device):
            return self.keep_mask(grid, like)
        return kept

    def keep_mask(self, grid: Windows, like: Tensor) -> Tensor:
        """Make and keep the mask of a shifted grid, with the dtype and the device of another tensor."""
        mask = self.shift_mask = shift_mask(grid, like)
        self.masked_grid = grid
        return mask

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Published checkpoints keep the index among the parameters; it follows from the window.
        state_dict.pop(prefix + "relative_position_index", None)
        super()._load_from_state_dict(state_dict, prefix, *args)


def roll(x: Tensor, sign: int, grid: Windows) -> Tensor:
    """Roll (b, height, width, c) by the grid's shift, up and to the left for −1; an axis without a shift costs no pass."""
    axes = [(sign * tokens, axis) for axis, tokens in enumerate(grid.roll, start=1) if tokens]
    return x.roll(*zip(*axes, strict=True))


def window_partition(x: Tensor, window: int | Pair) -> Tensor:
    """Cut (b, height, width, c) into windows of (p, q): (b·r·s, p, q, c), the batch as the slow index.

    Raises:
        ValueError: a side is no multiple of the window's.
    """
    p, q = pair(window)
    b, height, width, c = x.shape
    if height % p or width % q:
        raise ValueError(f"a grid of {height}×{width} tokens does not fall into windows of {p}×{q}; pad it first")
    x = x.reshape(b, height // p, p, width // q, q, c)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, p, q, c)


def window_reverse(windows: Tensor, window: int | Pair, height: int, width: int) -> Tensor:
    """Put windows, (b·r·s, p, q, c) or (b·r·s, p·q, c), back into a grid: (b, height, width, c).

    The exact inverse of `window_partition`: the axes go back to their order before the last reshape.

    Raises:
        ValueError: a side is no multiple of the window's.
    """
    p, q = pair(window)
    if height % p or width % q:
        raise ValueError(f"windows of {p}×{q} do not fill a grid of {height}×{width} tokens")
    x = windows.reshape(-1, height // p, width // q, p, q, windows.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, x.shape[-1])


def relative_position_index(window: Pair) -> Tensor:
    """The row of the bias table for each pair of a window's tokens: (n, m), whole numbers.

    (dy + p − 1)(2q − 1) + (dx + q − 1), where (dy, dx) is the query's place minus the key's.
    """
    p, q = window
    y, x = torch.meshgrid(torch.arange(p), torch.arange(q), indexing="ij")
    y, x = y.flatten(), x.flatten()
    dy, dx = y[:, None] - y[None, :], x[:, None] - x[None, :]
    return (dy + p - 1) * (2 * q - 1) + dx + q - 1


def shift_mask(grid: Windows, like: Tensor) -> Tensor:
    """0 where two tokens of a rolled window were in one window before the roll, −inf elsewhere: (r·s, n, m).

    Not −100, as is often seen: exp(−100) is a subnormal number, which slows a CPU several times, and no row is ever masked
    as a whole. Dtype and device are those of `like`.
    """
    down, across = (
        (torch.arange(side, device=like.device) + roll) % side >= roll
        for side, roll in zip(grid.padded, grid.roll, strict=True)
    )
    groups = (2 * down[:, None] + across[None, :].long())[None, :, :, None]
    groups = window_partition(groups, grid.window).flatten(1)
    apart = groups[:, :, None] != groups[:, None, :]
    return torch.zeros(apart.shape, dtype=like.dtype, device=like.device).masked_fill_(apart, float("-inf"))


def build(spec: SwinSpec) -> WindowAttention:
    """Return the module that a Spec describes, with the mask of the Spec's grid."""
    return with_mask(WindowAttention.of(spec), spec)


def with_mask(module: WindowAttention, spec: SwinSpec) -> WindowAttention:
    """Make the mask of the Spec's grid before the first forward."""
    if spec.windows.is_shifted:
        module.keep_mask(spec.windows, module.proj.weight)
    return module
