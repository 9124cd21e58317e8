"""Options of mask unit attention, and its cost by formula."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any, ClassVar

from attnscope.attentions.complexity import Complexity, Term, global_attention
from attnscope.attentions.heads import Headed
from attnscope.attentions.observed import TOKENS, Observed
from attnscope.attentions.spec import option
from attnscope.attentions.vit.spec import ViTSpec, on_the_same_tokens
from attnscope.core.axes import spell
from attnscope.core.errors import UsageError, divisors_near, nearest_divisors, nearest_multiples
from attnscope.core.formula import symbol
from attnscope.core.neighbourhood import AllTokens, Neighbourhood
from attnscope.core.sizes import Pair, check_divisible, plural, spell_pair, spell_sides


@dataclass(frozen=True, slots=True)
class MaskUnits(Neighbourhood):
    """The tokens of the query's mask unit, a window; each query is the maximum of a cell of stride × stride tokens.

    Args:
        height, width: sides of the grid of tokens.
        unit: sides of a mask unit in tokens.
        stride: side of a cell of tokens that gives one query.
    """

    kind: ClassVar[str] = "mask unit"
    field: ClassVar[str] = "window"
    cells: ClassVar[str] = "mask units"
    described: ClassVar[tuple[str, ...]] = ("window", "q_stride")

    height: int
    width: int
    unit: Pair
    stride: int

    def describe(self, sized: bool = True) -> str:
        """Return a phrase such as `8×8 mask units, queries of 2×2 tokens`."""
        units = f"{spell(self.unit)} mask units" if sized else "mask units"
        return units if self.stride == 1 else f"{units}, queries of {self.stride}×{self.stride} tokens"

    @property
    def tokens(self) -> int:
        """Return the number of queries of one image."""
        return self.height * self.width // self.stride**2

    @property
    def keys(self) -> int:
        """Return the number of keys of a query: the tokens of its unit."""
        return self.unit[0] * self.unit[1]

    @property
    def alignment(self) -> Pair:
        """Return the sides of a unit, which must divide those of the grid."""
        return self.unit

    def queries(self, sides: tuple[int, ...]) -> tuple[int, ...]:
        """Return the sides of the grid of queries."""
        return tuple([side // self.stride for side in sides])

    def cell(self, axis: int, place: int) -> int:
        """Return the number of the unit of a token along an axis."""
        return place // self.unit[axis]

    def reach(self, axis: int, side: int) -> Sequence[range]:
        """Return the tokens of its unit for each query along an axis."""
        unit = self.unit[axis]
        starts = [query * self.stride // unit * unit for query in range(side)]
        return [range(start, start + unit) for start in starts]


@dataclass(frozen=True, kw_only=True)
class HieraSpec(Headed):
    """Attention in mask units with pooled queries (Ryali et al., arXiv 2306.00989, section 3).

    The defaults are the first block of the second stage of Hiera-T at 224 pixels. It has 56×56 tokens, 96 to 192
    channels, 2 heads, mask units of 8×8 tokens, and queries pooled by 2×2.

    Raises:
        UsageError: if a value is out of range or contradicts another one. out_dim must be divisible by heads, the grid
            by the mask unit, and the mask unit by the stride.
    """

    name: ClassVar[str] = "hiera"
    title: ClassVar[str] = "Hiera attention"
    SUMMARY: ClassVar[str] = "Mask unit attention, as in Hiera: windows with pooled queries."
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "attnscope hiera --window 8 --q-stride 2",
        "attnscope hiera --resolution 14 --dim 384 --out-dim 384 --heads 4 --window 0 --q-stride 1 --no-time",
    )
    LOOKS_AT: ClassVar[str] = "the tokens of its mask unit, or all tokens in the last stages"
    GIVES_UP: ClassVar[str] = "positions and shifts: the order of tokens matters only through the embeddings"
    PAPER: ClassVar[str] = "Ryali et al., Hiera, arXiv 2306.00989"
    SIZE_FIELD: ClassVar[str] = "resolution"
    PICTURED: ClassVar[tuple[str, ...]] = ("window", "q_stride")
    kv_heads: ClassVar[None] = None  # type: ignore[misc]  # heads cannot share keys and values

    dim: int = option(96, "Embedding dimension of the input.")
    out_dim: int = option(192, "Embedding dimension of queries, keys, values and the output.", follows="dim")
    heads: int = option(2, "Number of attention heads.")
    resolution: Pair = option((56, 56), "Grid size in tokens.")
    window: Pair = option((8, 8), "Size of a mask unit in tokens; 0 is global attention.", low=0)
    q_stride: int = option(2, "Side of the cell of tokens whose maximum is one query.")
    qk_scale: float | None = option(None, "Scale of q·kᵀ.", low=0.0, shown="1/√(out_dim/heads)")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.out_dim % self.heads:
            nearest = f"{nearest_multiples(self.out_dim, self.heads)}, or {{heads}} "
            nearest += nearest_divisors(self.heads, self.out_dim)
            raise UsageError(
                f"{{out_dim}} must be divisible by {{heads}} {self.heads} (got {self.out_dim}); nearest: {nearest}"
            )
        if any(self.window) and not all(self.window):
            raise UsageError(f"{{window}} must be 0 or at least 1 on both axes (got {spell_pair(self.window, 'x')})")
        stride = self.q_stride, self.q_stride
        if self.is_global:
            check_divisible("resolution", self.resolution, stride, by="q_stride")
        else:
            self.check_window()
            check_divisible("resolution", self.resolution, self.window, by="window")

    def check_window(self) -> None:
        """Check that a mask unit has whole cells.

        Raises:
            UsageError: it has not; the nearest windows divide the grid too, if any of them do.
        """
        if not any(side % self.q_stride for side in self.window):
            return
        near = [self.sides_near(*each) for each in zip(self.window, self.resolution, strict=True)]
        nearest = " or ".join(dict.fromkeys(spell_sides(window, "x") for window in zip(*near, strict=True)))
        raise UsageError(
            f"{{window}} must be divisible by {{q_stride}} {self.q_stride} "
            f"(got {spell_sides(self.window, 'x')}); nearest: {nearest}"
        )

    def sides_near(self, side: int, whole: int) -> tuple[int, int]:
        """Return the sides of windows with whole cells nearest to a side, below and above it.

        They divide the side `whole` of the grid, if any of them do.
        """
        if side % self.q_stride == whole % side == 0:
            return side, side
        below, above = divisors_near(side, whole, self.q_stride)
        if not (below or above):
            below = side // self.q_stride * self.q_stride
            above = below + self.q_stride
        return below or above, above or below

    @classmethod
    def candidates(cls, seen: Observed) -> Iterator[dict[str, Any]]:
        """Yield the fields for attention to more keys than there are queries, which are pooled."""
        stride = isqrt((seen.keys or 0) // seen.tokens)
        if seen.scope != TOKENS or seen.is_other or stride < 2 or not seen.sides:
            return
        resolution, window = (tuple(side * stride for side in sides) for sides in (seen.sides, seen.window or (0, 0)))
        sizes = {"resolution": resolution, "window": window, "q_stride": stride}
        yield {**sizes, "dim": seen.dim, "out_dim": seen.inner_dim, "heads": seen.heads}

    @property
    def score_scale(self) -> float:
        """Return the factor of q·kᵀ: `qk_scale`, or 1/√d with d = C′/h."""
        return (self.out_dim // self.heads) ** -0.5 if self.qk_scale is None else self.qk_scale

    @property
    def is_global(self) -> bool:
        """Return whether the keys of a query are all tokens."""
        return not any(self.window)

    @property
    def units(self) -> MaskUnits:
        """Return the geometry of the mask units; global attention has one unit of the size of the grid."""
        return MaskUnits(*self.resolution, self.resolution if self.is_global else self.window, self.q_stride)

    @property
    def neighbourhood(self) -> Neighbourhood:
        """Return the tokens of the query's mask unit, or all tokens if queries are not pooled either."""
        tokens = self.resolution[0] * self.resolution[1]
        return AllTokens(tokens) if self.is_global and self.q_stride == 1 else self.units

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of the module's input, (b, height, width, c)."""
        return self.batch, *self.resolution, self.dim

    def headline(self) -> list[str]:
        """Describe this Spec in a few words each."""
        dims = f"dim {self.dim}" if self.dim == self.out_dim else f"dim {self.dim} to {self.out_dim}"
        reach = "global" if self.is_global else self.neighbourhood.describe()
        return [f"{spell(self.resolution)} tokens", dims, plural(self.heads, "head"), reach]

    def is_in(self, library: str) -> bool:
        """Return whether the options are those of timm; to it, attention in a single unit is not global attention."""
        return self.qkv_bias and (self.is_global or self.units.unit != self.resolution)

    def closed_form(self) -> dict[str, int]:
        """Return the MACs of each step: 3NCC′ + 2(N/s)·M·C′ + (N/s)C′² in total, for s pooled tokens and M keys."""
        b, C, D, M = self.batch, self.dim, self.out_dim, self.units.keys
        N, queries = self.resolution[0] * self.resolution[1], self.units.tokens
        attend = {"score": b * queries * M * D, "mix": b * queries * M * D}
        if self.kernel != "eager":
            attend = {"attend": sum(attend.values())}
        return {"project": 3 * b * N * C * D, **attend, "output": b * queries * D**2}

    def complexity(self) -> Complexity:
        """Return the formulas of this attention and of global attention of the same width on the same tokens."""
        tokens = self.resolution[0] * self.resolution[1]
        hw, C, D = symbol("hw", tokens), symbol("C", self.dim), symbol("C′", self.out_dim)
        n, M = symbol("n", self.units.tokens), symbol("M", self.units.keys)
        return Complexity(
            batch=self.batch,
            own=Term("Ω(MUA)", 3 * hw * C * D + 2 * n * M * D + n * D**2),
            reference=global_attention(tokens, self.out_dim),
            saving="with pooled queries" if self.is_global else "in mask units",
        )

    def counterpart(self) -> ViTSpec:
        """Return global attention of the input's width on the same tokens, the baseline for timing."""
        return on_the_same_tokens(self, self.resolution[0] * self.resolution[1])

    def next_command(self) -> tuple[str, str]:
        """Return the suggested next command and the reason for it."""
        if not self.is_global:
            return self.command(window=(0, 0)), "the same with keys from the whole image"
        return f"attnscope compare vit hiera --resolution {spell_pair(self.resolution, 'x')}", "the cost"
