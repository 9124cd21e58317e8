"""Spatial-reduction attention as a module (Wang et al., arXiv 2102.12122, section 3.3); parameter names are timm's."""

from torch import Tensor, nn
from torch.nn import functional as F

from attnscope.attentions.cross.attention import CrossAttention
from attnscope.attentions.heads import Headed
from attnscope.attentions.pvt import steps
from attnscope.attentions.pvt.spec import PVTSpec
from attnscope.core.sizes import Pair, pair


class SpatialReductionAttention(CrossAttention):
    """Attention from all tokens of a grid to a coarser grid of the same tokens: (b, n, c) -> (b, n, c).

    Args:
        dim: embedding dimension, c.
        heads: number of attention heads, h; must divide dim.
        resolution: grid of tokens, one number or (height, width); n is their product.
        reduction: side of the patch reduced to one key/value token, R; default 8.
        linear: average-pool the tokens to 7×7 keys instead, as in PVT v2-Li.
        qkv_bias: whether to add a bias to q, k and v.
        qk_scale: factor of q·kᵀ; default 1/√d with d = dim / heads.
        attn_drop: dropout probability of the attention weights in training.
        proj_drop: dropout probability of the output in training.
        kernel: "eager" runs each step separately; the others of KERNELS compute score to mix in one call.
        kv_heads: number of key/value heads, g; must divide heads. Default heads.

    Raises:
        UsageError: if a value is out of range or contradicts another one, see `PVTSpec`.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        resolution: int | Pair,
        reduction: int | None = None,
        linear: bool = False,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        kernel: str = "eager",
        kv_heads: int | None = None,
    ) -> None:
        self.set_up(
            PVTSpec(
                dim=dim,
                heads=heads,
                kv_heads=kv_heads,
                resolution=pair(resolution),
                reduction=reduction,
                linear=linear,
                qkv_bias=qkv_bias,
                qk_scale=qk_scale,
                attn_drop=attn_drop,
                proj_drop=proj_drop,
                kernel=kernel,
            )
        )

    def set_up(self, spec: Headed) -> None:
        super().set_up(spec)
        assert isinstance(spec, PVTSpec)
        self.resolution, self.reduction, self.reduced = spec.resolution, spec.reduction, spec.reduced
        if spec.reduces:
            side = spec.reduction or 1
            self.sr = nn.Conv2d(spec.dim, spec.dim, side, stride=side)
            self.norm = nn.LayerNorm(spec.dim)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        (y, x), (p, q) = self.resolution, self.reduced
        grids = {"y": y, "x": x, "p": p, "q": q, "i": y // p, "j": x // q}
        return {**super().sizes, **grids, "r": self.reduction or 1}

    def arguments(self) -> dict[str, object]:
        """Return the arguments of the module that its repr shows, by name."""
        own = {"linear": True} if self.reduction is None else {"reduction": self.reduction}
        return {**super().arguments(), "resolution": self.resolution, **own}

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        self.check_shape(x, {"b": None, "n": self.resolution[0] * self.resolution[1], "c": self.proj.in_features})
        context = x if self.reduction == 1 else self.spatial_reduction(x)
        q, k, v = self.queries_keys_values(x, context)
        return self.output(self.merge_heads(self.attention(q, k, v)))

    def spatial_reduction(self, x: Tensor) -> Tensor:
        """Return the tokens of the coarser grid, SR(x) of equation 2: (b, n, c) -> (b, m, c)."""
        grid = self.unflatten(x)
        if self.reduction is None:
            return self.activate(self.normalize(self.flatten(self.mix_channels(self.pool(grid)))))
        return self.normalize(self.flatten(self.reduce(grid)))

    @steps.unflatten
    def unflatten(self, x: Tensor) -> Tensor:
        return x.unflatten(1, self.resolution).permute(0, 3, 1, 2)

    @steps.reduce
    def reduce(self, grid: Tensor) -> Tensor:
        return self.sr(grid)

    @steps.pool
    def pool(self, grid: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(grid, self.reduced)

    @steps.mix_channels
    def mix_channels(self, pooled: Tensor) -> Tensor:
        return self.sr(pooled)

    @steps.flatten
    def flatten(self, reduced: Tensor) -> Tensor:
        return reduced.flatten(2).transpose(1, 2)

    @steps.normalize
    def normalize(self, patches: Tensor) -> Tensor:
        return self.norm(patches)

    @steps.activate
    def activate(self, context: Tensor) -> Tensor:
        return F.gelu(context)


def build(spec: PVTSpec) -> SpatialReductionAttention:
    """Build the module that a Spec describes."""
    return SpatialReductionAttention.of(spec)
