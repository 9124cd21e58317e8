"""ViT's attention as a module (Dosovitskiy et al., arXiv 2010.11929, appendix A); parameter names are timm's."""

from torch import Tensor

from attnscope.attentions.attention import SelfAttention
from attnscope.attentions.vit.spec import ViTSpec


class ViTAttention(SelfAttention):
    """Multi-head self-attention: (b, n, c) -> (b, n, c).

    Args:
        dim: channels of a token, c.
        heads: attention heads, h; dim is divisible by it.
        qkv_bias: give q, k and v a bias.
        qk_scale: multiplies q·kᵀ; 1/√d unless given, with d = dim / heads.
        attn_drop: dropout of the attention weights, in training.
        proj_drop: dropout of the output, in training.
        kernel: "eager" computes every step on its own, any other of KERNELS the middle ones at once.
        kv_heads: heads of keys and values, g; heads is divisible by it. As many as heads unless given.

    Raises:
        UsageError: a value is out of range, dim is not divisible by heads, or heads not by kv_heads.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        kernel: str = "eager",
        kv_heads: int | None = None,
    ) -> None:
        self.set_up(
            ViTSpec(
                dim=dim,
                heads=heads,
                kv_heads=kv_heads,
                qkv_bias=qkv_bias,
                qk_scale=qk_scale,
                attn_drop=attn_drop,
                proj_drop=proj_drop,
                kernel=kernel,
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.queries_keys_values(x)
        return self.output(self.merge_heads(self.attention(q, k, v)))


def build(spec: ViTSpec) -> ViTAttention:
    """Return the module that a Spec describes."""
    return ViTAttention.of(spec)
