"""Separable attention as a module (Mehta and Rastegari, arXiv 2206.02680, section 3); parameter names are timm's."""

from torch import Tensor, nn
from torch.nn import functional as F

from attnscope.attentions.attention import Heads
from attnscope.attentions.layer import CHANNELS_FIRST, Layer
from attnscope.attentions.separable import steps
from attnscope.attentions.separable.spec import SeparableSpec
from attnscope.core.errors import UsageError
from attnscope.core.sizes import Pair, pair


class SeparableAttention(Layer):
    """Attention with one score for each token: (b, c, height, width) -> the same, for whole numbers of patches.

    Args:
        dim: embedding dimension, c.
        patch: size of a patch in tokens, one number or (height, width). The tokens at one place of all patches share a
            context vector.
        qkv_bias: whether to add a bias in both projections.
        attn_drop: dropout probability of the weights in training.
        proj_drop: dropout probability of the output in training.

    Raises:
        UsageError: if a value is out of range, or the patch does not divide height and width.
    """

    def __init__(
        self,
        dim: int,
        patch: int | Pair = 2,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        sides = pair(patch)
        self.set_up(
            SeparableSpec(
                dim=dim, resolution=sides, patch=sides, qkv_bias=qkv_bias, attn_drop=attn_drop, proj_drop=proj_drop
            )
        )

    def set_up(self, spec: SeparableSpec) -> None:
        """Create the parameters."""
        super().__init__()
        self.spec = spec
        self.dim, self.patch = spec.dim, spec.patch
        self.qkv_proj = nn.Conv2d(spec.dim, 1 + 2 * spec.dim, 1, bias=spec.qkv_bias)
        self.attn_drop = nn.Dropout(spec.attn_drop)
        self.out_proj = nn.Conv2d(spec.dim, spec.dim, 1, bias=spec.qkv_bias)
        self.proj_drop = nn.Dropout(spec.proj_drop)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        p, q = self.patch
        return {"c": self.dim, "e": 1 + 2 * self.dim, "p": p, "q": q, "i": p * q}

    def arguments(self) -> dict[str, object]:
        """Return the arguments of the module that its repr shows, by name."""
        return {"dim": self.dim, "patch": self.patch}

    def forward(self, x: Tensor) -> Tensor:
        self.check_shape(x, {"b": None, "c": self.dim, "height": None, "width": None}, fix=CHANNELS_FIRST)
        patches = self.patches(x)
        query, key, value = self.split(self.project(self.unfold(x)))
        x = self.output(self.apply_context(value, self.sum_context(key, self.softmax(query))))
        return self.fold(x, patches)

    def patches(self, x: Tensor) -> Pair:
        """Return the number of patches down and across, r and s.

        Raises:
            UsageError: if the patch does not divide the grid.
        """
        (height, width), (p, q) = x.shape[2:], self.patch
        if height % p or width % q:
            raise UsageError(f"the grid must be divisible by the patch {p}×{q} (got {height}×{width}); pad it first")
        return height // p, width // q

    @steps.unfold
    def unfold(self, x: Tensor) -> Tensor:
        p, q = self.patch
        places = x.unflatten(3, (-1, q)).unflatten(2, (-1, p)).permute(0, 1, 3, 5, 2, 4)
        return places.flatten(4).flatten(2, 3).contiguous()

    @steps.project
    def project(self, patches: Tensor) -> Tensor:
        return self.qkv_proj(patches)

    @steps.split
    def split(self, qkv: Tensor) -> Heads:
        query, key, value = qkv.split([1, self.dim, self.dim], dim=1)
        return query, key, value

    @steps.softmax
    def softmax(self, query: Tensor) -> Tensor:
        return self.attn_drop(query.softmax(dim=-1))

    @steps.sum_context
    def sum_context(self, key: Tensor, weights: Tensor) -> Tensor:
        return (key * weights).sum(dim=-1, keepdim=True)

    @steps.apply_context
    def apply_context(self, value: Tensor, context: Tensor) -> Tensor:
        return F.relu(value) * context

    @steps.output
    def output(self, merged: Tensor) -> Tensor:
        return self.proj_drop(self.out_proj(merged))

    @steps.fold
    def fold(self, y: Tensor, patches: Pair) -> Tensor:
        grid = y.unflatten(3, patches).unflatten(2, self.patch).permute(0, 1, 4, 2, 5, 3)
        return grid.flatten(4).flatten(2, 3).contiguous()


def build(spec: SeparableSpec) -> SeparableAttention:
    """Build the module that a Spec describes."""
    module = SeparableAttention.__new__(SeparableAttention)
    module.set_up(spec)
    return module
