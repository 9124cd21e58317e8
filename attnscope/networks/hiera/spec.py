"""Options of Hiera, and its cost by formula."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import lcm
from typing import ClassVar

from attnscope.attentions.heads import Headed
from attnscope.attentions.hiera.spec import HieraSpec
from attnscope.attentions.spec import option
from attnscope.core.errors import UsageError, nearest_multiples
from attnscope.core.formula import Expression, symbol
from attnscope.core.sizes import Ints, Pair, check_divisible
from attnscope.networks.hierarchy.spec import STRIDE, Group, HierarchySpec, dims_of, tokens_of
from attnscope.networks.spec import DEEPEST
from attnscope.networks.stages import Stage

POOL = 2
"""Side of the cell of tokens that the first block of a stage pools to one."""


@dataclass(frozen=True, kw_only=True)
class HieraNetworkSpec(HierarchySpec):
    """Hiera (Ryali et al., arXiv 2306.00989): a hierarchy of plain blocks, without convolutions between the stages.

    The defaults are Hiera-B at 224 pixels. The first block of a later stage pools queries and residual by 2×2. It still
    attends as the blocks of the previous stage do.

    Raises:
        UsageError: if a value is out of range or contradicts another one. multiples must increase; the image must have
            whole mask units and an even grid in each stage but the last.
    """

    name: ClassVar[str] = "hiera"
    title: ClassVar[str] = "Hiera"
    SUMMARY: ClassVar[str] = "Hiera, whole or in stages and blocks."
    INSTEAD: ClassVar[Mapping[str, str]] = {
        "out_dim": "{stage} 2 {block} 1 (the first block of a stage widens)",
        "q_stride": "{stage} 2 {block} 1 (the first block of a stage pools)",
    }

    dim: int = option(96, "Embedding dimension of the first stage.")
    heads: int = option(1, "Number of attention heads of the first stage.")
    depths: Ints = option((2, 3, 16, 3), "Number of blocks of each stage.", high=DEEPEST)
    window: Pair = option((8, 8), "Size of a mask unit of the first stage in tokens.")
    unit_stages: int = option(2, "Number of stages with attention in mask units; later ones attend globally.", low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for less, more in pairwise(self.multiples):
            if more <= less:
                raise UsageError(f"{{multiples}} must increase, since each stage widens (got {more} after {less})")

    def kind_of(self, stage: Stage, block: int) -> int:
        """Return 1 for the first block of a later stage, which pools, else 0."""
        return int(stage.index > 0 and block == 0)

    def make_attention(self, stage: Stage, kind: int) -> HieraSpec:
        """Return the attention of a stage's blocks; the first block of a later stage (kind 1) pools.

        Raises:
            UsageError: if the grid has no whole mask units or cells.
        """
        self._check_image()
        of = self.before(stage) if kind else stage
        unit = (self.window[0] // POOL**of.index, self.window[1] // POOL**of.index)
        return HieraSpec(
            dim=of.dim,
            out_dim=stage.dim,
            heads=stage.heads,
            resolution=of.grid,
            window=unit if of.index < self.unit_stages else (0, 0),
            q_stride=POOL if kind else 1,
            **self.shared(),
        )

    def _check_image(self) -> None:
        """Check that the image has whole mask units and cells in each stage.

        Raises:
            UsageError: if it has not.
        """
        pooled, in_units = len(self.depths) - 1, min(self.unit_stages, len(self.depths) - 1)
        for window in self.window:
            if self.unit_stages and window % POOL**in_units:
                nearest = nearest_multiples(window, POOL**in_units)
                raise UsageError(
                    f"{{window}} must be divisible by {POOL**in_units}, since {in_units} stages pool mask units "
                    f"(got {window}); nearest: {nearest}"
                )
        whole = tuple(STRIDE * lcm(window if self.unit_stages else 1, POOL**pooled) for window in self.window)
        check_divisible("image", self.image, whole, why=", for whole mask units and cells in each stage")

    def input_of(self, stage: Stage) -> tuple[int, ...]:
        """Return the shape of a stage's input: that of its first block."""
        return self.attention_of(stage, 0).input_shape

    def first_block(self, stage: Stage) -> int:
        """Return the number of a stage's first block in the module: the whole network has a single list of blocks."""
        return sum(self.depths[: stage.index]) if self.is_whole else 0

    def path_of_block(self, stage: Stage, block: int) -> str:
        """Return the path of a block, counted from 0, in the module."""
        return f"blocks.{self.first_block(stage) + block}"

    def stem_form(self) -> dict[str, int]:
        """Return the MACs of each step before the stages, for one image."""
        return {"patch_embed.embed": 3 * self.STEM**2 * self.grid[0] * self.grid[1] * self.dim}

    def merging_form(self, stage: Stage) -> dict[str, int]:
        """Return nothing: the blocks pool."""
        return {}

    def block_form(self, stage: Stage, attention: Headed) -> dict[str, int]:
        """Return the MACs of each step of a block."""
        form = super().block_form(stage, attention)
        assert isinstance(attention, HieraSpec)
        if attention.q_stride == 1:
            return form
        height, width = attention.resolution
        return {"widen": self.batch * height * width * attention.dim * attention.out_dim, **form}

    def params(self) -> int:
        """Count the parameters: blocks of 12C² + 13C, first blocks with projections from C/2, positions, and the head."""
        total = (3 * self.STEM**2 + 1 + self.grid[0] * self.grid[1]) * self.dim
        for stage in self.stages:
            C, E, before = stage.dim, self.hidden_of(stage), self.before(stage).dim
            mlp = 2 * C * E + E + C
            own = 4 * C**2 + 3 * C * self.qkv_bias + C + 4 * C + mlp
            if stage.index:
                widening = before * C + C
                total += 3 * before * C + 3 * C * self.qkv_bias + C**2 + C + widening + 2 * before + 2 * C + mlp
            total += own * (stage.depth - bool(stage.index))
        return total + 2 * C + (C + 1) * self.classes

    def attention_cost(self, groups: Sequence[Group]) -> Expression:
        """Return the MACs of mask unit attention: 3NBC + 2hwMC + hwC², from N tokens and B channels to hw and C."""
        keys = symbol("M", *(each.units.keys for each in _attentions(groups)))
        return self._cost_with(groups, keys)

    def global_cost(self, groups: Sequence[Group]) -> Expression:
        """Return the MACs of attention to all tokens, with the same pooling."""
        return self._cost_with(groups, _entering(groups))

    def merging_cost(self, groups: Sequence[Group]) -> Expression:
        """Return the MACs of the projection in the residual of first blocks, NCD; D is 0 in other blocks."""
        widened = symbol("D", *(group.enters for group in groups), note="before widening")
        return _entering(groups) * dims_of(groups) * widened

    def _cost_with(self, groups: Sequence[Group], keys: Expression) -> Expression:
        hw, C = tokens_of(groups), dims_of(groups)
        channels = symbol("B", *(each.dim for each in _attentions(groups)))
        return 3 * _entering(groups) * channels * C + 2 * hw * keys * C + hw * C**2

    def _block_cost(self, groups: Sequence[Group], is_global: bool) -> Expression:
        cost = super()._block_cost(groups, is_global)
        one = _attentions(groups)[0]
        if not self.is_block or one.q_stride == 1:
            return cost
        return cost + _entering(groups) * dims_of(groups) * symbol("B", one.dim)


def _attentions(groups: Sequence[Group]) -> list[HieraSpec]:
    return [group.attention for group in groups if isinstance(group.attention, HieraSpec)]


def _entering(groups: Sequence[Group]) -> Expression:
    """Return the number of tokens of one image before the attention of each group pools them."""
    return symbol("N", *(each.resolution[0] * each.resolution[1] for each in _attentions(groups)))
