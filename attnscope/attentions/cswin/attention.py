"""Cross-shaped window attention as a module (Dong et al., arXiv 2107.00652); parameter names are Microsoft's."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from attnscope.attentions.attention import Heads, SoftmaxAttention
from attnscope.attentions.cswin import steps
from attnscope.attentions.cswin.spec import CSWinSpec
from attnscope.attentions.layer import Layer
from attnscope.attentions.swin.steps import WINDOWS
from attnscope.core.sizes import Pair, pair


class StripeAttention(SoftmaxAttention):
    """Attention in stripes of one direction, with LePE: q, k and v (b, height, width, 3, e) -> (b, height, width, e).

    Args:
        spec: Spec of the whole attention.
        stripe: height and width of a stripe.
    """

    spelling: ClassVar[dict[str, str]] = WINDOWS

    def __init__(self, spec: CSWinSpec, stripe: Pair) -> None:
        self.set_up(spec)
        self.stripe, self.heads = stripe, spec.heads // len(spec.stripes)
        dim = spec.dim // len(spec.stripes)
        self.get_v = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        p, q = self.stripe
        h = self.heads
        return {"p": p, "q": q, "n": p * q, "m": p * q, "h": h, "d": self.get_v.in_channels // h}

    def arguments(self) -> dict[str, object]:
        """Return the arguments of the module that its repr shows, by name."""
        return {"heads": self.heads, "stripe": self.stripe, "kernel": self.kernel}

    def forward(self, qkv: Tensor) -> Tensor:
        grid = qkv.shape[1:3]
        q, k, v = self.partition(qkv)
        return self.merge_stripes(self.add_encoding(self.attention(q, k, v), self.encode(v)), grid)

    @steps.partition
    def partition(self, qkv: Tensor) -> Heads:
        p, q = self.stripe
        cut = qkv.unflatten(4, (self.heads, -1)).unflatten(2, (-1, q)).unflatten(1, (-1, p))
        q, k, v = cut.permute(5, 0, 1, 3, 6, 2, 4, 7).contiguous().flatten(5, 6).flatten(1, 3).unbind(0)
        return q, k, v

    @steps.encode
    def encode(self, v: Tensor) -> Tensor:
        # Channels last: the convolution of each channel is faster, and neither its input nor its output is transposed.
        image = v.unflatten(2, self.stripe).permute(0, 2, 3, 1, 4).contiguous().flatten(3).permute(0, 3, 1, 2)
        return self.get_v(image).permute(0, 2, 3, 1).flatten(1, 2).unflatten(2, (self.heads, -1)).transpose(1, 2)

    @steps.add_encoding
    def add_encoding(self, heads: Tensor, lepe: Tensor) -> Tensor:
        return heads + lepe

    @steps.merge_stripes
    def merge_stripes(self, heads: Tensor, grid: torch.Size) -> Tensor:
        (height, width), (p, q) = grid, self.stripe
        stripes = heads.unflatten(2, self.stripe).unflatten(0, (-1, height // p, width // q))
        return stripes.permute(0, 1, 4, 2, 5, 3, 6).flatten(5).flatten(3, 4).flatten(1, 2).contiguous()


class CSWinAttention(Layer):
    """Attention in cross-shaped windows: (b, height, width, c) -> (b, height, width, c).

    Half of the heads attend in vertical stripes, half in horizontal ones. If one stripe is the whole grid, all heads
    attend to all tokens.

    Args:
        dim: embedding dimension, c.
        heads: number of attention heads; must divide dim, and must be even unless one stripe is the whole grid.
        resolution: grid of tokens, one number or (height, width).
        stripe: width of a stripe in tokens; must divide height and width.
        qkv_bias: whether to add a bias to q, k and v.
        qk_scale: factor of q·kᵀ; default 1/√d with d = dim / heads.
        attn_drop: dropout probability of the attention weights in training.
        proj_drop: dropout probability of the output in training.
        kernel: "eager" runs each step separately; the others of KERNELS compute score to mix in one call.

    Raises:
        UsageError: if a value is out of range or contradicts another one, see `CSWinSpec`.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        resolution: int | Pair,
        stripe: int = 7,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        kernel: str = "eager",
    ) -> None:
        self.set_up(
            CSWinSpec(
                dim=dim,
                heads=heads,
                resolution=pair(resolution),
                stripe=stripe,
                qkv_bias=qkv_bias,
                qk_scale=qk_scale,
                attn_drop=attn_drop,
                proj_drop=proj_drop,
                kernel=kernel,
            )
        )

    def set_up(self, spec: CSWinSpec) -> None:
        """Create the parameters, with a branch for each direction of the stripes."""
        super().__init__()
        self.spec = spec
        self.dim, self.resolution = spec.dim, spec.resolution
        self.qkv = nn.Linear(spec.dim, 3 * spec.dim, bias=spec.qkv_bias)
        self.attns = nn.ModuleList(StripeAttention(spec, stripe) for stripe in spec.stripes)
        self.proj = nn.Linear(spec.dim, spec.dim)
        self.proj_drop = nn.Dropout(spec.proj_drop)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        a, heads = len(self.attns), self.spec.heads
        return {"c": self.dim, "a": a, "h": heads // a, "d": self.dim // heads}

    def arguments(self) -> dict[str, object]:
        """Return the arguments of the module that its repr shows, by name."""
        return {"dim": self.dim, "resolution": self.resolution}

    def forward(self, x: Tensor) -> Tensor:
        height, width = self.resolution
        self.check_shape(x, {"b": None, "height": height, "width": width, "c": self.dim})
        if len(self.attns) == 1:
            return self.output(self.attns[0](self.project(x)))
        return self.output(self.concatenate(*self.directions(self.project(x))))

    def directions(self, qkv: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output of the heads of each direction, (b, height, width, e)."""
        vertical, horizontal = self.split_branches(qkv)
        return self.attns[0](vertical), self.attns[1](horizontal)

    @steps.project
    def project(self, x: Tensor) -> Tensor:
        return self.qkv(x).unflatten(-1, (3, -1))

    @steps.split_branches
    def split_branches(self, qkv: Tensor) -> tuple[Tensor, Tensor]:
        vertical, horizontal = qkv.chunk(2, dim=-1)
        return vertical, horizontal

    @steps.concatenate
    def concatenate(self, columns: Tensor, rows: Tensor) -> Tensor:
        return torch.cat([columns, rows], dim=-1)

    @steps.output
    def output(self, merged: Tensor) -> Tensor:
        return self.proj_drop(self.proj(merged))


def build(spec: CSWinSpec) -> CSWinAttention:
    """Build the module that a Spec describes."""
    module = CSWinAttention.__new__(CSWinAttention)
    module.set_up(spec)
    return module
