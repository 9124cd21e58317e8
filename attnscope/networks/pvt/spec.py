"""Options of PVT v2, and its cost by formula."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from attnscope.attentions.heads import Headed
from attnscope.attentions.pvt.spec import PVTSpec
from attnscope.attentions.spec import option
from attnscope.core.axes import spell
from attnscope.core.errors import UsageError
from attnscope.core.formula import Expression, symbol
from attnscope.core.sizes import Ints
from attnscope.networks.hierarchy.spec import Group, HierarchySpec, dims_of, tokens_of
from attnscope.networks.stages import Stage

REDUCTIONS = (8, 4, 2, 1)
"""Side of the patch reduced to one key in each stage (Wang et al., arXiv 2106.13797, table 1)."""
KERNEL = 3
"""Side of the depthwise convolution in an MLP."""


@dataclass(frozen=True, kw_only=True)
class PVTNetworkSpec(HierarchySpec):
    """PVT v2 (Wang et al., arXiv 2106.13797): overlapping patches, and MLPs with a depthwise 3×3 convolution.

    The defaults are PVT v2-B2 at 224 pixels. With `linear`, the attention averages to 7×7 keys in all stages, and each
    MLP has a ReLU before its convolution.

    Raises:
        UsageError: if a value is out of range or contradicts another one. dim must be divisible by heads; multiples,
            reductions and mlp_ratios must have a number for each stage.
    """

    name: ClassVar[str] = "pvt"
    title: ClassVar[str] = "PVT v2"
    SUMMARY: ClassVar[str] = "PVT v2, whole or in stages and blocks."
    INSTEAD: ClassVar[Mapping[str, str]] = {"reduction": "{reductions}", "resolution": "{image}"}
    PER_STAGE: ClassVar[tuple[str, ...]] = ("multiples", "reductions", "mlp_ratios")
    mlp_ratio: ClassVar[float] = 0.0  # type: ignore[misc]  # each stage has its own

    dim: int = option(64, "Embedding dimension of the first stage.")
    heads: int = option(1, "Number of attention heads of the first stage.")
    multiples: Ints = option((1, 2, 5, 8), "Embedding dimension and heads of each stage, in those of the first one.")
    depths: Ints = option((3, 4, 6, 3), "Number of blocks of each stage.", high=1000)
    reductions: Ints = option(REDUCTIONS, "Side of the patch of tokens reduced to one key/value token, in each stage.")
    linear: bool = option(False, "Average the tokens to 7×7 key/value tokens instead, as in PVT v2-Li.")
    mlp_ratios: Ints = option(
        (8, 8, 4, 4), "MLP hidden size of each stage, as a multiple of the embedding dimension.", high=1000
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.linear and self.reductions != REDUCTIONS:
            raise UsageError("{linear} and {reductions} both set the number of keys; give one of them")

    def make_attention(self, stage: Stage, kind: int) -> PVTSpec:
        """Return the attention of a stage's blocks.

        Raises:
            UsageError: if a patch of tokens is larger than the grid.
        """
        reduction = None if self.linear else self.reductions[stage.index]
        if reduction and reduction > min(stage.grid):
            raise UsageError(
                f"{{reductions}} must not exceed the grid of each stage, {spell(stage.grid)} in stage "
                f"{stage.index + 1} (got {reduction}); largest: {min(stage.grid)}"
            )
        return PVTSpec(
            dim=stage.dim,
            heads=stage.heads,
            resolution=stage.grid,
            reduction=reduction,
            linear=self.linear,
            **self.shared(),
        )

    @property
    def code(self) -> str:
        """Return the name of the code that builds it; the ReLU of PVT v2-Li changes the memory layout of the MLP."""
        return "pvt-li" if self.linear else self.name

    def hidden_of(self, stage: Stage) -> int:
        """Return the hidden size of the MLP in a stage."""
        return stage.dim * self.mlp_ratios[stage.index]

    def hidden(self, dim: int) -> int:
        """Return the hidden size of the MLP in the selected stage."""
        return self.hidden_of(self.opened)

    def stem_form(self) -> dict[str, int]:
        """Return the MACs of each step before the stages, for one image."""
        return {"patch_embed.embed": 3 * self.STEM**2 * self.grid[0] * self.grid[1] * self.dim}

    def block_form(self, stage: Stage, attention: Headed) -> dict[str, int]:
        """Return the MACs of each step of a block."""
        tokens = stage.grid[0] * stage.grid[1]
        mixing = {"mlp.mix_neighbours": self.batch * KERNEL**2 * tokens * self.hidden_of(stage)}
        return super().block_form(stage, attention) | mixing

    def params(self) -> int:
        """Count the parameters: blocks of 4C² + R²C² + 2CE and biases, convolutions between them, and the head."""
        total = 3 * self.STEM**2 * self.dim + 3 * self.dim
        for stage in self.stages:
            C, E = stage.dim, self.hidden_of(stage)
            attention = self.attention_of(stage, 0)
            assert isinstance(attention, PVTSpec)
            reduction = (attention.reduction or 1) ** 2 * C**2 + 3 * C if attention.reduces else 0
            projections = 4 * C**2 + 3 * C * self.qkv_bias + C
            mlp = 2 * C * E + C + E + (KERNEL**2 + 1) * E
            total += stage.depth * (projections + reduction + mlp + 4 * C) + 2 * C
            if stage.index:
                total += self.MERGING**2 * self.before(stage).dim * C + 3 * C
        return total + (C + 1) * self.classes

    def attention_cost(self, groups: Sequence[Group]) -> Expression:
        """Return the MACs of spatial-reduction attention: 2hwC² + R²MC² + 2MC² + 2hwMC for M keys."""
        hw, C = tokens_of(groups), dims_of(groups)
        attentions = [group.attention for group in groups if isinstance(group.attention, PVTSpec)]
        keys = symbol("M", *(each.keys for each in attentions))
        cost = 2 * hw * C**2 + 2 * keys * C**2 + 2 * hw * keys * C
        sides = [(each.reduction or 1) * each.reduces for each in attentions]
        if not any(sides):
            return cost
        spelled = tuple([f"{side}×{side}" if side else "none" for side in sides])
        return cost + symbol("R²", *(side**2 for side in sides), spelled=spelled) * keys * C**2

    def mlp_cost(self, groups: Sequence[Group]) -> Expression:
        """Return the MACs of an MLP with its convolution, such as `8hwC² + 9hwE`."""
        hidden = symbol("E", *(self.hidden_of(group.stage) for group in groups))
        hw = tokens_of(groups)
        return 2 * hw * dims_of(groups) * hidden + KERNEL**2 * hw * hidden
