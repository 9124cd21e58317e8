"""Mask unit attention as a module (Ryali et al., arXiv 2306.00989, section 3); parameter names are timm's."""

from typing import ClassVar

from torch import Tensor, nn

from attnscope.attentions.attention import Heads, ScaledDotProduct
from attnscope.attentions.heads import Headed
from attnscope.attentions.hiera import steps
from attnscope.attentions.hiera.spec import HieraSpec
from attnscope.attentions.swin.steps import WINDOWS
from attnscope.core.sizes import Pair, pair


class MaskUnitAttention(ScaledDotProduct):
    """Attention in mask units, with pooled queries: (b, height, width, c) -> (b, height / s, width / s, o).

    Args:
        dim: input channels, c.
        out_dim: channels of queries, keys, values and output, o.
        heads: number of attention heads, h; must divide out_dim.
        resolution: grid of tokens, one number or (height, width).
        window: size of a mask unit in tokens, one number or (height, width); 0 is global attention.
        q_stride: side of the cell of tokens whose maximum is one query, s.
        qkv_bias: whether to add a bias to q, k and v.
        qk_scale: factor of q·kᵀ; default 1/√d with d = out_dim / heads.
        attn_drop: dropout probability of the attention weights in training.
        proj_drop: dropout probability of the output in training.
        kernel: "eager" runs each step separately; the others of KERNELS compute score to mix in one call.

    Raises:
        UsageError: if a value is out of range or contradicts another one, see `HieraSpec`.
    """

    spelling: ClassVar[dict[str, str]] = WINDOWS

    def __init__(
        self,
        dim: int,
        out_dim: int,
        heads: int,
        resolution: int | Pair,
        window: int | Pair = 8,
        q_stride: int = 1,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        kernel: str = "eager",
    ) -> None:
        self.set_up(
            HieraSpec(
                dim=dim,
                out_dim=out_dim,
                heads=heads,
                resolution=pair(resolution),
                window=pair(window),
                q_stride=q_stride,
                qkv_bias=qkv_bias,
                qk_scale=qk_scale,
                attn_drop=attn_drop,
                proj_drop=proj_drop,
                kernel=kernel,
            )
        )

    def set_up(self, spec: Headed) -> None:
        super().set_up(spec)
        assert isinstance(spec, HieraSpec)
        self.resolution, self.unit, self.q_stride = spec.resolution, spec.units.unit, spec.q_stride
        self.qkv = nn.Linear(spec.dim, 3 * spec.out_dim, bias=spec.qkv_bias)
        self.proj = nn.Linear(spec.out_dim, spec.out_dim)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        (p, q), o = (side // self.q_stride for side in self.unit), self.proj.in_features
        i = self.q_stride
        own = {"p": p, "q": q, "i": i, "j": i, "n": p * q, "m": i * i * p * q}
        return own | {"c": self.qkv.in_features, "o": o, "h": self.heads, "d": o // self.heads}

    def arguments(self) -> dict[str, object]:
        """Return the arguments of the module that its repr shows, by name."""
        own = {"out_dim": self.proj.in_features, "unit": self.unit, "q_stride": self.q_stride}
        return {**super().arguments(), "dim": self.qkv.in_features, **own}

    def forward(self, x: Tensor) -> Tensor:
        height, width = self.resolution
        self.check_shape(x, {"b": None, "height": height, "width": width, "c": self.qkv.in_features})
        q, k, v = self.queries_keys_values(self.partition(x))
        return self.reverse(self.output(self.merge_heads(self.attention(q, k, v))))

    def queries_keys_values(self, units: Tensor) -> Heads:
        units = self.project(units)
        q, k, v = self.split_heads(units)
        return (self.pool_queries(q) if self.q_stride > 1 else q), k, v

    @steps.partition
    def partition(self, x: Tensor) -> Tensor:
        (p, q), s = (side // self.q_stride for side in self.unit), self.q_stride
        x = x.unflatten(2, (-1, q, s)).unflatten(1, (-1, p, s))
        return x.permute(0, 1, 4, 3, 6, 2, 5, 7).flatten(3, 6).flatten(0, 2).contiguous()

    @steps.project
    def project(self, units: Tensor) -> Tensor:
        return self.qkv(units)

    @steps.split_heads
    def split_heads(self, qkv: Tensor) -> Heads:
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    @steps.pool_queries
    def pool_queries(self, q: Tensor) -> Tensor:
        return q.unflatten(2, (self.q_stride**2, -1)).amax(dim=2)

    @steps.output
    def output(self, merged: Tensor) -> Tensor:
        return self.proj_drop(self.proj(merged))

    @steps.reverse
    def reverse(self, units: Tensor) -> Tensor:
        down, across = (side // part for side, part in zip(self.resolution, self.unit, strict=True))
        p, q = (side // self.q_stride for side in self.unit)
        x = units.unflatten(1, (p, q)).unflatten(0, (-1, down, across))
        return x.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(1, 2).contiguous()


def build(spec: HieraSpec) -> MaskUnitAttention:
    """Build the module that a Spec describes."""
    return MaskUnitAttention.of(spec)
