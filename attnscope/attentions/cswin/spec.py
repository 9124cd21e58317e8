"""Options of cross-shaped window attention, and its cost by the paper's formula."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd
from typing import Any, ClassVar

from attnscope.attentions.complexity import Complexity, Term, global_attention, projections
from attnscope.attentions.heads import Headed
from attnscope.attentions.observed import CROSS, Observed
from attnscope.attentions.spec import option
from attnscope.attentions.vit.spec import ViTSpec, on_the_same_tokens
from attnscope.core.axes import spell
from attnscope.core.errors import UsageError, nearest_divisors, nearest_multiples
from attnscope.core.formula import symbol
from attnscope.core.neighbourhood import AllTokens, Neighbourhood
from attnscope.core.sizes import Pair, check_divisible, plural, spell_pair
from attnscope.core.windows import Windows

LEPE_TAPS = 9
"""Weights of a channel of the positional encoding, a convolution of 3×3."""


@dataclass(frozen=True, slots=True)
class CrossOfStripes(Neighbourhood):
    """The vertical and the horizontal stripe through the query; each is for half of the heads."""

    kind: ClassVar[str] = "cross-shaped"
    field: ClassVar[str] = "stripe"
    described: ClassVar[tuple[str, ...]] = ("stripe",)

    height: int
    width: int
    stripe: int

    def describe(self, sized: bool = True) -> str:
        """Return a phrase such as `cross of stripes, 7 wide`."""
        return f"cross of stripes, {self.stripe} wide" if sized else "cross of stripes"

    @property
    def tokens(self) -> int:
        """Return the number of tokens of one image."""
        return self.height * self.width

    @property
    def keys(self) -> int:
        """Return the number of tokens of the cross, s(h + w) − s²: the stripes share the square where they meet."""
        return self.stripe * (self.height + self.width - self.stripe)

    @property
    def parts(self) -> tuple[Windows, Windows]:
        """Return the vertical and the horizontal stripes, which are windows as long as the grid."""
        vertical, horizontal = (self.height, self.stripe), (self.stripe, self.width)
        return Windows(self.height, self.width, vertical), Windows(self.height, self.width, horizontal)

    @property
    def alignment(self) -> Pair:
        """Return the width of a stripe, which must divide both sides of the grid."""
        return self.stripe, self.stripe


@dataclass(frozen=True, kw_only=True)
class CSWinSpec(Headed):
    """Cross-shaped window attention with LePE (Dong et al., arXiv 2107.00652, sections 3.2 and 3.3).

    The defaults are the first stage of CSWin-T at 224 pixels: 56×56 tokens, embedding dimension 64, 2 heads, stripes
    one token wide.

    Raises:
        UsageError: if a value is out of range or contradicts another one. dim must be divisible by heads, the grid by
            the stripe, and heads by 2 unless one stripe is the whole grid.
    """

    name: ClassVar[str] = "cswin"
    title: ClassVar[str] = "CSWin attention"
    SUMMARY: ClassVar[str] = "Cross-shaped windows, as in CSWin: vertical and horizontal stripes."
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "attnscope cswin --stripe 1",
        "attnscope cswin --resolution 14 --dim 256 --heads 8 --stripe 7 --no-time",
    )
    LOOKS_AT: ClassVar[str] = (
        "a cross: the vertical stripe through it in half of the heads, the horizontal one in the others"
    )
    GIVES_UP: ClassVar[str] = "tokens off the cross, which two layers in a row reach"
    PAPER: ClassVar[str] = "Dong et al., CSWin Transformer, arXiv 2107.00652"
    PICTURED: ClassVar[tuple[str, ...]] = ("stripe",)
    SIZE_FIELD: ClassVar[str] = "resolution"
    kv_heads: ClassVar[None] = None  # type: ignore[misc]  # heads cannot share keys and values

    dim: int = option(64, "Embedding dimension.")
    heads: int = option(2, "Number of attention heads.")
    resolution: Pair = option((56, 56), "Grid size in tokens.")
    stripe: int = option(1, "Width of a stripe in tokens; the side of the grid is global attention.")

    def __post_init__(self) -> None:
        super().__post_init__()
        directions = len(self.stripes)
        if self.heads % directions:
            nearest = nearest_divisors(self.heads, self.dim, directions) or nearest_multiples(self.heads, directions)
            raise UsageError(
                f"{{heads}} must be even, half of them for each direction of the stripes (got {self.heads}); "
                f"nearest: {nearest}"
            )
        self.check_heads()
        common = gcd(*self.resolution)
        if common % self.stripe:
            stripes = f", or {{stripe}} {nearest_divisors(self.stripe, common)}"
            check_divisible("resolution", self.resolution, (self.stripe, self.stripe), by="stripe", more=stripes)

    @classmethod
    def candidates(cls, seen: Observed) -> Iterator[dict[str, Any]]:
        """Yield the fields for attention in a vertical and a horizontal stripe; one stripe may be the whole grid."""
        stripes = seen.sides if seen.is_global else seen.window if seen.scope == CROSS else None
        if stripes and len({*stripes}) == 1:
            yield {"resolution": seen.sides, "stripe": stripes[0], "dim": seen.dim, "heads": seen.heads}

    @property
    def tokens(self) -> int:
        """Return the number of tokens of one image."""
        return self.resolution[0] * self.resolution[1]

    @property
    def stripes(self) -> tuple[Pair, ...]:
        """Return the height and width of a stripe of each branch: vertical and horizontal, or once the whole grid."""
        height, width = self.resolution
        return tuple(dict.fromkeys([(height, self.stripe), (self.stripe, width)]))

    @property
    def neighbourhood(self) -> Neighbourhood:
        """Return the cross of two stripes, or all tokens if one stripe is the whole grid."""
        return CrossOfStripes(*self.resolution, self.stripe) if len(self.stripes) > 1 else AllTokens(self.tokens)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of the module's input, (b, height, width, c)."""
        return self.batch, *self.resolution, self.dim

    def headline(self) -> list[str]:
        """Describe this Spec in a few words each."""
        tokens, heads = f"{spell(self.resolution)} tokens", plural(self.heads, "head")
        return [tokens, f"dim {self.dim}", heads, self.neighbourhood.describe()]

    def closed_form(self) -> dict[str, int]:
        """Return the MACs of each step: 4NC² + NC·s(h + w) + 9NC in total; 4NC² + 2N²C + 9NC if a stripe is the grid.

        Each branch has an equal part of the C channels.
        """
        b, N, C = self.batch, self.tokens, self.dim
        macs = {"project": 3 * b * N * C**2}
        for index, (height, width) in enumerate(self.stripes):
            part = b * N * C // len(self.stripes)
            attend = {"score": part * height * width, "mix": part * height * width}
            if self.kernel != "eager":
                attend = {"attend": sum(attend.values())}
            macs |= {f"attns.{index}.{name}": cost for name, cost in (attend | {"encode": LEPE_TAPS * part}).items()}
        return macs | {"output": b * N * C**2}

    def complexity(self) -> Complexity:
        """Return the formulas of this attention and of global attention on the same tokens."""
        hw, C = symbol("hw", self.tokens), symbol("C", self.dim)
        s, h, w = symbol("s", self.stripe), *map(symbol, "hw", self.resolution)
        attend = s * (h + w) * hw * C if len(self.stripes) > 1 else 2 * hw**2 * C
        return Complexity(
            batch=self.batch,
            own=Term("Ω(CSWin)", projections(hw, C, C) + attend + LEPE_TAPS * hw * C),
            reference=global_attention(self.tokens, self.dim),
            saving="in stripes",
        )

    def counterpart(self) -> ViTSpec:
        """Return global attention on the same tokens, the baseline for timing."""
        return on_the_same_tokens(self, self.tokens)

    def next_command(self) -> tuple[str, str]:
        """Return the suggested next command and the reason for it."""
        own = f"--dim {self.dim} --heads {self.heads} --resolution {spell_pair(self.resolution, 'x')}"
        return f"attnscope compare vit swin cswin:stripe={self.stripe} {own}", "global attention and windows"
