"""Swin V2's attention as a module (Liu et al., arXiv 2111.09883, section 3); parameter names are timm's."""

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnscope.attentions.attention import Heads
from attnscope.attentions.heads import Headed
from attnscope.attentions.swin.attention import WindowAttention, with_mask
from attnscope.attentions.swinv2 import steps
from attnscope.attentions.swinv2.spec import HIDDEN, SwinV2Spec
from attnscope.core.sizes import Pair, Sides, pair
from attnscope.core.windows import GridWindows

SHARPEST = math.log(100.0)
"""Upper bound of the logit scale: no head multiplies its cosines by more than 100."""


class WindowAttentionV2(WindowAttention):
    """Cosine attention in windows: (b, height, width, c) -> (b, height, width, c), for any height and width.

    Args:
        dim: embedding dimension, c.
        heads: number of attention heads, h; must divide dim.
        window: window size in tokens, one number or (height, width).
        shift: shift in tokens, one number or (down, across).
        qkv_bias: whether to add a bias to q and v; k has no bias.
        pretrained_window: window size in pre-training, which scales the distances. Default window.
        attn_drop: dropout probability of the attention weights in training.
        proj_drop: dropout probability of the output in training.
        kernel: "eager" runs each step separately; the others of KERNELS compute score to mix in one call.
        kv_heads: number of key/value heads, g; must divide heads. Default heads.

    Raises:
        UsageError: if a value is out of range or contradicts another one. dim must be divisible by heads, and heads by
            kv_heads. The shift must be smaller than the window.
    """

    relative_coords_table: Tensor

    def __init__(
        self,
        dim: int,
        heads: int,
        window: int | Pair = 8,
        shift: int | Pair = 0,
        qkv_bias: bool = True,
        pretrained_window: int | Pair | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        kernel: str = "eager",
        kv_heads: int | None = None,
    ) -> None:
        self.set_up(
            SwinV2Spec(
                dim=dim,
                heads=heads,
                kv_heads=kv_heads,
                window=pair(window),
                shift_size=pair(shift),
                qkv_bias=qkv_bias,
                pretrained_window=None if pretrained_window is None else pair(pretrained_window),
                attn_drop=attn_drop,
                proj_drop=proj_drop,
                kernel=kernel,
            )
        )

    def set_up(self, spec: Headed) -> None:
        assert isinstance(spec, SwinV2Spec)
        super().set_up(spec)
        del self.relative_position_bias_table  # an MLP computes the table
        self.logit_scale = nn.Parameter(torch.full((spec.heads, 1, 1), math.log(10.0)))
        self.cpb_mlp = nn.Sequential(
            nn.Linear(2, HIDDEN), nn.ReLU(inplace=True), nn.Linear(HIDDEN, spec.heads, bias=False)
        )
        table = log_distances(self.window, spec.pretrained_window or self.window)
        self.register_buffer("relative_coords_table", table.to(torch.get_default_dtype()), persistent=False)

    def queries_keys_values(self, x: Tensor) -> Heads:
        if self.kv_heads == self.heads:
            x = self.project(x)
            q, k, v = self.split_heads(x)
            return *self.normalize(q, k), v
        x = self.project_grouped(x)
        q, k, v = self.split_grouped(x)
        q, k = self.normalize_grouped(q, k)
        return q, *self.share_heads(k, v)

    def window_attention(self, q: Tensor, k: Tensor, v: Tensor, grid: GridWindows) -> Tensor:
        """Return the output of each head in each window: softmax(cos(q, k)·τ + B + mask)·v."""
        if self.kernel != "eager":
            return self.attend(q, k, v, self.bias_mlp(self.relative_coords_table), grid)
        attn = self.score(q, k)
        attn = self.add_bias(attn, self.bias_mlp(self.relative_coords_table))
        if grid.is_shifted:
            attn = self.add_mask(attn, self.mask(grid, attn))
        attn = self.softmax(attn)
        return self.mix(attn, v)

    @steps.project
    def project(self, windows: Tensor) -> Tensor:
        return self.projected(windows)

    @steps.project_grouped
    def project_grouped(self, windows: Tensor) -> Tensor:
        return self.projected(windows)

    @steps.normalize_grouped
    def normalize_grouped(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return normalized(q, k)

    @steps.normalize
    def normalize(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return normalized(q, k)

    @steps.score
    def score(self, q: Tensor, k: Tensor) -> Tensor:
        sharpness = self.sharpness()
        return (q * sharpness) @ k.transpose(-2, -1)  # q has fewer elements than the scores

    @steps.bias_mlp
    def bias_mlp(self, coords: Tensor) -> Tensor:
        return 16.0 * torch.sigmoid(self.cpb_mlp(coords))

    @steps.add_bias
    def add_bias(self, scores: Tensor, table: Tensor) -> Tensor:  # type: ignore[override]
        return scores + self.bias_of(table)

    @steps.attend
    def attend(self, q: Tensor, k: Tensor, v: Tensor, table: Tensor, grid: GridWindows) -> Tensor:  # type: ignore[override]
        return self.attend_with(self.fused_bias(self.bias_of(table), q, grid), q * self.sharpness(), k, v, 1.0)

    def sharpness(self) -> Tensor:
        """Return τ, the factor of each head's cosines, (h, 1, 1)."""
        return self.logit_scale.clamp(max=SHARPEST).exp()

    def bias_of(self, table: Tensor) -> Tensor:
        """Return the bias of each head for each pair of tokens of a window, (h, n, m), from the table of distances."""
        return table.flatten(0, 1)[self.relative_position_index].permute(2, 0, 1).contiguous()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Published checkpoints include the distances, which the window determines.
        state_dict.pop(prefix + "relative_coords_table", None)
        super()._load_from_state_dict(state_dict, prefix, *args)


def normalized(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Normalize both to length 1: first the keys, which can be fewer, while less memory is in use.

    A zero key, such as one of the padding, remains zero.
    """
    shortest = shortest_length(k.dtype)
    k = F.normalize(k, dim=-1, eps=shortest)
    return F.normalize(q, dim=-1, eps=shortest), k


@cache
def shortest_length(dtype: torch.dtype) -> float:
    """Return the length below which a vector is divided by this length instead of its own.

    It is torch's default, 1e-12, unless the dtype rounds that to 0: then it is the smallest normal number of the dtype.
    """
    return max(1e-12, torch.finfo(dtype).tiny)


def log_distances(window: Sides, pretrained: Sides) -> Tensor:
    """Return the distances between query and key, down and across, on a log scale: (2p − 1, 2q − 1, 2), float32.

    They are sign(x)·log2(1 + 8|x|/(M − 1))/log2(8), where M is the window size in pre-training. A window of 1 token has
    the single distance 0.
    """
    sides = [
        torch.arange(1 - side, side, dtype=torch.float32) / max(of - 1, 1)
        for side, of in zip(window, pretrained, strict=True)
    ]
    distances = 8 * torch.stack(torch.meshgrid(*sides, indexing="ij"), dim=-1)
    return distances.sign() * torch.log2(distances.abs() + 1.0) / math.log2(8)


def build(spec: SwinV2Spec) -> WindowAttention:
    """Build the module that a Spec describes, with the mask of the Spec's grid."""
    return with_mask(WindowAttentionV2.of(spec), spec)
