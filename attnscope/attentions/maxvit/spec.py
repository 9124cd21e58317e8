"""Options of MaxViT's block and grid attention, and their cost by the paper's formula."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from attnscope.attentions.complexity import GRID, Complexity, global_attention, windowed_attention
from attnscope.attentions.heads import Headed
from attnscope.attentions.observed import Observed
from attnscope.attentions.spec import option
from attnscope.attentions.vit.spec import ViTSpec, on_the_same_tokens
from attnscope.core.axes import spell
from attnscope.core.neighbourhood import Neighbourhood
from attnscope.core.sizes import Pair, check_divisible, plural, spell_pair
from attnscope.core.windows import Windows


@dataclass(frozen=True, slots=True)
class SparseGrid(Neighbourhood):
    """Keys at a fixed stride over the whole image: P×P tokens, a stride of height/P down and width/P across."""

    kind: ClassVar[str] = "grid"
    letter: ClassVar[str] = "M²"
    field: ClassVar[str] = "partition"
    cells: ClassVar[str] = "cells, each of which has one key"
    described: ClassVar[tuple[str, ...]] = ("partition", "grid")

    height: int
    width: int
    partition: Pair

    def describe(self, sized: bool = True) -> str:
        """Return a phrase such as `7×7 grid, stride 8×8`."""
        return f"{spell(self.partition)} grid, stride {spell(self.stride)}" if sized else "sparse grid"

    @property
    def stride(self) -> Pair:
        """Return the distance between two keys, down and across."""
        return self.height // self.partition[0], self.width // self.partition[1]

    @property
    def tokens(self) -> int:
        """Return the number of tokens of one image."""
        return self.height * self.width

    @property
    def keys(self) -> int:
        """Return the number of keys of a query, P²."""
        return self.partition[0] * self.partition[1]

    @property
    def alignment(self) -> Pair:
        """Return the partition: its sides must divide those of the grid."""
        return self.partition

    def cell(self, axis: int, place: int) -> int:
        """Return the number of the cell of a token along an axis; each cell has one key of a query."""
        return place // self.stride[axis]

    def reach(self, axis: int, side: int) -> Sequence[range]:
        """Return, for each query along an axis, the tokens at its offset in each cell."""
        stride = side // self.partition[axis]
        return [range(token % stride, side, stride) for token in range(side)]


@dataclass(frozen=True, slots=True)
class Blocks(Windows):
    """Blocks of P×P neighbouring tokens."""

    field: ClassVar[str] = "partition"
    described: ClassVar[tuple[str, ...]] = ("partition", "grid")


@dataclass(frozen=True, kw_only=True)
class MaxViTSpec(Headed):
    """Block attention and grid attention of MaxViT (Tu et al., arXiv 2204.01697, section 3.2).

    The defaults are the first stage of MaxViT-T at 224 pixels: 56×56 tokens, embedding dimension 64, 2 heads of 32
    channels, blocks of 7×7 tokens.

    Raises:
        UsageError: if a value is out of range or contradicts another one. dim must be divisible by heads, and the grid
            of tokens by the partition.
    """

    name: ClassVar[str] = "maxvit"
    title: ClassVar[str] = "MaxViT attention"
    SUMMARY: ClassVar[str] = "Block and grid attention, as in MaxViT."
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "attnscope maxvit --partition 7 --grid",
        "attnscope maxvit --resolution 28 --dim 128 --heads 4 --no-time",
    )
    LOOKS_AT: ClassVar[str] = "a block of P×P neighbouring tokens, or P×P tokens at a fixed stride over the whole image"
    GIVES_UP: ClassVar[str] = "either near or distant tokens: a layer of each kind is needed for both"
    PAPER: ClassVar[str] = "Tu et al., MaxViT: Multi-Axis Vision Transformer, arXiv 2204.01697"
    SIZE_FIELD: ClassVar[str] = "resolution"
    PICTURED: ClassVar[tuple[str, ...]] = ("partition", "grid")
    kv_heads: ClassVar[None] = None  # type: ignore[misc]  # heads cannot share keys and values

    dim: int = option(64, "Embedding dimension.")
    heads: int = option(2, "Number of attention heads.")
    resolution: Pair = option((56, 56), "Grid size in tokens.")
    partition: Pair = option((7, 7), "Size of a block in tokens; with --grid, number of keys down and across.")
    grid: bool = option(False, "Attend to a sparse grid over the whole image instead of a block.")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_heads()
        check_divisible("resolution", self.resolution, self.partition, by="partition")

    @classmethod
    def candidates(cls, seen: Observed) -> Iterator[dict[str, Any]]:
        """Yield the fields for grid attention; blocks are plain windows."""
        if seen.is_windowed and seen.is_dilated:
            sizes = {"resolution": seen.sides, "partition": seen.window, "grid": True}
            yield {**sizes, "dim": seen.dim, "heads": seen.heads}

    @property
    def tokens(self) -> int:
        """Return the number of tokens of one image."""
        return self.resolution[0] * self.resolution[1]

    @property
    def counts(self) -> Pair:
        """Return the number of blocks down and across, which is the stride of the grid."""
        return self.resolution[0] // self.partition[0], self.resolution[1] // self.partition[1]

    @property
    def neighbourhood(self) -> Neighbourhood:
        """Return the tokens of the query's block, or those of its sparse grid."""
        return (SparseGrid if self.grid else Blocks)(*self.resolution, self.partition)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of the module's input, (b, height, width, c)."""
        return self.batch, *self.resolution, self.dim

    def headline(self) -> list[str]:
        """Describe this Spec in a few words each."""
        kind = "grid" if self.grid else "block"
        tokens, keys = f"{spell(self.resolution)} tokens", f"{kind} {spell_pair(self.partition)}"
        return [tokens, f"dim {self.dim}", plural(self.heads, "head"), keys]

    def is_in(self, library: str) -> bool:
        """Return whether the options are those of timm, whose ports always have a bias of q, k and v."""
        return self.qkv_bias

    def closed_form(self) -> dict[str, int]:
        """Return the MACs of each step: 4NC² + 2P²NC in total."""
        b, N, C, keys = self.batch, self.tokens, self.dim, self.partition[0] * self.partition[1]
        attend = {"score": b * keys * N * C, "mix": b * keys * N * C}
        if self.kernel != "eager":
            attend = {"attend": sum(attend.values())}
        return {"project": 3 * b * N * C**2, **attend, "output": b * N * C**2}

    def complexity(self) -> Complexity:
        """Return the formulas of this attention and of global attention on the same tokens."""
        name = GRID if self.grid else "Ω(block)"
        return Complexity(
            batch=self.batch,
            own=windowed_attention(self.tokens, self.dim, self.partition, name=name),
            reference=global_attention(self.tokens, self.dim),
            saving="in a sparse grid" if self.grid else "in blocks",
        )

    def counterpart(self) -> ViTSpec:
        """Return global attention on the same tokens, the baseline for timing."""
        return on_the_same_tokens(self, self.tokens)

    def next_command(self) -> tuple[str, str]:
        """Return the suggested next command and the reason for it."""
        if self.grid:
            return (
                f"attnscope compare vit maxvit maxvit:grid --resolution {spell_pair(self.resolution, 'x')}",
                "the cost",
            )
        return f"{self.command(grid=True)}", "the same cost, but keys from the whole image"
