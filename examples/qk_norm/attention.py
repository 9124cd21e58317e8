"""QK-norm attention as a module; parameter names are timm's."""

from torch import Tensor, nn

from attnscope.attentions.attention import SelfAttention

from . import steps
from .spec import QKNormSpec


class QKNormAttention(SelfAttention):
    """Global attention with normalized queries and keys: (b, n, c) -> (b, n, c)."""

    def set_up(self, spec: QKNormSpec) -> None:
        super().set_up(spec)
        self.q_norm = nn.LayerNorm(spec.dim // spec.heads)
        self.k_norm = nn.LayerNorm(spec.dim // spec.heads)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.queries_keys_values(x)
        q = self.normalize_queries(q)
        k = self.normalize_keys(k)
        return self.output(self.merge_heads(self.attention(q, k, v)))

    @steps.normalize_queries
    def normalize_queries(self, q: Tensor) -> Tensor:
        return self.q_norm(q)

    @steps.normalize_keys
    def normalize_keys(self, k: Tensor) -> Tensor:
        return self.k_norm(k)


def build(spec: QKNormSpec) -> QKNormAttention:
    return QKNormAttention.of(spec)
