"""Heads, and the fewer heads of keys and values that several of them may share: what every attention's Spec says of them.

Fewer heads of keys and values than of queries is grouped-query attention (Ainslie et al., arXiv 2305.13245); one for all
is multi-query attention (Shazeer, arXiv 1911.02150).
"""

from attnscope.attentions.spec import Spec
from attnscope.core.errors import UsageError, nearest_divisors, nearest_multiples

KV_HEADS = "Heads of keys and values; several queries' heads share one."
"""The help of `kv_heads`."""


class Headed(Spec):
    """A Spec with `dim`, `heads` and `kv_heads` (None: as many as heads), and what it can tell of them."""

    dim: int
    heads: int
    kv_heads: int | None

    def check_heads(self) -> None:
        """Whether the channels fall into heads, and the heads can share keys and values.

        Raises:
            UsageError: dim is not divisible by heads, or heads not by kv_heads.
        """
        dim, heads, shared = self.dim, self.heads, self.kv_heads
        if dim % heads:
            nearest = f"{nearest_multiples(dim, heads)}, or {{heads}} {nearest_divisors(heads, dim)}"
            raise UsageError(f"{{dim}} {dim} is not divisible by {{heads}} {heads}; nearest: {nearest}")
        if shared is not None and heads % shared:
            nearest = nearest_divisors(shared, heads)
            raise UsageError(f"{{kv_heads}} {shared} does not divide {{heads}} {heads}; nearest: {nearest}")

    @property
    def is_grouped(self) -> bool:
        """Whether heads share keys and values."""
        return self.kv_heads not in (None, self.heads)

    @property
    def kv_dim(self) -> int:
        """Channels of the keys, and of the values: G = g·d."""
        return self.dim // self.heads * (self.kv_heads or self.heads)

    def shared_heads(self) -> list[str]:
        """What the headline says of them, where heads share any."""
        return [f"{self.kv_heads} of keys and values"] if self.is_grouped else []


def letters(dim: int, heads: int, kv_heads: int | None) -> dict[str, int]:
    """The sizes of the letters c channels, h heads, d head width, g heads of keys and values, f heads that share one of
    those, e channels of q, k and v together.
    """
    d, g = dim // heads, kv_heads or heads
    return {"c": dim, "h": heads, "d": d, "g": g, "f": heads // g, "e": (heads + 2 * g) * d}
