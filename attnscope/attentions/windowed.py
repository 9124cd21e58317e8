"""Attention in windows, plain or shifted: the part that the Specs of images and of volumes share."""

from abc import abstractmethod
from collections.abc import Mapping
from math import prod
from typing import Any

from attnscope.attentions.heads import Headed
from attnscope.attentions.vit.spec import ViTSpec, on_the_same_tokens
from attnscope.core.errors import UsageError
from attnscope.core.sizes import LARGEST, Sides, plural, spell_sides, spread
from attnscope.core.windows import GridWindows


class Windowed(Headed):
    """A Spec with `resolution`, `window`, `shift` and `shift_size`, each size with a number for each axis of the grid."""

    resolution: Sides
    window: Sides
    shift: bool | None
    shift_size: Sides | None

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
        against = shift is not None and size is not None and shift is not any(spread(size, 1))
        return [("shift", "shift_size")] if against else []

    @property
    @abstractmethod
    def windows(self) -> GridWindows:
        """Return the geometry of the windows: padding, counts and shift."""

    @property
    def shift_along(self) -> Sides:
        """Return the shift along each axis, before an axis with a single window is left as it is."""
        if self.shift and self.shift_size is None:
            return tuple([window // 2 for window in self.window])
        return self.shift_size or (0,) * len(self.window)

    @property
    def neighbourhood(self) -> GridWindows:
        """Return the tokens of the query's window."""
        return self.windows

    @property
    def can_shift(self) -> bool:
        """Return whether a shift by half a window has an effect: an axis has several windows of more than one token."""
        return any(count > 1 and window > 1 for count, window in zip(self.windows.counts, self.window, strict=True))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of the module's input: (b, height, width, c) for an image."""
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

    def shift_notes(self) -> list[str]:
        """Return notes about a shift without effect."""
        notes = []
        if self.shift and not any(self.windows.shift):
            notes.append("the shift has no effect: half of a window of 1 token is 0")
        if any(self.windows.shift) and not self.windows.is_shifted:
            notes.append("a single window is not shifted: its tokens attend to each other with and without a shift")
        return notes

    def counterpart(self) -> ViTSpec:
        """Return global attention on the same tokens, the baseline for timing."""
        return on_the_same_tokens(self, prod(self.resolution))

    def next_command(self) -> tuple[str, str]:
        """Return the suggested next command and the reason for it."""
        own = f"--dim {self.dim} --heads {self.heads}" + (f" --kv-heads {self.kv_heads}" if self.is_grouped else "")
        if self.can_shift and not self.windows.is_shifted:
            return f"attnscope {self.name} {own} {self.grid_flags()} --shift", "the cost of the shift and its mask"
        tokens = prod(self.resolution)
        if tokens > LARGEST:
            return "attnscope vit", "global attention"
        return f"attnscope vit {own} --tokens {tokens}", "global attention on these tokens"

    def grid_flags(self) -> str:
        """Return the flags for this grid and its windows."""
        flags = f"--resolution {spell_sides(self.resolution, 'x')} --window {spell_sides(self.window, 'x')}"
        if self.shift_size and any(self.shift_size):
            return f"{flags} --shift-size {spell_sides(self.shift_size, 'x')}"
        return f"{flags} --shift" if self.shift else flags
