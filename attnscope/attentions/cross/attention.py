"""Cross-attention as a module (Vaswani et al., arXiv 1706.03762, section 3.2.3)."""

from torch import Tensor, nn

from attnscope.attentions.attention import Heads, ScaledDotProduct
from attnscope.attentions.cross import steps
from attnscope.attentions.cross.spec import CrossSpec
from attnscope.attentions.heads import Headed


class CrossAttention(ScaledDotProduct):
    """Attention of one sequence to another: (b, n, c) and (b, m, c) -> (b, n, c).

    Args:
        dim: embedding dimension, c.
        heads: number of attention heads, h; must divide dim.
        kv_heads: number of key/value heads, g; must divide heads. Default heads.
        qkv_bias: whether to add a bias to q, k and v.
        qk_scale: factor of q·kᵀ; default 1/√d with d = dim / heads.
        attn_drop: dropout probability of the attention weights in training.
        proj_drop: dropout probability of the output in training.
        kernel: "eager" runs each step separately; the others of KERNELS compute score to mix in one call.

    Raises:
        UsageError: if a value is out of range or contradicts another one. dim must be divisible by heads, and heads by
            kv_heads.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        kv_heads: int | None = None,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        kernel: str = "eager",
    ) -> None:
        self.set_up(
            CrossSpec(
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

    def set_up(self, spec: Headed) -> None:
        super().set_up(spec)
        self.q = nn.Linear(spec.dim, spec.dim, bias=spec.qkv_bias)
        self.kv = nn.Linear(spec.dim, 2 * spec.kv_dim, bias=spec.qkv_bias)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        self.check_input(x, ("b", "n"))
        self.check_input(context, ("b", "m"), "context")
        q, k, v = self.queries_keys_values(x, context)
        return self.output(self.merge_heads(self.attention(q, k, v)))

    def queries_keys_values(self, x: Tensor, context: Tensor) -> Heads:
        queries, kv = self.project_queries(x), self.project_context(context)
        q, (k, v) = self.split_queries(queries), self.split_context(kv)
        return (q, k, v) if self.kv_heads == self.heads else (q, *self.share_heads(k, v))

    @steps.project_queries
    def project_queries(self, x: Tensor) -> Tensor:
        return self.q(x)

    @steps.project_context
    def project_context(self, context: Tensor) -> Tensor:
        return self.kv(context)

    @steps.split_queries
    def split_queries(self, queries: Tensor) -> Tensor:
        return queries.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    @steps.split_context
    def split_context(self, kv: Tensor) -> tuple[Tensor, Tensor]:
        k, v = kv.unflatten(-1, (2, self.kv_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return k, v


def build(spec: CrossSpec) -> CrossAttention:
    """Build the module that a Spec describes."""
    return CrossAttention.of(spec)
