"""MaxViT's attention as a module (Tu et al., arXiv 2204.01697, section 3.2); parameter names are timm's."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from attnscope.attentions.attention import Heads, SelfAttention
from attnscope.attentions.heads import Headed
from attnscope.attentions.kernels import fused_attention
from attnscope.attentions.maxvit import steps
from attnscope.attentions.maxvit.spec import MaxViTSpec
from attnscope.attentions.swin.attention import relative_position_index
from attnscope.attentions.swin.steps import WINDOWS
from attnscope.core.errors import UsageError
from attnscope.core.sizes import Pair, pair


class PositionBias(nn.Module):
    """Learned bias of each head for each pair of tokens of a block, by the offset between them."""

    index: Tensor

    def __init__(self, window: Pair, heads: int) -> None:
        super().__init__()
        p, q = window
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * p - 1) * (2 * q - 1), heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("index", relative_position_index(window), persistent=False)

    def forward(self) -> Tensor:
        """Return the bias, (h, n, m)."""
        return self.relative_position_bias_table[self.index].permute(2, 0, 1).contiguous()


class MaxViTAttention(SelfAttention):
    """Attention in blocks, or in a sparse grid: (b, height, width, c) -> (b, height, width, c).

    Args:
        dim: embedding dimension, c.
        heads: number of attention heads, h; must divide dim.
        partition: P, the side of a block, or the number of keys of the grid along an axis; one number or a pair.
        grid: attend to a sparse grid over the whole image instead of a block.
        qkv_bias: whether to add a bias to q, k and v.
        qk_scale: factor of q·kᵀ; default 1/√d with d = dim / heads.
        attn_drop: dropout probability of the attention weights in training.
        proj_drop: dropout probability of the output in training.
        kernel: "eager" runs each step separately; the others of KERNELS compute score to mix in one call.

    Raises:
        UsageError: if a value is out of range. dim must be divisible by heads, and height and width by partition.
    """

    spelling: ClassVar[dict[str, str]] = WINDOWS

    def __init__(
        self,
        dim: int,
        heads: int,
        partition: int | Pair = 7,
        grid: bool = False,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        kernel: str = "eager",
    ) -> None:
        self.set_up(
            MaxViTSpec(
                dim=dim,
                heads=heads,
                resolution=pair(partition),
                partition=pair(partition),
                grid=grid,
                qkv_bias=qkv_bias,
                qk_scale=qk_scale,
                attn_drop=attn_drop,
                proj_drop=proj_drop,
                kernel=kernel,
            )
        )

    def set_up(self, spec: Headed) -> None:
        super().set_up(spec)
        assert isinstance(spec, MaxViTSpec)
        self.window, self.grid = spec.partition, spec.grid
        self.rel_pos = PositionBias(spec.partition, spec.heads)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        p, q = self.window
        own = {"p": p, "q": q, "n": p * q, "m": p * q, "t": 2 * p - 1, "u": 2 * q - 1}
        return super().sizes | own | {"e": 3 * (self.proj.in_features // self.heads)}

    def arguments(self) -> dict[str, object]:
        """Return the arguments of the module that its repr shows, by name."""
        return {**super().arguments(), "partition": self.window, "grid": self.grid}

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x, ("b", "height", "width"))
        grid = self.blocks(x)
        q, k, v = self.queries_keys_values(self.partition_grid(x) if self.grid else self.partition(x))
        x = self.output(self.merge_heads(self.attention(q, k, v)))
        return self.reverse_grid(x, grid) if self.grid else self.reverse(x, grid)

    def blocks(self, x: Tensor) -> Pair:
        """Return the number of blocks down and across, r and s.

        Raises:
            UsageError: if the partition does not divide the grid.
        """
        (height, width), (p, q) = x.shape[1:3], self.window
        if height % p or width % q:
            raise UsageError(
                f"the grid must be divisible by the partition {p}×{q} (got {height}×{width}); pad it first"
            )
        return height // p, width // q

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the output of each head: softmax(q·kᵀ·scale + B)·v."""
        if self.kernel != "eager":
            return self.attend(q, k, v)
        attn = self.score(q, k)
        attn = self.add_bias(attn)
        attn = self.softmax(attn)
        return self.mix(attn, v)

    @steps.partition
    def partition(self, x: Tensor) -> Tensor:
        p, q = self.window
        blocks = x.unflatten(2, (-1, q)).unflatten(1, (-1, p)).permute(0, 1, 3, 2, 4, 5)
        return blocks.flatten(0, 2).flatten(1, 2).contiguous()

    @steps.partition_grid
    def partition_grid(self, x: Tensor) -> Tensor:
        p, q = self.window
        cells = x.unflatten(2, (q, -1)).unflatten(1, (p, -1)).permute(0, 2, 4, 1, 3, 5)
        return cells.flatten(0, 2).flatten(1, 2).contiguous()

    @steps.project
    def project(self, x: Tensor) -> Tensor:
        return self.qkv(x)

    @steps.split_heads
    def split_heads(self, qkv: Tensor) -> Heads:
        q, k, v = qkv.unflatten(-1, (self.heads, -1)).transpose(1, 2).chunk(3, dim=3)
        return q, k, v

    @steps.add_bias
    def add_bias(self, scores: Tensor) -> Tensor:
        return scores + self.rel_pos()

    @steps.attend
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        drop = self.attn_drop.p if self.training else 0.0
        return fused_attention(self.kernel, q, k, v, self.rel_pos()[None], drop, self.scale)

    @steps.reverse
    def reverse(self, windows: Tensor, grid: Pair) -> Tensor:
        x = windows.unflatten(0, (-1, *grid)).unflatten(3, self.window)
        return x.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(1, 2).contiguous()

    @steps.reverse_grid
    def reverse_grid(self, windows: Tensor, grid: Pair) -> Tensor:
        x = windows.unflatten(0, (-1, *grid)).unflatten(3, self.window)
        return x.permute(0, 3, 1, 4, 2, 5).flatten(3, 4).flatten(1, 2).contiguous()


def build(spec: MaxViTSpec) -> MaxViTAttention:
    """Build the module that a Spec describes."""
    return MaxViTAttention.of(spec)
