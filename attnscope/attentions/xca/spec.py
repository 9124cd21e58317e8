"""Options of attention between channels, and its cost by the paper's formula."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from attnscope.attentions.complexity import Complexity, Term, global_attention
from attnscope.attentions.heads import Headed
from attnscope.attentions.observed import CHANNELS, Observed
from attnscope.attentions.spec import option
from attnscope.attentions.vit.spec import ViTSpec, on_the_same_tokens
from attnscope.core.axes import spell
from attnscope.core.errors import UsageError
from attnscope.core.formula import symbol
from attnscope.core.neighbourhood import Neighbourhood
from attnscope.core.sizes import Pair, plural, spell_pair

VARIANTS = ("xcit", "davit")


@dataclass(frozen=True, slots=True)
class Channels(Neighbourhood):
    """The channels of the same head: channels attend to channels, and every output depends on all tokens."""

    kind: ClassVar[str] = "channel"
    letter: ClassVar[str] = "d"

    count: int

    def describe(self, sized: bool = True) -> str:
        """Return `channels of the same head`."""
        return "channels of the same head"

    @property
    def tokens(self) -> int:
        """Return the number of tokens of one image."""
        return self.count

    @property
    def keys(self) -> None:
        """Return None, since tokens have no scores."""
        return None


@dataclass(frozen=True, kw_only=True)
class XCASpec(Headed):
    """Channel attention: XCiT's cross-covariance attention (arXiv 2106.09681, section 3.2), and that of DaViT.

    The defaults are XCiT-T12/16 at 224 pixels: 14×14 tokens, embedding dimension 192, 4 heads. DaViT scales the product
    of keys and values by 1/√d and applies it to the queries (Ding et al., arXiv 2204.03645, equation 3).

    Raises:
        UsageError: if a value is out of range, or if qk_scale is given. dim must be divisible by heads. The kernel must
            be eager, since fused kernels attend between tokens.
    """

    name: ClassVar[str] = "xca"
    title: ClassVar[str] = "Channel attention"
    SUMMARY: ClassVar[str] = "Attention between channels, as in XCiT and DaViT."
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "attnscope xca --dim 384 --heads 8",
        "attnscope xca --variant davit --resolution 56 --dim 96 --heads 3",
    )
    LOOKS_AT: ClassVar[str] = "the channels of its head, over all tokens"
    GIVES_UP: ClassVar[str] = "a map between tokens: no token can choose which other tokens it reads"
    PAPER: ClassVar[str] = (
        "El-Nouby et al., XCiT: Cross-Covariance Image Transformers, arXiv 2106.09681; Ding et al., DaViT, arXiv 2204.03645"
    )
    SIZE_FIELD: ClassVar[str] = "resolution"
    kv_heads: ClassVar[None] = None  # type: ignore[misc]  # heads cannot share keys and values

    dim: int = option(192, "Embedding dimension.")
    heads: int = option(4, "Number of attention heads.")
    resolution: Pair = option((14, 14), "Grid size in tokens.")
    variant: str = option("xcit", f"Variant: {', '.join(VARIANTS)}.", choices=VARIANTS)
    qk_scale: float | None = option(
        None, "Not available: XCiT learns a scale, DaViT has 1/√(dim/heads).", low=0.0, shown="none"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_heads()
        if self.kernel != "eager":
            raise UsageError(f"{{kernel}} must be eager for attention between channels (got {self.kernel})")
        if self.qk_scale is not None:
            raise UsageError(
                f"{{qk_scale}} must be unset for attention between channels, whose variants have scales of their own "
                f"(got {self.qk_scale})"
            )

    @classmethod
    def candidates(cls, seen: Observed) -> Iterator[dict[str, Any]]:
        """Yield the fields for attention of channels to channels."""
        if seen.scope == CHANNELS:
            yield {"resolution": seen.grid, "dim": seen.dim, "heads": seen.heads}

    @property
    def tokens(self) -> int:
        """Return the number of tokens of one image."""
        return self.resolution[0] * self.resolution[1]

    @property
    def neighbourhood(self) -> Channels:
        """Return the channels of the same head."""
        return Channels(self.tokens)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of the module's input, (b, n, c)."""
        return self.batch, self.tokens, self.dim

    def headline(self) -> list[str]:
        """Describe this Spec in a few words each."""
        d = self.dim // self.heads
        return [f"{spell(self.resolution)} tokens", f"dim {self.dim}", plural(self.heads, "head"), f"maps {d}×{d}"]

    def is_in(self, library: str) -> bool:
        """Return whether the calls of a library are known: those of XCiT are."""
        return self.variant == "xcit"

    def closed_form(self) -> dict[str, int]:
        """Return the MACs of each step: 4NC² + 2NCd in total, for heads of d channels."""
        b, N, C, d = self.batch, self.tokens, self.dim, self.dim // self.heads
        if self.variant == "davit":
            attend = {"score_channels": b * N * C * d, "mix_channels": b * N * C * d}
        else:
            attend = {"score": b * N * C * d, "mix": b * N * C * d}
        return {"project": 3 * b * N * C**2, **attend, "output": b * N * C**2}

    def complexity(self) -> Complexity:
        """Return the formulas of this attention and of global attention on the same tokens."""
        hw, C, d = symbol("hw", self.tokens), symbol("C", self.dim), symbol("d", self.dim // self.heads)
        return Complexity(
            batch=self.batch,
            own=Term("Ω(XCA)", 4 * hw * C**2 + 2 * hw * C * d),
            reference=global_attention(self.tokens, self.dim),
            saving="between channels",
        )

    def counterpart(self) -> ViTSpec:
        """Return global attention on the same tokens, the baseline for timing."""
        return on_the_same_tokens(self, self.tokens)

    def next_command(self) -> tuple[str, str]:
        """Return the suggested next command and the reason for it."""
        return f"attnscope compare vit xca --resolution {spell_pair(self.resolution, 'x')}", "attention between tokens"
