"""Attention heads and key/value heads: the part that the Specs of all attentions share.

Fewer key/value heads than query heads is grouped-query attention (Ainslie et al., arXiv 2305.13245); a single key/value
head is multi-query attention (Shazeer, arXiv 1911.02150).
"""

from attnscope.attentions.spec import Spec
from attnscope.core.errors import UsageError, nearest_divisors, nearest_multiples
from attnscope.core.sizes import plural

KV_HEADS = "Number of key/value heads; fewer than heads is grouped-query attention."
"""Help text of `kv_heads`."""


class Headed(Spec):
    """A Spec with `dim`, `heads` and `kv_heads` (None: equal to `heads`), and the values derived from them."""

    dim: int
    heads: int
    kv_heads: int | None

    def check_heads(self) -> None:
        """Check that `heads` divides `dim`, and that `kv_heads` divides `heads`.

        Raises:
            UsageError: if one of them does not.
        """
        dim, heads, shared, unit = self.dim, self.heads, self.kv_heads, self.head_unit
        if dim % heads:
            nearest = nearest_multiples(dim, heads * unit)
            nearest += f", or {{heads}} {nearest_divisors(heads, dim // unit)}" if dim % unit == 0 else ""
            raise UsageError(f"{{dim}} must be divisible by {{heads}} {heads} (got {dim}); nearest: {nearest}")
        if shared is not None and heads % shared:
            nearest = nearest_divisors(shared, heads)
            raise UsageError(f"{{kv_heads}} must divide {{heads}} {heads} (got {shared}); nearest: {nearest}")

    @property
    def head_unit(self) -> int:
        """Return the number that divides the channels of each head."""
        return 1

    @property
    def is_grouped(self) -> bool:
        """Return whether heads share keys and values."""
        return self.kv_heads not in (None, self.heads)

    @property
    def kv_dim(self) -> int:
        """Return the dimension of keys and of values: G = g·d."""
        return self.dim // self.heads * (self.kv_heads or self.heads)

    @property
    def score_scale(self) -> float:
        """Return the factor of q·kᵀ: `qk_scale`, or 1/√d if it is not set."""
        return (self.dim // self.heads) ** -0.5 if self.qk_scale is None else self.qk_scale

    @property
    def has_key_bias(self) -> bool:
        """Return whether k has a bias; if only q and v have one, it consists of two parameters, as in timm."""
        return self.qkv_bias

    def shared_heads(self) -> list[str]:
        """Return the part of the headline about key/value heads, which is empty if heads do not share them."""
        return [plural(self.kv_heads or self.heads, "key/value head")] if self.is_grouped else []


def letters(dim: int, heads: int, kv_heads: int | None) -> dict[str, int]:
    """Return the sizes of the axis letters that depend on the heads.

    c is the embedding dimension, h heads, d head dimension, g key/value heads, and f query heads for each of them. e is
    the total dimension of q, k and v.
    """
    d, g = dim // heads, kv_heads or heads
    return {"c": dim, "h": heads, "d": d, "g": g, "f": heads // g, "e": (heads + 2 * g) * d}
