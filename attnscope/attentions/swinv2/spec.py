"""Options of Swin V2's attention, and its cost in closed form."""

from dataclasses import dataclass
from typing import ClassVar

from attnscope.attentions.spec import option
from attnscope.attentions.swin.spec import SwinSpec
from attnscope.core.errors import UsageError
from attnscope.core.sizes import Pair

HIDDEN = 512
"""Hidden size of the MLP for the position bias, in the paper and in every published network."""


@dataclass(frozen=True, kw_only=True)
class SwinV2Spec(SwinSpec):
    """Cosine attention in windows with a log-spaced continuous position bias (Liu et al., arXiv 2111.09883, section 3).

    The defaults are the first stage of SwinV2-T at 256 pixels: 64×64 tokens, embedding dimension 96, 3 heads, 8×8
    windows.

    Raises:
        UsageError: as in SwinSpec, or if qk_scale is given, since Swin V2 learns the scale.
    """

    name: ClassVar[str] = "swinv2"
    title: ClassVar[str] = "Swin V2 attention"
    LOOKS_AT: ClassVar[str] = (
        "the tokens of its window; with a shift, of a window across the borders of the previous layer's windows"
    )
    GIVES_UP: ClassVar[str] = (
        "distant tokens, as Swin does, and the length of queries and keys, of which only the angle counts"
    )
    PAPER: ClassVar[str] = "Liu et al., Swin Transformer V2, arXiv 2111.09883"
    SUMMARY: ClassVar[str] = "Windowed cosine attention, as in Swin V2."
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "attnscope swinv2 --window 8 --shift",
        "attnscope swinv2 --preset swinv2-b-w8-256 --scope model --no-time",
    )

    resolution: Pair = option((64, 64), "Grid size in tokens.")
    window: Pair = option((8, 8), "Window size in tokens.")
    pretrained_window: Pair | None = option(
        None, "Window size in pre-training, which scales the position bias.", shown="window"
    )
    qk_scale: float | None = option(
        None, "Not available: Swin V2 learns a scale for each head.", low=0.0, shown="learned"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.qk_scale is not None:
            raise UsageError("{qk_scale} is not supported by Swin V2, which learns a scale for each head; remove it")

    @property
    def has_key_bias(self) -> bool:
        """Return whether k has a bias; in Swin V2 only q and v have one."""
        return False

    def closed_form(self) -> dict[str, int]:
        """Return the MACs of each step: those of Swin, and the bias MLP once for all windows, (2M−1)²(1024 + 512·H)."""
        p, q = self.window
        return {**super().closed_form(), "bias_mlp": (2 * p - 1) * (2 * q - 1) * (2 * HIDDEN + HIDDEN * self.heads)}
