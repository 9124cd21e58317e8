"""Options of Twins, and its cost by formula."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from attnscope.attentions.complexity import padded_tokens
from attnscope.attentions.heads import Headed
from attnscope.attentions.pvt.spec import PVTSpec
from attnscope.attentions.spec import option
from attnscope.attentions.twins.spec import TwinsSpec
from attnscope.core.axes import spell
from attnscope.core.errors import UsageError
from attnscope.core.formula import Expression, symbol
from attnscope.core.sizes import Ints, Pair, check_divisible, spell_pair
from attnscope.networks.hierarchy.spec import STRIDE, Group, HierarchySpec, dims_of, tokens_of
from attnscope.networks.stages import Stage

LOCAL, SUBSAMPLED = 0, 1
"""Kinds of attention: locally-grouped (LSA), and global with sub-sampled keys (GSA)."""
KERNEL = 3
"""Side of the depthwise convolution that encodes positions (Chu et al., arXiv 2102.10882)."""


@dataclass(frozen=True, kw_only=True)
class TwinsNetworkSpec(HierarchySpec):
    """Twins-SVT and Twins-PCPVT (Chu et al., arXiv 2104.13840): positions from a convolution after each first block.

    In Twins-SVT, attention in windows and attention to sub-sampled keys alternate. With window 0, as in Twins-PCPVT,
    all blocks have the latter. The defaults are Twins-SVT-S at 224 pixels.

    Raises:
        UsageError: if a value is out of range or contradicts another one. dim must be divisible by heads; multiples,
            reductions and mlp_ratios must have a number for each stage. The last stage must divide the image.
    """

    name: ClassVar[str] = "twins"
    title: ClassVar[str] = "Twins"
    SUMMARY: ClassVar[str] = "Twins-SVT and Twins-PCPVT, whole or in stages and blocks."
    INSTEAD: ClassVar[Mapping[str, str]] = {"resolution": "{image}"}
    PER_STAGE: ClassVar[tuple[str, ...]] = ("multiples", "reductions", "mlp_ratios")
    STEM: ClassVar[int] = STRIDE
    MERGING: ClassVar[int] = 2
    mlp_ratio: ClassVar[float] = 0.0  # type: ignore[misc]  # each stage has its own

    depths: Ints = option((2, 2, 10, 4), "Number of blocks of each stage.", high=1000)
    window: Pair = option((7, 7), "Window size in tokens of every second block; 0 for none, as in Twins-PCPVT.", low=0)
    reductions: Ints = option(
        (8, 4, 2, 1), "Side of the patch of tokens reduced to one key/value token, in each stage."
    )
    mlp_ratios: Ints = option(
        (4, 4, 4, 4), "MLP hidden size of each stage, as a multiple of the embedding dimension.", high=1000
    )

    def check_image(self) -> None:
        """Check that patches, which do not overlap, fill the image.

        Raises:
            UsageError: if they do not.
        """
        side = STRIDE << (len(self.depths) - 1)
        check_divisible("image", self.image, (side, side), why=", the side of a token of the last stage")

    def is_in(self, library: str) -> bool:
        """Return whether the options are those of timm, which always has a bias of q, k and v."""
        return self.qkv_bias and super().is_in(library)

    def kind_of(self, stage: Stage, block: int) -> int:
        """Return LOCAL or SUBSAMPLED; in Twins-SVT they alternate."""
        return LOCAL if any(self.window) and block % 2 == 0 else SUBSAMPLED

    def make_attention(self, stage: Stage, kind: int) -> Headed:
        """Return the attention of a stage's blocks of one kind.

        Raises:
            UsageError: if one side of the window is 0, or if a patch of tokens is larger than the grid.
        """
        given = {"dim": stage.dim, "heads": stage.heads, "resolution": stage.grid, **self.shared()}
        if kind == LOCAL:
            if not all(self.window):
                window = spell_pair(self.window, "x")
                raise UsageError(f"{{window}} must be 0 or at least 1 on both axes (got {window}); use 7 or 0")
            return TwinsSpec(window=self.window, **given)
        reduction = self.reductions[stage.index]
        if reduction > min(stage.grid):
            raise UsageError(
                f"{{reductions}} must not exceed the grid of each stage, {spell(stage.grid)} in stage "
                f"{stage.index + 1} (got {reduction}); largest: {min(stage.grid)}"
            )
        return PVTSpec(reduction=reduction, **given)

    def hidden_of(self, stage: Stage) -> int:
        """Return the hidden size of the MLP in a stage."""
        return stage.dim * self.mlp_ratios[stage.index]

    def hidden(self, dim: int) -> int:
        """Return the hidden size of the MLP in the selected stage."""
        return self.hidden_of(self.opened)

    def stem_form(self) -> dict[str, int]:
        """Return the MACs of each step before the stages, for one image."""
        return {"patch_embed.embed": 3 * self.STEM**2 * self.grid[0] * self.grid[1] * self.dim}

    def merging_form(self, stage: Stage) -> dict[str, int]:
        """Return the MACs of each step of a stage outside its blocks, for one image: merging and positions."""
        positions = KERNEL**2 * stage.grid[0] * stage.grid[1] * stage.dim
        return super().merging_form(stage) | {"pos_block.encode": positions}

    def params(self) -> int:
        """Count the parameters: blocks of 4C² + R²C² + 2CE and biases, convolutions between them, and the head."""
        total = 3 * self.STEM**2 * self.dim + 3 * self.dim
        for stage in self.stages:
            C, E = stage.dim, self.hidden_of(stage)
            for attention, blocks in self.kinds(stage):
                reduces = isinstance(attention, PVTSpec) and attention.reduces
                reduction = self.reductions[stage.index] ** 2 * C**2 + 3 * C if reduces else 0
                projections = 4 * C**2 + 3 * C * self.qkv_bias + C
                total += len(blocks) * (projections + reduction + 2 * C * E + C + E + 4 * C)
            total += (KERNEL**2 + 1) * C
            if stage.index:
                total += self.MERGING**2 * self.before(stage).dim * C + 3 * C
        last = self.stages[-1].dim
        return total + 2 * last + (last + 1) * self.classes

    def attention_cost(self, groups: Sequence[Group]) -> Expression:
        """Return the MACs of both attentions: hwC² + HWC² + 2TC² + R²TC² + 2HWMC, with T keys of an image.

        A query has M keys: T of them in sub-sampled attention, and those of its window else. HW includes the padding of
        windows.
        """
        hw, C = tokens_of(groups), dims_of(groups)
        tokens = tuple([group.stage.grid[0] * group.stage.grid[1] for group in groups])
        counts = [_counts(group.attention) for group in groups]
        queries = padded_tokens(tokens, tuple([each[0] for each in counts]))
        image = symbol("T", *(each[1] for each in counts), note="keys of an image")
        keys = symbol("M", *(each[2] for each in counts), note="keys of a query")
        cost = hw * C**2 + queries * C**2 + 2 * image * C**2 + 2 * queries * keys * C
        sides = [each[3] for each in counts]
        if not any(sides):
            return cost
        spelled = tuple([f"{side}×{side}" if side else "none" for side in sides])
        return cost + symbol("R²", *(side**2 for side in sides), spelled=spelled) * image * C**2

    def mlp_cost(self, groups: Sequence[Group]) -> Expression:
        """Return the MACs of an MLP, `2hwCE`."""
        hidden = symbol("E", *(self.hidden_of(group.stage) for group in groups))
        return 2 * tokens_of(groups) * dims_of(groups) * hidden

    def between_cost(self, groups: Sequence[Group]) -> Expression:
        """Return the MACs of positions, once for each stage, and those of merging."""
        starts = [int(not index or groups[index - 1].stage != group.stage) for index, group in enumerate(groups)]
        positions = KERNEL**2 * symbol("P", *starts, note="position encodings") * tokens_of(groups) * dims_of(groups)
        merging = super().between_cost(groups)
        return positions if merging is None else positions + merging


def _counts(attention: Headed) -> tuple[int, int, int, int]:
    """Return the queries and the keys of an image, the keys of a query, and the side of a reduced patch or 0."""
    if isinstance(attention, PVTSpec):
        side = attention.reduction or 1
        return attention.tokens, attention.keys, attention.keys, side if attention.reduces else 0
    assert isinstance(attention, TwinsSpec)
    return attention.windows.tokens, attention.windows.tokens, attention.windows.keys, 0
