"""Options of CSWin, and its cost by formula."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from attnscope.attentions.cswin.spec import LEPE_TAPS, CSWinSpec
from attnscope.attentions.heads import Headed
from attnscope.attentions.spec import option
from attnscope.core.axes import spell
from attnscope.core.errors import UsageError, nearest_divisors
from attnscope.core.formula import Expression, symbol
from attnscope.core.sizes import Ints, check_divisible
from attnscope.networks.hierarchy.spec import STRIDE, Group, HierarchySpec, dims_of, tokens_of
from attnscope.networks.spec import DEEPEST
from attnscope.networks.stages import Stage


@dataclass(frozen=True, kw_only=True)
class CSWinNetworkSpec(HierarchySpec):
    """CSWin (Dong et al., arXiv 2107.00652, section 3.4): convolutions make and merge tokens, stripes widen.

    The defaults are CSWin-T at 224 pixels. Where a stripe is as wide as the grid, attention is global.

    Raises:
        UsageError: if a value is out of range or contradicts another one. dim must be divisible by heads; multiples and
            stripes must have a number for each stage. Each stripe must divide the grid of its stage.
    """

    name: ClassVar[str] = "cswin"
    title: ClassVar[str] = "CSWin"
    SUMMARY: ClassVar[str] = "CSWin, whole or in stages and blocks."
    INSTEAD: ClassVar[Mapping[str, str]] = {"stripe": "{stripes}", "resolution": "{image}"}
    PER_STAGE: ClassVar[tuple[str, ...]] = ("multiples", "stripes")

    depths: Ints = option((1, 2, 21, 1), "Number of blocks of each stage.", high=DEEPEST)
    stripes: Ints = option((1, 2, 7, 7), "Width of a stripe in tokens, in each stage.")

    def check_image(self) -> None:
        """Check that the image has a whole number of tokens.

        Raises:
            UsageError: if it has not.
        """
        check_divisible("image", self.image, (STRIDE, STRIDE), why=", the distance of two tokens")

    def make_attention(self, stage: Stage, kind: int) -> CSWinSpec:
        """Return the attention of a stage's blocks.

        Raises:
            UsageError: if the stripe does not divide the grid.
        """
        stripe = self.stripes[stage.index]
        for side in stage.grid:
            if side % stripe:
                raise UsageError(
                    f"{{stripes}} must divide the grid of each stage, {spell(stage.grid)} in stage {stage.index + 1} "
                    f"(got {stripe}); nearest: {nearest_divisors(stripe, side)}"
                )
        return CSWinSpec(dim=stage.dim, heads=stage.heads, resolution=stage.grid, stripe=stripe, **self.shared())

    def stem_form(self) -> dict[str, int]:
        """Return the MACs of each step before the stages, for one image."""
        return {"patch_embed.embed": 3 * self.STEM**2 * self.grid[0] * self.grid[1] * self.dim}

    def params(self) -> int:
        """Count the parameters: blocks of 4C² + 10C + 2CE and biases, convolutions between them, and the head."""
        total = 3 * self.STEM**2 * self.dim + 3 * self.dim
        for stage in self.stages:
            C, E = stage.dim, self.hidden_of(stage)
            attention = 4 * C**2 + 3 * C * self.qkv_bias + C + (LEPE_TAPS + 1) * C
            total += stage.depth * (attention + 2 * C * E + E + C + 4 * C)
            if stage.index:
                total += self.MERGING**2 * self.before(stage).dim * C + 3 * C
        return total + 2 * C + (C + 1) * self.classes

    def attention_cost(self, groups: Sequence[Group]) -> Expression:
        """Return the MACs of attention in stripes: 4hwC² + K·hwC + 9hwC, with K = s(h + w), or 2hw if it is global."""
        hw, C = tokens_of(groups), dims_of(groups)
        keys = symbol("K", *(_keys(group.attention) for group in groups), note="keys of both stripes")
        return 4 * hw * C**2 + keys * hw * C + LEPE_TAPS * hw * C


def _keys(attention: Headed) -> int:
    """Return the keys of a query in a vertical and in a horizontal stripe."""
    assert isinstance(attention, CSWinSpec)
    return 2 * sum(height * width for height, width in attention.stripes) // len(attention.stripes)
