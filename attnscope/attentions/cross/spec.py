"""Options of cross-attention, and its cost in closed form."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from attnscope.attentions.complexity import Complexity, Term, global_attention, widths
from attnscope.attentions.heads import KV_HEADS, Headed
from attnscope.attentions.observed import TOKENS, Observed
from attnscope.attentions.spec import option
from attnscope.core.formula import symbol
from attnscope.core.neighbourhood import OtherSequence
from attnscope.core.sizes import LARGEST, plural


@dataclass(frozen=True, kw_only=True)
class CrossSpec(Headed):
    """Attention of one sequence to another (Vaswani et al., arXiv 1706.03762, section 3.2.3).

    The defaults are 100 object queries that attend to the 196 patches of ViT-B/16 at 224 pixels.

    Raises:
        UsageError: if a value is out of range or contradicts another one. dim must be divisible by heads, and heads by
            kv_heads.
    """

    name: ClassVar[str] = "cross"
    title: ClassVar[str] = "Cross-attention"
    SUMMARY: ClassVar[str] = "Encoder-decoder attention: one sequence attends to another."
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "attnscope cross --tokens 100 --keys 196",
        "attnscope cross --heads 12 --kv-heads 1 --no-time",
    )
    LOOKS_AT: ClassVar[str] = "all tokens of the other sequence"
    GIVES_UP: ClassVar[str] = "tokens of its own sequence, which another layer attends to"
    PAPER: ClassVar[str] = "Vaswani et al., Attention Is All You Need, arXiv 1706.03762"
    SIZE_FIELD: ClassVar[str] = "tokens"

    dim: int = option(768, "Embedding dimension.")
    heads: int = option(12, "Number of attention heads.")
    kv_heads: int | None = option(None, KV_HEADS, shown="heads")
    tokens: int = option(100, "Number of query tokens.")
    keys: int = option(196, "Number of key/value tokens.")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_heads()

    @classmethod
    def candidates(cls, seen: Observed) -> Iterator[dict[str, Any]]:
        """Yield the fields for attention to another sequence; a learned class token is one."""
        if seen.scope == TOKENS and seen.windows == 1 and seen.is_other:
            yield {"tokens": seen.tokens, "keys": seen.keys, "dim": seen.dim, "heads": seen.heads}

    @property
    def neighbourhood(self) -> OtherSequence:
        """Return all tokens of the other sequence."""
        return OtherSequence(self.tokens, self.keys)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of the query sequence, (b, n, c)."""
        return self.batch, self.tokens, self.dim

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Return the shapes of both sequences, (b, n, c) and (b, m, c)."""
        return self.input_shape, (self.batch, self.keys, self.dim)

    def of_size(self, size: int) -> "CrossSpec":
        """Return a copy with `size` query tokens."""
        return replace(self, tokens=size)

    def headline(self) -> list[str]:
        """Describe this Spec in a few words each."""
        heads = [plural(self.heads, "head"), *self.shared_heads()]
        return [plural(self.tokens, "query token"), plural(self.keys, "key token"), f"dim {self.dim}", *heads]

    def closed_form(self) -> dict[str, int]:
        """Return the MACs of each step: 2·Nq·C² + 2·Nk·C·G + 2·Nq·Nk·C in total, where G = C if heads share no keys."""
        b, Nq, Nk, C, G = self.batch, self.tokens, self.keys, self.dim, self.kv_dim
        attend = {"score": b * Nq * Nk * C, "mix": b * Nq * Nk * C}
        if self.kernel != "eager":
            attend = {"attend": sum(attend.values())}
        return {
            "project_queries": b * Nq * C**2,
            "project_context": 2 * b * Nk * C * G,
            **attend,
            "output": b * Nq * C**2,
        }

    def complexity(self) -> Complexity:
        """Return the formulas of cross-attention and of self-attention over both sequences concatenated."""
        Nq, Nk, (C, G) = symbol("Nq", self.tokens), symbol("Nk", self.keys), widths(self.dim, self.kv_dim)
        return Complexity(
            batch=self.batch,
            own=Term("Ω(cross)", 2 * Nq * C**2 + 2 * Nk * G * C + 2 * Nq * Nk * C),
            reference=global_attention(self.tokens + self.keys, self.dim),
            saving="than self-attention over both sequences concatenated",
        )

    def next_command(self) -> tuple[str, str]:
        """Return the suggested next command and the reason for it."""
        if self.kv_heads is None and self.heads > 1:
            command = f"attnscope cross --dim {self.dim} --heads {self.heads} --tokens {self.tokens} --keys {self.keys}"
            return f"{command} --kv-heads 1", "multi-query attention: all heads share one key/value head"
        tokens = self.tokens + self.keys
        if tokens > LARGEST:
            return "attnscope vit", "self-attention"
        return (
            f"attnscope vit --dim {self.dim} --heads {self.heads} --tokens {tokens}",
            "self-attention over both sequences concatenated",
        )
