"""Multi-scale linear attention as a module (Cai et al., arXiv 2205.14756, section 3.1); parameter names are timm's."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnscope.attentions.attention import Heads
from attnscope.attentions.layer import CHANNELS_FIRST, Layer
from attnscope.attentions.linear import steps
from attnscope.attentions.linear.spec import LinearSpec
from attnscope.core.sizes import Ints

EPS = 1e-5
"""Number added to the total weight of a query."""


class LinearAttention(Layer):
    """ReLU linear attention at several scales: (b, c, height, width) -> the same, for any height and width.

    Args:
        dim: embedding dimension, c.
        head_dim: channels of a head, d; must divide dim.
        scales: sides of the convolutions that aggregate tokens, odd numbers.
        qkv_bias: whether to add a bias to q, k and v.
        proj_drop: dropout probability of the output in training.

    Raises:
        UsageError: if a value is out of range. dim must be divisible by head_dim; scales must be odd.
    """

    def __init__(
        self, dim: int, head_dim: int = 16, scales: Ints = (5,), qkv_bias: bool = False, proj_drop: float = 0.0
    ) -> None:
        self.set_up(LinearSpec(dim=dim, head_dim=head_dim, scales=scales, qkv_bias=qkv_bias, proj_drop=proj_drop))

    def set_up(self, spec: LinearSpec) -> None:
        super().__init__()
        self.spec = spec
        dim, bias = spec.dim, spec.qkv_bias
        self.dim, self.heads, self.head_dim, self.scales = dim, spec.heads, spec.head_dim, spec.scales
        self.own_steps = {"aggregate": steps.aggregate_at(spec)}
        self.qkv = nn.ModuleDict({"conv": nn.Conv2d(dim, 3 * dim, 1, bias=bias)})
        self.aggreg = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(3 * dim, 3 * dim, side, padding=side // 2, groups=3 * dim, bias=bias),
                nn.Conv2d(3 * dim, 3 * dim, 1, groups=3 * spec.heads, bias=bias),
            )
            for side in spec.scales
        )
        wide = dim * (1 + len(spec.scales))
        self.proj = nn.Sequential()
        self.proj.add_module("conv", nn.Conv2d(wide, dim, 1, bias=False))
        self.proj.add_module("norm", nn.BatchNorm2d(dim))
        self.proj_drop = nn.Dropout(spec.proj_drop)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        h, d, a = self.heads, self.head_dim, 1 + len(self.scales)
        return {"c": self.dim, "h": h, "d": d, "e": 3 * d, "f": d + 1, "a": a, "g": a * h}

    def arguments(self) -> dict[str, object]:
        """Return the arguments of the module that its repr shows, by name."""
        return {"dim": self.dim, "head_dim": self.head_dim, "scales": self.scales}

    def forward(self, x: Tensor) -> Tensor:
        self.check_shape(x, {"b": None, "c": self.dim, "height": None, "width": None}, fix=CHANNELS_FIRST)
        grid = x.shape[2:]
        q, k, v = self.queries_keys_values(x)
        return self.output(self.merge_heads(self.attention(q, k, v), grid))

    def queries_keys_values(self, x: Tensor) -> Heads:
        q, k, v = self.split_heads(self.aggregate(self.project(x)))
        return *self.rectify_queries_keys(q, k), v

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the output of each head, q·(kᵀ·v) / q·(kᵀ·1): (b, g, n, d)."""
        return self.divide(self.apply_context(q, self.sum_context(k, self.append_one(v))))

    @steps.project
    def project(self, x: Tensor) -> Tensor:
        return self.qkv["conv"](x)

    @steps.aggregate
    def aggregate(self, qkv: Tensor) -> Tensor:
        return torch.cat([qkv, *[scale(qkv) for scale in self.aggreg]], dim=1)

    @steps.split_heads
    def split_heads(self, multi: Tensor) -> Heads:
        q, k, v = multi.flatten(2).unflatten(1, (-1, 3 * self.head_dim)).transpose(-2, -1).chunk(3, dim=-1)
        return q, k, v

    @steps.rectify_queries_keys
    def rectify_queries_keys(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return F.relu(q), F.relu(k)

    @steps.append_one
    def append_one(self, v: Tensor) -> Tensor:
        return F.pad(v, (0, 1), value=1.0)

    @steps.sum_context
    def sum_context(self, k: Tensor, values: Tensor) -> Tensor:
        return k.transpose(-2, -1) @ values

    @steps.apply_context
    def apply_context(self, q: Tensor, context: Tensor) -> Tensor:
        return q @ context

    @steps.divide
    def divide(self, sums: Tensor) -> Tensor:
        weighted, total = sums.split([self.head_dim, 1], dim=-1)
        return weighted / (total + EPS)

    @steps.merge_heads
    def merge_heads(self, heads: Tensor, grid: torch.Size) -> Tensor:
        return heads.transpose(-2, -1).flatten(1, 2).unflatten(-1, grid).contiguous()

    @steps.output
    def output(self, merged: Tensor) -> Tensor:
        return self.proj_drop(self.proj(merged))


def build(spec: LinearSpec) -> LinearAttention:
    """Build the module that a Spec describes."""
    module = LinearAttention.__new__(LinearAttention)
    module.set_up(spec)
    return module
