"""Spatial-reduction attention as a module (Wang et al., arXiv 2102.12122, section 3.3); parameter names are timm's."""

from torch import Tensor, nn

from attnscope.attentions.cross.attention import CrossAttention

from . import steps
from .spec import SRASpec


class SpatialReductionAttention(CrossAttention):
    """Attention from all tokens of a grid to a coarser grid of the same tokens: (b, n, c) -> (b, n, c)."""

    def __init__(self, dim: int, heads: int, resolution: int | tuple[int, int], reduction: int) -> None:
        self.set_up(SRASpec(dim=dim, heads=heads, resolution=resolution, reduction=reduction))

    def set_up(self, spec: SRASpec) -> None:
        super().set_up(spec)
        self.resolution = spec.resolution
        self.reduction = spec.reduction
        if spec.reduction > 1:
            self.sr = nn.Conv2d(spec.dim, spec.dim, spec.reduction, stride=spec.reduction)
            self.norm = nn.LayerNorm(spec.dim)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        y, x = self.resolution
        return {**super().sizes, "y": y, "x": x, "r": self.reduction}

    def forward(self, x: Tensor) -> Tensor:
        context = self.spatial_reduction(x) if self.reduction > 1 else x
        q, k, v = self.queries_keys_values(x, context)
        return self.output(self.merge_heads(self.attention(q, k, v)))

    def spatial_reduction(self, x: Tensor) -> Tensor:
        """Return the tokens of the coarser grid: (b, n, c) -> (b, m, c)."""
        return self.normalize(self.flatten(self.reduce(self.unflatten(x))))

    @steps.unflatten
    def unflatten(self, x: Tensor) -> Tensor:
        return x.unflatten(1, self.resolution).permute(0, 3, 1, 2)

    @steps.reduce
    def reduce(self, grid: Tensor) -> Tensor:
        return self.sr(grid)

    @steps.flatten
    def flatten(self, reduced: Tensor) -> Tensor:
        return reduced.flatten(2).transpose(1, 2)

    @steps.normalize
    def normalize(self, patches: Tensor) -> Tensor:
        return self.norm(patches)


def build(spec: SRASpec) -> SpatialReductionAttention:
    """Build the module that a Spec describes."""
    return SpatialReductionAttention.of(spec)
