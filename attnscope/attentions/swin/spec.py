"""Options of Swin's attention, and its cost by the paper's formula."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from attnscope.attentions.complexity import Complexity, global_attention, windowed_attention
from attnscope.attentions.heads import KV_HEADS
from attnscope.attentions.observed import Observed
from attnscope.attentions.spec import option
from attnscope.attentions.windowed import Windowed
from attnscope.core.sizes import Pair
from attnscope.core.windows import LARGEST_DRAWN, Windows


@dataclass(frozen=True, kw_only=True)
class SwinSpec(Windowed):
    """Multi-head self-attention in windows, W-MSA, and in shifted windows, SW-MSA (Liu et al., arXiv 2103.14030, 3.2).

    The defaults are the first stage of Swin-T at 224 pixels: 56×56 tokens, embedding dimension 96, 3 heads, 7×7
    windows.

    Raises:
        UsageError: if a value is out of range or contradicts another one. dim must be divisible by heads, and heads by
            kv_heads. The shift must be smaller than the window.
    """

    name: ClassVar[str] = "swin"
    title: ClassVar[str] = "Swin attention"
    SUMMARY: ClassVar[str] = "Windowed attention, as in Swin, plain or shifted."
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "attnscope swin --window 7 --shift",
        "attnscope swin --resolution 50x60 --window 8 --no-time",
        "attnscope swin --shift --audit --json",
    )
    LOOKS_AT: ClassVar[str] = (
        "the tokens of its window; with a shift, of a window across the borders of the previous layer's windows"
    )
    GIVES_UP: ClassVar[str] = "distant tokens: information crosses the image only over many layers"
    PAPER: ClassVar[str] = "Liu et al., Swin Transformer, arXiv 2103.14030"
    SIZE_FIELD: ClassVar[str] = "resolution"
    PICTURED: ClassVar[tuple[str, ...]] = ("window", "shift", "shift_size")

    dim: int = option(96, "Embedding dimension.")
    heads: int = option(3, "Number of attention heads.")
    kv_heads: int | None = option(None, f"{KV_HEADS} The same in every stage of a network.", shown="heads")
    resolution: Pair = option((56, 56), "Grid size in tokens.")
    window: Pair = option((7, 7), "Window size in tokens.")
    shift: bool | None = option(None, "Shift the windows by half a window, or by --shift-size.", shown="no-shift")
    shift_size: Pair | None = option(None, "Shift in tokens.", low=0, shown="window // 2")

    @classmethod
    def candidates(cls, seen: Observed) -> Iterator[dict[str, Any]]:
        """Yield the fields for attention in windows of a plane."""
        if seen.is_windowed and not seen.is_dilated:
            yield {"resolution": seen.sides, "window": seen.window, "dim": seen.dim, "heads": seen.heads}

    @cached_property
    def windows(self) -> Windows:
        """Return the geometry of the windows: padding, counts and shift."""
        down, across = self.shift_along
        return Windows(*self.resolution, self.window, (down, across))

    def complexity(self) -> Complexity:
        """Return the formulas of windows on the padded grid and of global attention on the grid without padding."""
        grid, tokens = self.windows, self.resolution[0] * self.resolution[1]
        return Complexity(
            batch=self.batch,
            own=windowed_attention(tokens, self.dim, self.window, grid.padding_tokens, self.kv_dim),
            reference=global_attention(tokens, self.dim, self.kv_dim),
            saving="in windows",
        )

    def cautions(self) -> list[str]:
        """Return notes about large windows, padding and shifts without effect."""
        notes = []
        sides = list(zip(self.window, self.resolution, strict=True))
        larger = [
            f"{window} > {side} {axis}"
            for (window, side), axis in zip(sides, ("down", "across"), strict=True)
            if window > side
        ]
        if larger:
            notes.append(
                f"the window is larger than the grid ({' and '.join(larger)}): one padded window, not shifted; "
                f"to clip the window, as networks often do: --window {'x'.join(str(min(pair)) for pair in sides)}"
            )
        return [*notes, *self.windows.padding_notes(), *self.shift_notes()]

    def next_command(self) -> tuple[str, str]:
        """Return the suggested next command and the reason for it."""
        if self.windows.is_shifted and max(*self.resolution, *self.window) <= LARGEST_DRAWN:
            return f"attnscope windows {self.grid_flags()}", "see the shift and its mask"
        return super().next_command()
