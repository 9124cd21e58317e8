"""Options of NAT and DiNAT, and their cost by formula."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from attnscope.attentions.nat.spec import NATSpec
from attnscope.attentions.spec import option
from attnscope.core.axes import spell
from attnscope.core.errors import UsageError
from attnscope.core.formula import Expression, symbol
from attnscope.core.sizes import Ints, Pair
from attnscope.networks.hierarchy.spec import Group, HierarchySpec, dims_of, tokens_of
from attnscope.networks.spec import DEEPEST
from attnscope.networks.stages import Stage

KERNEL = 3
"""Side of the kernel of each convolution; all have stride 2."""


@dataclass(frozen=True, kw_only=True)
class NATNetworkSpec(HierarchySpec):
    """NAT (Hassani et al., arXiv 2204.07143) and DiNAT (Hassani and Shi, arXiv 2209.15001).

    The defaults are NAT-T at 224 pixels. Two convolutions make the tokens, and one merges them between stages. In DiNAT,
    every second block of a stage is dilated.

    Raises:
        UsageError: if a value is out of range or contradicts another one. dim must be even and divisible by heads. The
            neighbourhood times its dilation must not exceed the grid of a stage.
    """

    name: ClassVar[str] = "nat"
    title: ClassVar[str] = "NAT"
    SUMMARY: ClassVar[str] = "NAT and DiNAT, whole or in stages and blocks."
    INSTEAD: ClassVar[Mapping[str, str]] = {"dilation": "{dilations} with {block} 2 (every second block is dilated)"}
    STAGES: ClassVar[str] = "levels"
    PER_STAGE: ClassVar[tuple[str, ...]] = ("multiples", "dilations")

    depths: Ints = option((3, 4, 18, 5), "Number of blocks of each stage.", high=DEEPEST)
    mlp_ratio: float = option(3.0, "MLP hidden size as a multiple of the embedding dimension.", low=0.01, high=1000)
    neighborhood: Pair = option((7, 7), "Size of the neighbourhood in tokens, K; must be odd.")
    dilations: Ints | None = option(None, "Dilation of every second block in each stage, as in DiNAT.", shown="1")
    position_bias: bool = option(True, "Add a learned bias for the offset of each key.")
    layer_scale: bool = option(False, "Scale the output of each branch by a learned factor for each channel.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim % 2:
            raise UsageError(
                f"{{dim}} must be even, since the first convolution has half as many channels (got {self.dim}); "
                f"nearest: {self.dim - 1} or {self.dim + 1}"
            )

    def dilation_of(self, stage: Stage) -> int:
        """Return the dilation of every second block of a stage."""
        return self.dilations[stage.index] if self.dilations else 1

    def kind_of(self, stage: Stage, block: int) -> int:
        """Return 1 for a dilated block, else 0."""
        return block % 2 if self.dilation_of(stage) > 1 else 0

    def make_attention(self, stage: Stage, kind: int) -> NATSpec:
        """Return the attention of a stage's blocks; those of kind 1 are dilated.

        Raises:
            UsageError: if the neighbourhood does not fit into the grid.
        """
        dilation = self.dilation_of(stage) if kind else 1
        for side, size in zip(stage.grid, self.neighborhood, strict=True):
            where = f"the grid of each stage, {spell(stage.grid)} in stage {stage.index + 1}"
            if size > side:
                raise UsageError(f"{{neighborhood}} must not exceed {where} (got {size}); use a larger {{image}}")
            if size * dilation > side:
                raise UsageError(
                    f"{{dilations}} times {{neighborhood}} {size} must not exceed {where} (got {dilation}); "
                    f"largest: {side // size}"
                )
        return NATSpec(
            dim=stage.dim,
            heads=stage.heads,
            resolution=stage.grid,
            neighborhood=self.neighborhood,
            dilation=(dilation, dilation),
            position_bias=self.position_bias,
            **self.shared(),
        )

    @property
    def half_grid(self) -> Pair:
        """Return the grid after the first convolution."""
        return -(-self.image[0] // 2), -(-self.image[1] // 2)

    def stem_form(self) -> dict[str, int]:
        """Return the MACs of each step before the stages, for one image."""
        (t, u), (y, x), half = self.half_grid, self.grid, self.dim // 2
        return {
            "patch_embed.embed_half": 3 * KERNEL**2 * t * u * half,
            "patch_embed.embed": KERNEL**2 * half * y * x * self.dim,
        }

    def stem_cost(self, groups: Sequence[Group]) -> Expression:
        """Return the MACs of the two convolutions before the stages, 27nS + 9hw₁SC₁, with S = C₁/2 channels between."""
        half, n = symbol("S", self.dim // 2), symbol("n", self.half_grid[0] * self.half_grid[1])
        return 3 * KERNEL**2 * n * half + KERNEL**2 * tokens_of(groups).in_stage(1) * half * dims_of(groups).in_stage(1)

    def params(self) -> int:
        """Count the parameters: blocks of 4C² + 2CE + (2K−1)²H and biases, convolutions between them, and the head."""
        half, (p, q) = self.dim // 2, self.neighborhood
        total = 3 * KERNEL**2 * half + half + KERNEL**2 * half * self.dim + 3 * self.dim
        for stage in self.stages:
            C, E = stage.dim, self.hidden_of(stage)
            bias = (2 * p - 1) * (2 * q - 1) * stage.heads * self.position_bias
            attention = 4 * C**2 + 3 * C * self.qkv_bias + C + bias
            total += stage.depth * (attention + 2 * C * E + E + C + 4 * C + 2 * C * self.layer_scale)
            if stage.index:
                total += KERNEL**2 * self.before(stage).dim * C + 2 * C
        return total + 2 * C + (C + 1) * self.classes

    def attention_cost(self, groups: Sequence[Group]) -> Expression:
        """Return the MACs of neighbourhood attention: 4hwC² + 2K²hwC."""
        hw, C = tokens_of(groups), dims_of(groups)
        keys = self.neighborhood[0] * self.neighborhood[1]
        return 4 * hw * C**2 + 2 * symbol("K²", keys, spelled=(spell(self.neighborhood),)) * hw * C
