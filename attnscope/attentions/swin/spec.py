"""What can be asked of Swin's attention, and what the paper says it costs."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from attnscope.attentions.complexity import Complexity, global_attention, windowed_attention
from attnscope.attentions.heads import KV_HEADS, Headed
from attnscope.attentions.spec import option
from attnscope.attentions.vit.spec import ViTSpec
from attnscope.core.errors import UsageError
from attnscope.core.sizes import LARGEST, Pair, pair, plural, spell_pair
from attnscope.core.windows import LARGEST_DRAWN, Windows


@dataclass(frozen=True, kw_only=True)
class SwinSpec(Headed):
    """Multi-head self-attention in windows, W-MSA, and in shifted windows, SW-MSA (Liu et al., arXiv 2103.14030, 3.2).

    The defaults are the first stage of Swin-T at 224 pixels: 56×56 tokens, 96 channels, 3 heads, 7×7 windows.

    Raises:
        UsageError: a value is out of range, dim is not divisible by heads, heads not by kv_heads, the shift is not smaller
            than the window, or shift and shift_size contradict each other.
    """

    name: ClassVar[str] = "swin"
    title: ClassVar[str] = "Swin attention"
    SUMMARY: ClassVar[str] = "Windowed attention, as in Swin, plain or shifted."
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "attnscope swin --window 7 --shift",
        "attnscope swin --resolution 50x60 --window 8 --no-time",
        "attnscope swin --shift --audit --json",
    )
    SIZE_FIELD: ClassVar[str] = "resolution"

    dim: int = option(96, "Channels of a token.")
    heads: int = option(3, "Attention heads.")
    kv_heads: int | None = option(None, f"{KV_HEADS} In a network as many in every stage.", shown="heads")
    resolution: Pair = option((56, 56), "Side of the grid in tokens, or HxW.")
    window: Pair = option((7, 7), "Side of a window in tokens, or HxW.")
    shift: bool | None = option(
        None, "Shift the windows, by half a window unless --shift-size says otherwise.", shown="no-shift"
    )
    shift_size: Pair | None = option(None, "Shift by this many tokens, or HxW.", low=0, shown="window // 2")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_heads()
        for shift, window in zip(self.shift_size or (), self.window, strict=False):
            if shift >= window:
                raise UsageError(
                    f"{{shift_size}} {shift} is not smaller than {{window}} {window}; the largest is {window - 1}"
                )
        if self.contradictions(vars(self)):
            if self.shift:
                raise UsageError("{shift} and {shift_size} 0 contradict each other; without a shift it is --no-shift")
            raise UsageError("{no_shift} and {shift_size} contradict each other; give one of them")

    @classmethod
    def contradictions(cls, given: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Whether one of these fields shifts the windows and another one does not."""
        shift, size = given.get("shift"), given.get("shift_size")
        against = shift is not None and size is not None and shift is not any(pair(size))
        return [("shift", "shift_size")] if against else []

    @cached_property
    def windows(self) -> Windows:
        """The geometry: padding, counts and shift."""
        shift = self.shift_size or (0, 0)
        if self.shift and self.shift_size is None:
            shift = self.window[0] // 2, self.window[1] // 2
        return Windows(*self.resolution, self.window, shift)

    @property
    def neighbourhood(self) -> Windows:
        """The tokens of the query's window."""
        return self.windows

    @property
    def can_shift(self) -> bool:
        """Whether half a window moves anything: an axis with several windows of more than one token."""
        return any(count > 1 and window > 1 for count, window in zip(self.windows.counts, self.window, strict=True))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the module's input: (b, height, width, c)."""
        return self.batch, *self.resolution, self.dim

    def headline(self) -> list[str]:
        """What the reader should know of this Spec, in words."""
        tokens, *cut = self.windows.headline()
        return [tokens, f"dim {self.dim}", plural(self.heads, "head"), *self.shared_heads(), *cut]

    def closed_form(self) -> dict[str, int]:
        """MACs of each step as the paper counts them: 4NC² + 2M²NC in all, N with the padding (equation 2).

        Where g heads of keys and values are shared it is 2NC² + 2NC·g·d + 2M²NC.
        """
        N, M2, C, G, b = self.windows.tokens, self.windows.keys, self.dim, self.kv_dim, self.batch
        attend = {"score": b * M2 * N * C, "mix": b * M2 * N * C}
        if self.kernel != "eager":
            attend = {"attend": sum(attend.values())}
        project = "project_grouped" if self.is_grouped else "project"
        return {project: b * N * C**2 + 2 * b * N * C * G, **attend, "output": b * N * C**2}

    def complexity(self) -> Complexity:
        """Return the formula of windows on the padded grid beside that of global attention on the tokens of the grid."""
        grid, tokens = self.windows, self.resolution[0] * self.resolution[1]
        return Complexity(
            batch=self.batch,
            own=windowed_attention(tokens, self.dim, self.window, grid.padding_tokens, self.kv_dim),
            reference=global_attention(tokens, self.dim, self.kv_dim),
            saving="in windows",
        )

    def cautions(self) -> list[str]:
        """What might surprise the reader of this Spec."""
        told = []
        grid = self.windows
        for side, window, axis in zip(self.resolution, self.window, ("down", "across"), strict=True):
            if window > side:
                told.append(
                    f"the window is larger than the grid {axis} ({window} > {side}): one window, padded, not shifted; "
                    f"networks often clip it: --window {min(self.window[0], self.resolution[0])}x"
                    f"{min(self.window[1], self.resolution[1])}"
                )
        if grid.is_padded:
            before, after = ("{}×{}".format(*sides) for sides in (self.resolution, grid.padded))
            told.append(
                f"the grid is padded from {before} to {after}: "
                f"{grid.waste:.1%} of the tokens are padding, and count as tokens in every step"
            )
        if self.shift and not any(grid.shift):
            told.append("half a window of 1 is 0: there is nothing to shift")
        if any(grid.shift) and not grid.is_shifted:
            told.append("a single window is not shifted: every token sees the same ones either way")
        return told

    def counterpart(self) -> ViTSpec:
        """Global attention on the same tokens, to be timed beside this one."""
        return ViTSpec(
            dim=self.dim,
            heads=self.heads,
            kv_heads=self.kv_heads,
            tokens=self.resolution[0] * self.resolution[1],
            batch=self.batch,
            qkv_bias=self.qkv_bias,
            qk_scale=self.qk_scale,
            kernel=self.kernel,
            dtype=self.dtype,
        )

    def next_command(self) -> tuple[str, str]:
        """The command worth typing next, and why."""
        if self.windows.is_shifted and max(*self.resolution, *self.window) <= LARGEST_DRAWN:
            return f"attnscope windows {self.grid_flags()}", "see the shift and its mask"
        own = f"--dim {self.dim} --heads {self.heads}" + (f" --kv-heads {self.kv_heads}" if self.is_grouped else "")
        if self.can_shift and not self.windows.is_shifted:
            return f"attnscope {self.name} {own} {self.grid_flags()} --shift", "what the shift and its mask add"
        tokens = self.resolution[0] * self.resolution[1]
        if tokens > LARGEST:
            return "attnscope vit", "global attention"
        return f"attnscope vit {own} --tokens {tokens}", "global attention on these tokens"

    def grid_flags(self) -> str:
        """The flags of this grid and its windows."""
        flags = f"--resolution {spell_pair(self.resolution, 'x')} --window {spell_pair(self.window, 'x')}"
        if self.shift_size and any(self.shift_size):
            return f"{flags} --shift-size {spell_pair(self.shift_size, 'x')}"
        return f"{flags} --shift" if self.shift else flags
