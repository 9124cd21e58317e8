"""ViT's attention as a module (Dosovitskiy et al., arXiv 2010.11929, appendix A); parameter names are timm's."""

from torch import Tensor

from attnscope.attentions.attention import SelfAttention
from attnscope.attentions.vit.spec import ViTSpec


class ViTAttention(SelfAttention):
    """Multi-head self-attention: (b, n, c) -> (b, n, c).

    Args:
        dim: embedding dimension, c.
        heads: number of attention heads, h; must divide dim.
        qkv_bias: whether to add a bias to q, k and v.
        qk_scale: factor of q·kᵀ; default 1/√d with d = dim / heads.
        attn_drop: dropout probability of the attention weights in training.
        proj_drop: dropout probability of the output in training.
        kernel: "eager" runs each step separately; the others of KERNELS compute score to mix in one call.
        kv_heads: number of key/value heads, g; must divide heads. Default heads.

    Raises:
        UsageError: if a value is out of range or contradicts another one. dim must be divisible by heads, and heads by
            kv_heads.
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
        self.check_input(x, ("b", "n"))
        q, k, v = self.queries_keys_values(x)
        return self.output(self.merge_heads(self.attention(q, k, v)))


def build(spec: ViTSpec) -> ViTAttention:
    """Build the module that a Spec describes."""
    return ViTAttention.of(spec)
