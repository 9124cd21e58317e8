"""What can be asked of Swin V2's attention, and what it costs."""

from dataclasses import dataclass
from typing import ClassVar

from attnscope.attentions.spec import option
from attnscope.attentions.swin.spec import SwinSpec
from attnscope.core.errors import UsageError
from attnscope.core.sizes import Pair

HIDDEN = 512
"""Width of the hidden layer of the position bias's MLP, in the paper and in every published network."""


@dataclass(frozen=True, kw_only=True)
class SwinV2Spec(SwinSpec):
    """Cosine attention in windows with a log-spaced continuous position bias (Liu et al., arXiv 2111.09883, section 3).

    The defaults are the first stage of SwinV2-T at 256 pixels: 64×64 tokens, 96 channels, 3 heads, 8×8 windows.

    Raises:
        UsageError: as SwinSpec, or qk_scale is given, which V2 learns.
    """

    name: ClassVar[str] = "swinv2"
    title: ClassVar[str] = "Swin V2 attention"
    SUMMARY: ClassVar[str] = "Windowed cosine attention, as in Swin V2."
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "attnscope swinv2 --window 8 --shift",
        "attnscope swinv2 --preset swinv2-b-w8-256 --scope model --no-time",
    )

    resolution: Pair = option((64, 64), "Side of the grid in tokens, or HxW.")
    window: Pair = option((8, 8), "Side of a window in tokens, or HxW.")
    pretrained_window: Pair | None = option(
        None, "Side of the window in pre-training, which scales the position bias, or HxW.", shown="window"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.qk_scale is not None:
            raise UsageError("{qk_scale} has no place in Swin V2, which learns a scale for each head; leave it out")

    def closed_form(self) -> dict[str, int]:
        """MACs of each step: Swin's, and once for all windows the bias MLP, (2M−1)²(1024 + 512·H)."""
        p, q = self.window
        return {**super().closed_form(), "bias_mlp": (2 * p - 1) * (2 * q - 1) * (2 * HIDDEN + HIDDEN * self.heads)}
