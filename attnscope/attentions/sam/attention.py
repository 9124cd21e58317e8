"""Attention with decomposed relative positions as a module (Li et al., arXiv 2203.16527); parameter names are timm's."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnscope.attentions.attention import SelfAttention
from attnscope.attentions.heads import Headed
from attnscope.attentions.kernels import fused_attention
from attnscope.attentions.sam import steps
from attnscope.attentions.sam.spec import SAMSpec
from attnscope.attentions.swin.attention import window_partition, window_reverse
from attnscope.attentions.swin.steps import WINDOWS
from attnscope.core.sizes import Pair, pair
from attnscope.core.windows import Windows


class RelativePositionAttention(SelfAttention):
    """Attention in windows, or global, with decomposed positions: (b, height, width, c) -> (b, height, width, c).

    If the window does not divide the grid, the grid is padded at the bottom and on the right, as in SAM. Global
    attention has one size of grid, which the tables of positions determine.

    Args:
        dim: embedding dimension, c.
        heads: number of attention heads, h; must divide dim.
        resolution: grid of tokens, one number or (height, width).
        window: window size in tokens, one number or (height, width); 0 is global attention.
        qkv_bias: whether to add a bias to q, k and v.
        qk_scale: factor of q·kᵀ; default 1/√d with d = dim / heads.
        attn_drop: dropout probability of the attention weights in training.
        proj_drop: dropout probability of the output in training.
        kernel: "eager" runs each step separately; the others of KERNELS compute score to mix in one call.

    Raises:
        UsageError: if a value is out of range. dim must be divisible by heads.
    """

    spelling: ClassVar[dict[str, str]] = WINDOWS
    rel_pos_h: nn.Parameter
    rel_pos_w: nn.Parameter
    row_index: Tensor
    column_index: Tensor

    def __init__(
        self,
        dim: int,
        heads: int,
        resolution: int | Pair,
        window: int | Pair = 14,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        kernel: str = "eager",
    ) -> None:
        self.set_up(
            SAMSpec(
                dim=dim,
                heads=heads,
                resolution=pair(resolution),
                window=pair(window),
                qkv_bias=qkv_bias,
                qk_scale=qk_scale,
                attn_drop=attn_drop,
                proj_drop=proj_drop,
                kernel=kernel,
            )
        )

    def set_up(self, spec: Headed) -> None:
        super().set_up(spec)
        assert isinstance(spec, SAMSpec)
        self.is_global, self.window = spec.is_global, spec.windows.window
        for side, table, index in zip(
            self.window, ("rel_pos_h", "rel_pos_w"), ("row_index", "column_index"), strict=True
        ):
            setattr(self, table, nn.Parameter(torch.zeros(2 * side - 1, spec.dim // spec.heads)))
            places = torch.arange(side)
            self.register_buffer(index, places[:, None] - places[None, :] + side - 1, persistent=False)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        p, q = self.window
        own = {"p": p, "q": q, "n": p * q, "m": p * q, "i": p, "j": q, "t": 2 * p - 1, "u": 2 * q - 1}
        return super().sizes | own

    def arguments(self) -> dict[str, object]:
        """Return the arguments of the module that its repr shows, by name."""
        return {**super().arguments(), "global" if self.is_global else "window": self.window}

    def forward(self, x: Tensor) -> Tensor:
        height, width = self.window if self.is_global else (None, None)
        self.check_shape(x, {"b": None, "height": height, "width": width, "c": self.proj.in_features})
        grid = self.grid_of(x)
        q, k, v = self.queries_keys_values(self.into_windows(x, grid))
        x = self.output(self.merge_heads(self.attention(q, k, v)))
        x = self.unflatten(x, grid) if self.is_global else self.reverse(x, grid)
        if grid.is_padded:
            x = self.crop(x, grid)
        return x

    def grid_of(self, x: Tensor) -> Windows:
        """Return the geometry of the windows of an input."""
        return Windows(x.shape[1], x.shape[2], self.window)

    def into_windows(self, x: Tensor, grid: Windows) -> Tensor:
        if self.is_global:
            return self.flatten(x)
        if grid.is_padded:
            x = self.pad(x, grid)
        return self.partition(x)

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the output of each head: softmax(q·kᵀ·scale + B_h + B_w)·v."""
        if self.kernel != "eager":
            return self.attend(q, k, v, self.row_bias(q), self.column_bias(q))
        attn = self.score(q, k)
        attn = self.add_bias(attn, self.row_bias(q), self.column_bias(q))
        attn = self.softmax(attn)
        return self.mix(attn, v)

    @steps.flatten
    def flatten(self, x: Tensor) -> Tensor:
        return x.flatten(1, 2)

    @steps.pad
    def pad(self, x: Tensor, grid: Windows) -> Tensor:
        rows, columns = grid.padding
        return F.pad(x, (0, 0, 0, columns, 0, rows))

    @steps.partition
    def partition(self, x: Tensor) -> Tensor:
        return window_partition(x, self.window).flatten(1, 2).contiguous()

    @steps.row_bias
    def row_bias(self, q: Tensor) -> Tensor:
        return q.unflatten(2, self.window) @ self.rel_pos_h[self.row_index].transpose(-2, -1)

    @steps.column_bias
    def column_bias(self, q: Tensor) -> Tensor:
        vectors = self.rel_pos_w[self.column_index].transpose(-2, -1)
        return (q.unflatten(2, self.window).transpose(2, 3) @ vectors).transpose(2, 3)

    @steps.add_bias
    def add_bias(self, scores: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        return scores + outer_sum(rows, columns)

    @steps.attend
    def attend(self, q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:  # type: ignore[override]
        drop = self.attn_drop.p if self.training else 0.0
        return fused_attention(self.kernel, q, k, v, outer_sum(rows, columns), drop, self.scale)

    @steps.reverse
    def reverse(self, windows: Tensor, grid: Windows) -> Tensor:
        return window_reverse(windows, self.window, *grid.padded).contiguous()

    @steps.unflatten
    def unflatten(self, y: Tensor, grid: Windows) -> Tensor:
        return y.unflatten(1, grid.window)

    @steps.crop
    def crop(self, x: Tensor, grid: Windows) -> Tensor:
        rows, columns = grid.padding
        return F.pad(x, (0, 0, 0, -columns, 0, -rows))


def outer_sum(rows: Tensor, columns: Tensor) -> Tensor:
    """Return the bias of each key, the sum of two: (b, h, p, q, i) of its row and (b, h, p, q, j) of its column."""
    return (rows[..., None] + columns[..., None, :]).flatten(4).flatten(2, 3)


def build(spec: SAMSpec) -> RelativePositionAttention:
    """Build the module that a Spec describes."""
    return RelativePositionAttention.of(spec)
