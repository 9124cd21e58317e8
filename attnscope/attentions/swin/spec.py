"""Options of Swin's attention, and its cost by the paper's formula."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from attnscope.attentions.complexity import Complexity, global_attention, windowed_attention
from attnscope.attentions.heads import KV_HEADS, Headed
from attnscope.attentions.spec import option
from attnscope.attentions.vit.spec import ViTSpec, on_the_same_tokens
from attnscope.core.errors import UsageError
from attnscope.core.sizes import LARGEST, Pair, pair, plural, spell_pair
from attnscope.core.windows import LARGEST_DRAWN, Windows


@dataclass(frozen=True, kw_only=True)
class SwinSpec(Headed):
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

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_heads()
        for shift, window in zip(self.shift_size or (), self.window, strict=False):
            if shift >= window:
                raise UsageError(
                    f"{{shift_size}} must be smaller than {{window}} {window} (got {shift}); largest: {window - 1}"
                )
        if self.contradictions(vars(self)):
            if self.shift:
                raise UsageError(
                    "{shift} and {shift_size} 0 contradict each other; use --no-shift to disable the shift"
                )
            raise UsageError("{no_shift} and {shift_size} contradict each other; give one of them")

    @classmethod
    def contradictions(cls, given: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return shift and shift_size as a pair if only one of them shifts the windows."""
        shift, size = given.get("shift"), given.get("shift_size")
        against = shift is not None and size is not None and shift is not any(pair(size))
        return [("shift", "shift_size")] if against else []

    @cached_property
    def windows(self) -> Windows:
        """Return the geometry of the windows: padding, counts and shift."""
        shift = self.shift_size or (0, 0)
        if self.shift and self.shift_size is None:
            shift = self.window[0] // 2, self.window[1] // 2
        return Windows(*self.resolution, self.window, shift)

    @property
    def neighbourhood(self) -> Windows:
        """Return the tokens of the query's window."""
        return self.windows

    @property
    def can_shift(self) -> bool:
        """Return whether a shift by half a window has an effect: an axis has several windows of more than one token."""
        return any(count > 1 and window > 1 for count, window in zip(self.windows.counts, self.window, strict=True))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of the module's input, (b, height, width, c)."""
        return self.batch, *self.resolution, self.dim

    def headline(self) -> list[str]:
        """Describe this Spec in a few words each."""
        tokens, *cut = self.windows.headline()
        return [tokens, f"dim {self.dim}", plural(self.heads, "head"), *self.shared_heads(), *cut]

    def closed_form(self) -> dict[str, int]:
        """Return the MACs of each step: 4NC² + 2M²NC in total, where N includes the padding (equation 2).

        With g shared key/value heads the total is 2NC² + 2NC·g·d + 2M²NC.
        """
        N, M2, C, G, b = self.windows.tokens, self.windows.keys, self.dim, self.kv_dim, self.batch
        attend = {"score": b * M2 * N * C, "mix": b * M2 * N * C}
        if self.kernel != "eager":
            attend = {"attend": sum(attend.values())}
        project = "project_grouped" if self.is_grouped else "project"
        return {project: b * N * C**2 + 2 * b * N * C * G, **attend, "output": b * N * C**2}

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
        grid = self.windows
        for side, window, axis in zip(self.resolution, self.window, ("down", "across"), strict=True):
            if window > side:
                notes.append(
                    f"the window is larger than the grid {axis} ({window} > {side}): one padded window, not shifted; "
                    f"to clip the window, as networks often do: --window {min(self.window[0], self.resolution[0])}x"
                    f"{min(self.window[1], self.resolution[1])}"
                )
        notes += grid.padding_notes()
        if self.shift and not any(grid.shift):
            notes.append("the shift has no effect: half of a window of 1 token is 0")
        if any(grid.shift) and not grid.is_shifted:
            notes.append("a single window is not shifted: its tokens attend to each other with and without a shift")
        return notes

    def counterpart(self) -> ViTSpec:
        """Return global attention on the same tokens, the baseline for timing."""
        return on_the_same_tokens(self, self.resolution[0] * self.resolution[1])

    def next_command(self) -> tuple[str, str]:
        """Return the suggested next command and the reason for it."""
        if self.windows.is_shifted and max(*self.resolution, *self.window) <= LARGEST_DRAWN:
            return f"attnscope windows {self.grid_flags()}", "see the shift and its mask"
        own = f"--dim {self.dim} --heads {self.heads}" + (f" --kv-heads {self.kv_heads}" if self.is_grouped else "")
        if self.can_shift and not self.windows.is_shifted:
            return f"attnscope {self.name} {own} {self.grid_flags()} --shift", "the cost of the shift and its mask"
        tokens = self.resolution[0] * self.resolution[1]
        if tokens > LARGEST:
            return "attnscope vit", "global attention"
        return f"attnscope vit {own} --tokens {tokens}", "global attention on these tokens"

    def grid_flags(self) -> str:
        """Return the flags for this grid and its windows."""
        flags = f"--resolution {spell_pair(self.resolution, 'x')} --window {spell_pair(self.window, 'x')}"
        if self.shift_size and any(self.shift_size):
            return f"{flags} --shift-size {spell_pair(self.shift_size, 'x')}"
        return f"{flags} --shift" if self.shift else flags
