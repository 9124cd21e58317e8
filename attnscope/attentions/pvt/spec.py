"""Options of spatial-reduction attention, and its cost by the paper's formula."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from attnscope.attentions.complexity import Complexity, Term, global_attention, widths
from attnscope.attentions.heads import KV_HEADS, Headed
from attnscope.attentions.observed import TOKENS, Observed
from attnscope.attentions.spec import option
from attnscope.attentions.vit.spec import ViTSpec, on_the_same_tokens
from attnscope.core.axes import spell
from attnscope.core.errors import UsageError
from attnscope.core.formula import symbol
from attnscope.core.neighbourhood import AllTokens, Neighbourhood
from attnscope.core.sizes import Pair, plural, spell_pair

REDUCTION = 8
"""Default side of a patch: that of the first stage of PVT."""
POOLED = 7
"""Side of the grid of keys with average pooling (Wang et al., arXiv 2106.13797, section 3.1)."""
SAVING = "with the keys of a coarser grid"
"""Reason why this attention needs fewer MACs, as a phrase."""


@dataclass(frozen=True, slots=True)
class ReducedKeys(Neighbourhood):
    """Keys of a coarser grid: each represents a patch of tokens, and every query attends to all of them.

    Args:
        height, width: sides of the grid of tokens.
        grid: sides of the grid of keys.
        side: side of a patch; None if patches have any size, as in average pooling to a fixed grid.
    """

    kind: ClassVar[str] = "reduced"
    letter: ClassVar[str] = "M"
    field: ClassVar[str] = "reduction"
    cells: ClassVar[str] = "patches, each of which is one key"
    described: ClassVar[tuple[str, ...]] = ("reduction", "linear")

    height: int
    width: int
    grid: Pair
    side: int | None

    def describe(self, sized: bool = True) -> str:
        """Return a phrase such as `keys of 8×8 patches`."""
        if self.side is None:
            return f"{spell(self.grid)} pooled keys" if sized else "pooled keys"
        return f"keys of {self.side}×{self.side} patches" if sized else "keys of patches"

    @property
    def tokens(self) -> int:
        """Return the number of queries of one image: all tokens."""
        return self.height * self.width

    @property
    def keys(self) -> int:
        """Return the number of keys of a query."""
        return self.grid[0] * self.grid[1]

    @property
    def alignment(self) -> Pair:
        """Return the divisors of the sides of a grid for which every token is part of a key."""
        return self.side or 1, self.side or 1

    def cell(self, axis: int, place: int) -> int:
        """Return the number of the patch of a token along an axis."""
        return place // self.side if self.side else 0

    def reach(self, axis: int, side: int) -> Sequence[range]:
        """Return the tokens of all whole patches for each query along an axis."""
        return [range(side - side % (self.side or 1))] * side


@dataclass(frozen=True, kw_only=True)
class PVTSpec(Headed):
    """Attention to keys and values of a reduced grid (Wang et al., arXiv 2102.12122, section 3.3).

    The defaults are the first stage of PVT at 224 pixels: 56×56 tokens, embedding dimension 64, 1 head, patches of 8×8
    tokens. Tokens at the bottom and on the right that do not fill a patch are not part of any key. With `linear`, as in
    PVT v2-Li, average pooling gives 7×7 keys for every grid (arXiv 2106.13797, section 3.1).

    Raises:
        UsageError: if a value is out of range or contradicts another one. dim must be divisible by heads, and heads by
            kv_heads. reduction must not exceed the grid, and excludes linear.
    """

    name: ClassVar[str] = "pvt"
    title: ClassVar[str] = "PVT attention"
    SUMMARY: ClassVar[str] = "Spatial-reduction attention, as in PVT: keys of a coarser grid."
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "attnscope pvt --resolution 28 --dim 128 --heads 2 --reduction 4",
        "attnscope pvt --resolution 800x1333 --no-time",
        "attnscope pvt --linear --no-time",
    )
    LOOKS_AT: ClassVar[str] = "all tokens, but each key represents a patch of them"
    GIVES_UP: ClassVar[str] = "detail: the tokens of a patch share one key and one value"
    PAPER: ClassVar[str] = "Wang et al., Pyramid Vision Transformer, arXiv 2102.12122; PVT v2, arXiv 2106.13797"
    SIZE_FIELD: ClassVar[str] = "resolution"
    PICTURED: ClassVar[tuple[str, ...]] = ("reduction", "linear")

    dim: int = option(64, "Embedding dimension.")
    heads: int = option(1, "Number of attention heads.")
    kv_heads: int | None = option(None, KV_HEADS, shown="heads")
    resolution: Pair = option((56, 56), "Grid size in tokens.")
    reduction: int | None = option(
        None, "Side of the patch of tokens reduced to one key/value token; 1 is global attention.", shown="8"
    )
    linear: bool = option(False, "Average the tokens to 7×7 key/value tokens instead, as in PVT v2-Li.")

    def __post_init__(self) -> None:
        if self.reduction is None and not self.linear:
            object.__setattr__(self, "reduction", REDUCTION)
        super().__post_init__()
        self.check_heads()
        if self.linear and self.reduction is not None:
            raise UsageError("{linear} and {reduction} both set the number of keys; give one of them")
        if self.reduction is not None and self.reduction > min(self.resolution):
            grid, largest = spell_pair(self.resolution, "x"), min(self.resolution)
            raise UsageError(
                f"{{reduction}} must not exceed {{resolution}} {grid} (got {self.reduction}); largest: {largest}"
            )

    @classmethod
    def contradictions(cls, given: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return linear and reduction as a pair if both set the number of keys."""
        return [("linear", "reduction")] if given.get("linear") and given.get("reduction") is not None else []

    @classmethod
    def candidates(cls, seen: Observed) -> Iterator[dict[str, Any]]:
        """Yield the fields for attention to the keys of a coarser grid."""
        if (
            seen.scope != TOKENS
            or seen.windows > 1
            or seen.is_global
            or seen.is_other
            or not seen.sides
            or not seen.key_sides
        ):
            return
        sizes = {"resolution": seen.sides, "dim": seen.dim, "heads": seen.heads}
        yield {**sizes, "reduction": seen.sides[0] // seen.key_sides[0]}
        if seen.key_sides == (POOLED, POOLED):
            yield {**sizes, "linear": True}

    @property
    def tokens(self) -> int:
        """Return the number of tokens of one image: the queries."""
        return self.resolution[0] * self.resolution[1]

    @property
    def reduces(self) -> bool:
        """Return whether keys and values come from another grid than the queries."""
        return self.reduction != 1

    @property
    def reduced(self) -> Pair:
        """Return the grid of keys and values: whole patches down and across, or 7×7 with average pooling."""
        if self.reduction is None:
            return POOLED, POOLED
        return self.resolution[0] // self.reduction, self.resolution[1] // self.reduction

    @property
    def is_filled(self) -> bool:
        """Return whether whole patches fill the grid of tokens."""
        return not any(side % (self.reduction or POOLED) for side in self.resolution)

    @property
    def keys(self) -> int:
        """Return the number of keys of one image."""
        return self.reduced[0] * self.reduced[1]

    @property
    def neighbourhood(self) -> Neighbourhood:
        """Return the keys of the coarser grid, or all tokens without a reduction."""
        if not self.reduces:
            return AllTokens(self.tokens)
        return ReducedKeys(*self.resolution, self.reduced, self.reduction)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of the module's input, (b, n, c)."""
        return self.batch, self.tokens, self.dim

    def headline(self) -> list[str]:
        """Describe this Spec in a few words each."""
        heads = [plural(self.heads, "head"), *self.shared_heads()]
        return [f"{spell(self.resolution)} tokens", f"{spell(self.reduced)} keys", f"dim {self.dim}", *heads]

    def is_in(self, library: str) -> bool:
        """Return whether a library has these options: no keys and values that heads share."""
        return not self.is_grouped

    def closed_form(self) -> dict[str, int]:
        """Return the MACs of each step: 2NC² + M·R²C²[R>1] + 2MC² + 2NMC in total, for M = ⌊h/R⌋⌊w/R⌋ keys.

        With average pooling M = 49 and R = 1. If heads share keys and values of dimension G, 2MCG replaces 2MC².
        """
        b, N, M, C, G = self.batch, self.tokens, self.keys, self.dim, self.kv_dim
        reduce = {"reduce": b * M * self.reduction**2 * C**2} if self.reduction else {"mix_channels": b * M * C**2}
        attend = {"score": b * N * M * C, "mix": b * N * M * C}
        if self.kernel != "eager":
            attend = {"attend": sum(attend.values())}
        projections = {"project_queries": b * N * C**2, "project_context": 2 * b * M * C * G}
        return {**(reduce if self.reduces else {}), **projections, **attend, "output": b * N * C**2}

    def complexity(self) -> Complexity:
        """Return the formulas of this attention and of global attention on the same tokens."""
        reference = global_attention(self.tokens, self.dim, self.kv_dim)
        if not self.reduces:
            return Complexity(self.batch, reference, reference, SAVING)
        hw, M, (C, G) = symbol("hw", self.tokens), symbol("M", self.keys), widths(self.dim, self.kv_dim)
        reduce = M * C**2 if self.reduction is None else M * symbol("R", self.reduction) ** 2 * C**2
        return Complexity(
            batch=self.batch,
            own=Term("Ω(SRA)", 2 * hw * C**2 + reduce + 2 * M * G * C + 2 * hw * M * C),
            reference=reference,
            saving=SAVING,
        )

    def cautions(self) -> list[str]:
        """Return a note about tokens that are not part of any key, or about keys that share tokens."""
        height, width = self.resolution
        if self.reduction is None:
            if min(self.resolution) < POOLED:
                return [f"a side of the grid is below {POOLED}, so that some keys are averages of the same tokens"]
            return []
        left = height * width - self.keys * self.reduction**2
        if not left:
            return []
        side = self.reduction
        return [
            f"{plural(left, 'token')} at the bottom and on the right are in no key, "
            f"because they do not fill a patch of {side}×{side}"
        ]

    def counterpart(self) -> ViTSpec | None:
        """Return global attention on the same tokens, the baseline for timing, or None without a reduction."""
        if not self.reduces:
            return None
        return on_the_same_tokens(self, self.tokens)

    def next_command(self) -> tuple[str, str]:
        """Return the suggested next command and the reason for it."""
        grid = spell_pair(self.resolution, "x")
        value = "linear" if self.reduction is None else f"reduction={self.reduction}"
        return f"attnscope compare vit pvt:{value} --resolution {grid}", "global attention on these tokens"
