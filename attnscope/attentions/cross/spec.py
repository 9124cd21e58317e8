"""What can be asked of cross-attention, and what it costs."""

from dataclasses import dataclass, replace
from typing import ClassVar

from attnscope.attentions.complexity import Complexity, Term, global_attention, widths
from attnscope.attentions.heads import KV_HEADS, Headed
from attnscope.attentions.spec import option
from attnscope.core.formula import symbol
from attnscope.core.neighbourhood import OtherSequence
from attnscope.core.sizes import LARGEST, plural


@dataclass(frozen=True, kw_only=True)
class CrossSpec(Headed):
    """Attention of one sequence to another (Vaswani et al., arXiv 1706.03762, section 3.2.3).

    The defaults are a hundred object queries that look at the 196 patches of a ViT-B/16 at 224 pixels.

    Raises:
        UsageError: a value is out of range, dim is not divisible by heads, or heads not by kv_heads.
    """

    name: ClassVar[str] = "cross"
    title: ClassVar[str] = "Cross-attention"
    SUMMARY: ClassVar[str] = "Encoder-decoder attention: one sequence looks at another."
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "attnscope cross --tokens 100 --keys 196",
        "attnscope cross --heads 12 --kv-heads 1 --no-time",
    )
    SIZE_FIELD: ClassVar[str] = "tokens"

    dim: int = option(768, "Channels of a token.")
    heads: int = option(12, "Attention heads.")
    kv_heads: int | None = option(None, KV_HEADS, shown="heads")
    tokens: int = option(100, "Tokens that look: the queries.")
    keys: int = option(196, "Tokens that are looked at: the keys and values.")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_heads()

    @property
    def neighbourhood(self) -> OtherSequence:
        """All tokens of the other sequence."""
        return OtherSequence(self.tokens, self.keys)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the queries' sequence: (b, n, c)."""
        return self.batch, self.tokens, self.dim

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of both sequences: (b, n, c) and (b, m, c)."""
        return self.input_shape, (self.batch, self.keys, self.dim)

    def of_size(self, size: int) -> "CrossSpec":
        """The same with `size` queries."""
        return replace(self, tokens=size)

    def headline(self) -> list[str]:
        """What the reader should know of this Spec, in words."""
        heads = [plural(self.heads, "head"), *self.shared_heads()]
        look = "looks" if self.tokens == 1 else "look"
        return [f"{plural(self.tokens, 'token')} {look} at {self.keys}", f"dim {self.dim}", *heads]

    def closed_form(self) -> dict[str, int]:
        """MACs of each step: 2·Nq·C² + 2·Nk·C² + 2·Nq·Nk·C in all, with fewer channels of keys where heads share them."""
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
        """Return the formula of cross-attention beside that of self-attention of both sequences as one."""
        Nq, Nk, (C, G) = symbol("Nq", self.tokens), symbol("Nk", self.keys), widths(self.dim, self.kv_dim)
        return Complexity(
            batch=self.batch,
            own=Term("Ω(cross)", 2 * Nq * C**2 + 2 * Nk * G * C + 2 * Nq * Nk * C),
            reference=global_attention(self.tokens + self.keys, self.dim),
            saving="than both sequences attending as one",
        )

    def next_command(self) -> tuple[str, str]:
        """The command worth typing next, and why."""
        if self.kv_heads is None and self.heads > 1:
            command = f"attnscope cross --dim {self.dim} --heads {self.heads} --tokens {self.tokens} --keys {self.keys}"
            return f"{command} --kv-heads 1", "all heads share one of keys and values"
        tokens = self.tokens + self.keys
        if tokens > LARGEST:
            return "attnscope vit", "self-attention"
        return f"attnscope vit --dim {self.dim} --heads {self.heads} --tokens {tokens}", "both sequences as one"
