"""Options of locally-grouped attention, and its cost by the paper's formula."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, ClassVar

from attnscope.attentions.complexity import Complexity, Term, global_attention, padded_tokens, window_keys
from attnscope.attentions.heads import Headed
from attnscope.attentions.observed import Observed
from attnscope.attentions.spec import option
from attnscope.attentions.vit.spec import ViTSpec, on_the_same_tokens
from attnscope.core.axes import spell
from attnscope.core.formula import symbol
from attnscope.core.sizes import Pair, plural, spell_pair
from attnscope.core.windows import Windows


@dataclass(frozen=True, kw_only=True)
class TwinsSpec(Headed):
    """Locally-grouped self-attention, LSA (Chu et al., arXiv 2104.13840, section 3.2): attention in windows.

    The defaults are the first stage of Twins-SVT-S at 224 pixels: 56×56 tokens, embedding dimension 64, 2 heads, 7×7
    windows. If the window does not divide the grid, the grid is padded; the padding takes part in the softmax.

    Raises:
        UsageError: if a value is out of range. dim must be divisible by heads.
    """

    name: ClassVar[str] = "twins"
    title: ClassVar[str] = "Twins attention"
    SUMMARY: ClassVar[str] = "Locally-grouped attention, as in Twins: windows without a shift or a position bias."
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "attnscope twins --resolution 28 --dim 128 --heads 4 --window 7",
        "attnscope twins --resolution 50x60 --no-time",
    )
    LOOKS_AT: ClassVar[str] = "the tokens of its window"
    GIVES_UP: ClassVar[str] = "exchange between windows, which the sub-sampled global attention of the next block adds"
    PAPER: ClassVar[str] = "Chu et al., Twins: Revisiting the Design of Spatial Attention, arXiv 2104.13840"
    SIZE_FIELD: ClassVar[str] = "resolution"
    PICTURED: ClassVar[tuple[str, ...]] = ("window",)
    kv_heads: ClassVar[None] = None  # type: ignore[misc]  # heads cannot share keys and values

    dim: int = option(64, "Embedding dimension.")
    heads: int = option(2, "Number of attention heads.")
    resolution: Pair = option((56, 56), "Grid size in tokens.")
    window: Pair = option((7, 7), "Window size in tokens.")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_heads()

    @classmethod
    def candidates(cls, seen: Observed) -> Iterator[dict[str, Any]]:
        """Yield the fields for attention in windows of a plane without a position bias or a mask."""
        if seen.is_windowed and not seen.is_dilated and not seen.is_biased:
            yield {"resolution": seen.sides, "window": seen.window, "dim": seen.dim, "heads": seen.heads}

    @cached_property
    def windows(self) -> Windows:
        """Return the geometry of the windows: padding and counts."""
        return Windows(*self.resolution, self.window)

    @property
    def neighbourhood(self) -> Windows:
        """Return the tokens of the query's window."""
        return self.windows

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of the module's input, (b, n, c)."""
        return self.batch, prod(self.resolution), self.dim

    def headline(self) -> list[str]:
        """Describe this Spec in a few words each."""
        window = f"window {spell_pair(self.window)}"
        return [f"{spell(self.resolution)} tokens", f"dim {self.dim}", plural(self.heads, "head"), window]

    def is_in(self, library: str) -> bool:
        """Return whether the options are those of timm: square windows, and a bias of q, k and v."""
        height, width = self.window
        return self.qkv_bias and height == width > 1

    def closed_form(self) -> dict[str, int]:
        """Return the MACs of each step: 3nC² + NC² + 2M²nC in total, where n includes the padding and N does not."""
        b, n, N, C, M2 = self.batch, self.windows.tokens, prod(self.resolution), self.dim, self.windows.keys
        attend = {"score": b * M2 * n * C, "mix": b * M2 * n * C}
        if self.kernel != "eager":
            attend = {"attend": sum(attend.values())}
        return {"project": 3 * b * n * C**2, **attend, "output": b * N * C**2}

    def complexity(self) -> Complexity:
        """Return the formulas of this attention and of global attention on the same tokens."""
        tokens = prod(self.resolution)
        hw, padded, C = symbol("hw", tokens), padded_tokens((tokens,), (self.windows.tokens,)), symbol("C", self.dim)
        own = 3 * padded * C**2 + hw * C**2 + 2 * window_keys(self.window) * padded * C
        return Complexity(self.batch, Term("Ω(LSA)", own), global_attention(tokens, self.dim), saving="in windows")

    def cautions(self) -> list[str]:
        """Return a note about padding."""
        return self.windows.padding_notes()

    def counterpart(self) -> ViTSpec:
        """Return global attention on the same tokens, the baseline for timing."""
        return on_the_same_tokens(self, prod(self.resolution))

    def next_command(self) -> tuple[str, str]:
        """Return the suggested next command and the reason for it."""
        resolution = spell_pair(self.resolution, "x")
        own = f"--dim {self.dim} --heads {self.heads} --resolution {resolution}"
        return f"attnscope compare twins pvt {own}", "the sub-sampled attention that follows it"
