"""Options of Video Swin's attention, and its cost by formula."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, ClassVar

from attnscope.attentions.complexity import Complexity, global_attention, windowed_attention
from attnscope.attentions.observed import Observed
from attnscope.attentions.spec import option
from attnscope.attentions.windowed import Windowed
from attnscope.core.axes import spell
from attnscope.core.sizes import Triple
from attnscope.core.windows import VolumeWindows


@dataclass(frozen=True, kw_only=True)
class Swin3DSpec(Windowed):
    """Multi-head self-attention in windows of a volume, 3D W-MSA and 3D SW-MSA (Liu et al., arXiv 2106.13230, 3.2).

    The defaults are the first stage of Swin3D-T for 16 frames of 224 pixels: 8×56×56 tokens, embedding dimension 96, 3
    heads, 8×7×7 windows. Along an axis on which the window exceeds the volume it is clipped to it, as in torchvision.

    Raises:
        UsageError: if a value is out of range or contradicts another one. dim must be divisible by heads. The shift must
            be smaller than the window.
    """

    name: ClassVar[str] = "swin3d"
    title: ClassVar[str] = "Video Swin attention"
    SUMMARY: ClassVar[str] = "Windowed attention in video, as in Video Swin, plain or shifted along three axes."
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "attnscope swin3d --resolution 8x56x56 --window 8x7x7 --shift",
        "attnscope swin3d --resolution 16x28x28 --window 4x7x7 --dim 192 --heads 6 --no-time",
    )
    LOOKS_AT: ClassVar[str] = (
        "the tokens of its window in several frames; with a shift, of a window across the borders of the previous layer's"
    )
    GIVES_UP: ClassVar[str] = "distant tokens and frames: information crosses the video only over many layers"
    PAPER: ClassVar[str] = "Liu et al., Video Swin Transformer, arXiv 2106.13230"
    SIZE_FIELD: ClassVar[str] = "resolution"
    kv_heads: ClassVar[None] = None  # type: ignore[misc]  # heads cannot share keys and values

    dim: int = option(96, "Embedding dimension.")
    heads: int = option(3, "Number of attention heads.")
    resolution: Triple = option((8, 56, 56), "Size of the volume in tokens.")
    window: Triple = option((8, 7, 7), "Window size in tokens.")
    shift: bool | None = option(None, "Shift the windows by half a window, or by --shift-size.", shown="no-shift")
    shift_size: Triple | None = option(None, "Shift in tokens.", low=0, shown="window // 2")

    @classmethod
    def candidates(cls, seen: Observed) -> Iterator[dict[str, Any]]:
        """Yield the fields for attention in windows of a volume."""
        if seen.is_windowed and not seen.is_dilated:
            yield {"resolution": seen.sides, "window": seen.window, "dim": seen.dim, "heads": seen.heads}

    @cached_property
    def windows(self) -> VolumeWindows:
        """Return the geometry of the windows: clipping, padding, counts and shift."""
        time, down, across = self.shift_along
        return VolumeWindows.clipped(self.resolution, self.window, (time, down, across))

    @property
    def is_clipped(self) -> bool:
        """Return whether the window is clipped to the volume."""
        return self.windows.window != self.window

    def complexity(self) -> Complexity:
        """Return the formulas of windows on the padded volume and of global attention on the volume without padding."""
        grid, tokens = self.windows, prod(self.resolution)
        own = windowed_attention(tokens, self.dim, grid.window, grid.padding_tokens, name="Ω(3D W-MSA)", letters="thw")
        return Complexity(self.batch, own, global_attention(tokens, self.dim, letters="thw"), "in windows")

    def cautions(self) -> list[str]:
        """Return notes about clipped windows, padding and shifts without effect."""
        clipped = [f"the window is clipped to the volume: {spell(self.windows.window)}"] if self.is_clipped else []
        if not self.are_offsets_kept:
            clipped.append(
                "the position bias of the clipped window is that of the first tokens of the full window, as in "
                "torchvision: its rows do not belong to the offsets"
            )
        return [*clipped, *self.windows.padding_notes(), *self.shift_notes()]

    @property
    def are_offsets_kept(self) -> bool:
        """Return whether the first tokens of the full window lie to each other as the tokens of the clipped window.

        They do if the window is clipped along its first axis only, apart from axes with a single token before it.
        """
        sides = list(zip(self.windows.window, self.window, strict=True))
        while sides and sides[0][0] == 1:
            sides.pop(0)
        return all(clipped == full for clipped, full in sides[1:])
