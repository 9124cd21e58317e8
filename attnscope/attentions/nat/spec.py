"""Options of neighbourhood attention, and its cost by the paper's formula."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from attnscope.attentions.complexity import Complexity, Term, global_attention, projections
from attnscope.attentions.heads import Headed
from attnscope.attentions.observed import NEIGHBOURHOOD, Observed
from attnscope.attentions.spec import option
from attnscope.attentions.vit.spec import ViTSpec, on_the_same_tokens
from attnscope.core.axes import spell
from attnscope.core.errors import UsageError
from attnscope.core.formula import symbol
from attnscope.core.neighbourhood import Neighbourhood
from attnscope.core.sizes import Pair, plural, spell_pair


@dataclass(frozen=True, slots=True)
class Nearest(Neighbourhood):
    """The K×K tokens around a query at a distance of `dilation`; at a border they are pushed inward, still K×K."""

    kind: ClassVar[str] = "neighbourhood"
    letter: ClassVar[str] = "K²"
    field: ClassVar[str] = "neighborhood"
    described: ClassVar[tuple[str, ...]] = ("neighborhood", "dilation")

    height: int
    width: int
    size: Pair
    dilation: Pair

    def describe(self, sized: bool = True) -> str:
        """Return a phrase such as `7×7 neighbourhood, dilation 2`."""
        words = f"{spell(self.size)} neighbourhood" if sized else "neighbourhood"
        return words if self.dilation == (1, 1) else f"{words}, dilation {spell_pair(self.dilation)}"

    @property
    def tokens(self) -> int:
        """Return the number of tokens of one image."""
        return self.height * self.width

    @property
    def keys(self) -> int:
        """Return the number of keys of a query, K²."""
        return self.size[0] * self.size[1]

    def reach(self, axis: int, side: int) -> Sequence[range]:
        """Return, for each query along an axis, the nearest tokens at its offset from the dilation.

        They are centred on the query, or the first or the last of those tokens near a border (Hassani and Shi, arXiv
        2209.15001, section 3).
        """
        size, dilation = self.size[axis], self.dilation[axis]
        found = []
        for token in range(side):
            place, offset = divmod(token, dilation)
            alike = len(range(offset, side, dilation))
            first = max(0, min(place - size // 2, alike - size))
            found.append(range(first * dilation + offset, side, dilation)[:size])
        return found


@dataclass(frozen=True, kw_only=True)
class NATSpec(Headed):
    """Neighbourhood attention (Hassani et al., arXiv 2204.07143, section 3.1), and dilated (arXiv 2209.15001).

    The defaults are the first stage of NAT-T at 224 pixels: 56×56 tokens, embedding dimension 64, 2 heads, 7×7 keys.

    Raises:
        UsageError: if a value is out of range or contradicts another one. dim must be divisible by heads. neighborhood
            must be odd, and neighborhood times dilation must not exceed the grid. The kernel must be eager.
    """

    name: ClassVar[str] = "nat"
    title: ClassVar[str] = "Neighbourhood attention"
    SUMMARY: ClassVar[str] = "Neighbourhood attention, as in NAT: the nearest tokens, plain or dilated."
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "attnscope nat --neighborhood 7",
        "attnscope nat --dilation 8 --no-time",
    )
    LOOKS_AT: ClassVar[str] = "the K×K tokens around it, or every δ-th token with a dilation of δ"
    GIVES_UP: ClassVar[str] = "distant tokens: the reach grows by K−1 tokens in each layer, times the dilation"
    PAPER: ClassVar[str] = (
        "Hassani et al., Neighborhood Attention Transformer, arXiv 2204.07143; dilated: arXiv 2209.15001"
    )
    SIZE_FIELD: ClassVar[str] = "resolution"
    PICTURED: ClassVar[tuple[str, ...]] = ("neighborhood", "dilation")
    kv_heads: ClassVar[None] = None  # type: ignore[misc]  # heads cannot share keys and values

    dim: int = option(64, "Embedding dimension.")
    heads: int = option(2, "Number of attention heads.")
    resolution: Pair = option((56, 56), "Grid size in tokens.")
    neighborhood: Pair = option((7, 7), "Size of the neighbourhood in tokens, K; must be odd.")
    dilation: Pair = option((1, 1), "Distance between two keys in tokens.")
    position_bias: bool = option(True, "Add a learned bias for the offset of each key.")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_heads()
        for side, size, dilation in zip(self.resolution, self.neighborhood, self.dilation, strict=True):
            if size % 2 == 0:
                raise UsageError(f"{{neighborhood}} must be odd (got {size}); nearest: {size - 1} or {size + 1}")
            if size > side:
                largest = side - 1 + side % 2
                raise UsageError(
                    f"{{neighborhood}} must not exceed {{resolution}} {side} (got {size}); largest: {largest}"
                )
            if size * dilation > side:
                raise UsageError(
                    f"{{neighborhood}} {size} times {{dilation}} must not exceed {{resolution}} {side} "
                    f"(got {{dilation}} {dilation}); largest: {side // size}"
                )
        if self.kernel != "eager":
            raise UsageError(f"{{kernel}} must be eager for neighbourhood attention (got {self.kernel})")

    @classmethod
    def candidates(cls, seen: Observed) -> Iterator[dict[str, Any]]:
        """Yield the fields for attention to the tokens around each query."""
        if seen.scope == NEIGHBOURHOOD:
            sizes = {"resolution": seen.sides, "neighborhood": seen.key_sides}
            yield {**sizes, "dim": seen.dim, "heads": seen.heads}

    @property
    def tokens(self) -> int:
        """Return the number of tokens of one image."""
        return self.resolution[0] * self.resolution[1]

    @property
    def neighbourhood(self) -> Nearest:
        """Return the K×K tokens around the query."""
        return Nearest(*self.resolution, self.neighborhood, self.dilation)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of the module's input, (b, height, width, c)."""
        return self.batch, *self.resolution, self.dim

    def headline(self) -> list[str]:
        """Describe this Spec in a few words each."""
        tokens, heads = f"{spell(self.resolution)} tokens", plural(self.heads, "head")
        return [tokens, f"dim {self.dim}", heads, self.neighbourhood.describe()]

    def closed_form(self) -> dict[str, int]:
        """Return the MACs of each step: 4NC² + 2K²NC in total."""
        b, N, C, keys = self.batch, self.tokens, self.dim, self.neighbourhood.keys
        attend = {"score": b * keys * N * C, "mix": b * keys * N * C}
        return {"project": 3 * b * N * C**2, **attend, "output": b * N * C**2}

    def complexity(self) -> Complexity:
        """Return the formulas of this attention and of global attention on the same tokens."""
        hw, C = symbol("hw", self.tokens), symbol("C", self.dim)
        keys = symbol("K²", self.neighbourhood.keys, spelled=(spell(self.neighborhood),))
        return Complexity(
            batch=self.batch,
            own=Term("Ω(NA)", projections(hw, C, C) + 2 * keys * hw * C),
            reference=global_attention(self.tokens, self.dim),
            saving="in a neighbourhood",
        )

    def cautions(self) -> list[str]:
        """Return a note that this module gathers keys and values, which a fused kernel does not."""
        return ["keys and values are gathered for each query, K² times their memory; natten's fused kernel avoids this"]

    def counterpart(self) -> ViTSpec:
        """Return global attention on the same tokens, the baseline for timing."""
        return on_the_same_tokens(self, self.tokens)

    def next_command(self) -> tuple[str, str]:
        """Return the suggested next command and the reason for it."""
        sizes = f"neighborhood={spell_pair(self.neighborhood, 'x')}"
        return (
            f"attnscope compare vit swin nat:{sizes} --resolution {spell_pair(self.resolution, 'x')}",
            "global attention and windows",
        )
