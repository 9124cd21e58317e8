"""Options of MaxViT, and its cost by formula."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from attnscope.attentions.heads import Headed
from attnscope.attentions.maxvit.spec import MaxViTSpec
from attnscope.attentions.spec import option
from attnscope.core.axes import spell
from attnscope.core.errors import UsageError, nearest_multiples
from attnscope.core.formula import Expression, over_stages, symbol
from attnscope.core.sizes import Ints, Pair, check_divisible
from attnscope.networks.hierarchy.spec import Group, HierarchySpec, dims_of, tokens_of
from attnscope.networks.spec import DEEPEST
from attnscope.networks.stages import Stage

KERNEL = 3
"""Side of the convolutions of the stem, and of the depthwise one of an MBConv."""
EXPANSION = 4
"""Hidden channels of an MBConv, as a multiple of its output channels (Tu et al., arXiv 2204.01697, appendix A)."""
SQUEEZE = 4
"""Output channels of an MBConv for each channel of its squeeze-and-excitation."""


@dataclass(frozen=True)
class MBConv:
    """Sizes of an MBConv: its channels and its grids, before and after it, with expanded and squeezed channels."""

    channels: int
    dim: int
    before: Pair
    after: Pair

    @property
    def expanded(self) -> int:
        """Return the number of channels of the depthwise convolution."""
        return EXPANSION * self.dim

    @property
    def squeezed(self) -> int:
        """Return the number of channels between the two layers of squeeze-and-excitation."""
        return self.dim // SQUEEZE

    @property
    def halves(self) -> bool:
        """Return whether it halves the grid."""
        return self.before != self.after

    @property
    def widens_shortcut(self) -> bool:
        """Return whether a convolution gives the shortcut the channels of the output."""
        return self.channels != self.dim

    def closed_form(self) -> dict[str, int]:
        """Return the MACs of each step for one image."""
        before, after = (side[0] * side[1] for side in (self.before, self.after))
        shortcut = {"widen_shortcut": after * self.channels * self.dim} if self.widens_shortcut else {}
        return {
            **shortcut,
            "expand": before * self.channels * self.expanded,
            "mix": KERNEL**2 * after * self.expanded,
            "reduce": self.expanded * self.squeezed,
            "restore": self.expanded * self.squeezed,
            "project": after * self.expanded * self.dim,
        }

    def params(self) -> int:
        """Count the parameters, with those of the batch norms."""
        C, e, r = self.dim, self.expanded, self.squeezed
        norms = 2 * self.channels + 4 * e
        shortcut = (self.channels + 1) * C * self.widens_shortcut
        return norms + shortcut + self.channels * e + KERNEL**2 * e + 2 * e * r + r + e + e * C + C


@dataclass(frozen=True, kw_only=True)
class MaxViTNetworkSpec(HierarchySpec):
    """MaxViT (Tu et al., arXiv 2204.01697): blocks of an MBConv, block attention and grid attention.

    The defaults are MaxViT-T at 224 pixels. The first block of each stage halves the grid, with a stride in its MBConv.
    Checkpointing concerns the attentions, each with its MLP.

    Raises:
        UsageError: if a value is out of range or contradicts another one. dim must be divisible by heads and by 4. Each
            stage must halve its grid exactly, into a grid that is divisible by the partition.
    """

    name: ClassVar[str] = "maxvit"
    title: ClassVar[str] = "MaxViT"
    SUMMARY: ClassVar[str] = "MaxViT, whole or in stages and blocks."
    INSTEAD: ClassVar[Mapping[str, str]] = {"resolution": "{image}"}
    CHANNEL_AXIS: ClassVar[int] = 1

    depths: Ints = option((2, 2, 5, 2), "Number of blocks of each stage.", high=DEEPEST)
    stem: int = option(64, "Number of channels of the convolutions before the stages.")
    partition: Pair = option((7, 7), "Size of a block in tokens; in grid attention, number of keys down and across.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim % SQUEEZE:
            nearest = nearest_multiples(self.dim, SQUEEZE)
            raise UsageError(
                f"{{dim}} must be divisible by {SQUEEZE}, since squeeze-and-excitation has a quarter of the channels "
                f"(got {self.dim}); nearest: {nearest}"
            )

    def check_image(self) -> None:
        """Check that the stem and each stage can halve the image.

        Raises:
            UsageError: if one of them cannot.
        """
        stride = 2 ** (len(self.depths) + 1)
        why = f", since the stem and {len(self.depths)} stages halve it"
        check_divisible("image", self.image, (stride, stride), why=why)

    def make_attention(self, stage: Stage, kind: int) -> MaxViTSpec:
        """Return the block attention of a stage's blocks.

        Raises:
            UsageError: if the stages cannot halve the image, or if the partition does not divide the grid.
        """
        self.check_image()
        for side, part in zip(stage.grid, self.partition, strict=True):
            if side % part:
                raise UsageError(
                    f"{{partition}} must divide the grid of each stage, {spell(stage.grid)} in stage "
                    f"{stage.index + 1} (got {part}); at {{image}} {self.image[0]}, "
                    f"{self.image[0] // 2 ** (len(self.depths) + 1)} does"
                )
        return MaxViTSpec(
            dim=stage.dim, heads=stage.heads, resolution=stage.grid, partition=self.partition, **self.shared()
        )

    def attentions_of(self, stage: Stage) -> tuple[MaxViTSpec, MaxViTSpec]:
        """Return the block attention and the grid attention of a stage's blocks."""
        within = self.attention_of(stage, 0)
        assert isinstance(within, MaxViTSpec)
        return within, replace(within, grid=True)

    def convolution_of(self, stage: Stage, block: int) -> MBConv:
        """Return the MBConv of a block, counted from 0; that of the first one halves the grid."""
        y, x = stage.grid
        if block:
            return MBConv(stage.dim, stage.dim, stage.grid, stage.grid)
        return MBConv(self.before(stage).dim if stage.index else self.stem, stage.dim, (2 * y, 2 * x), stage.grid)

    @property
    def half_grid(self) -> Pair:
        """Return the grid of the stem."""
        return self.image[0] // 2, self.image[1] // 2

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of the module's input: images, or planes (b, c, y, x) for a stage or a block."""
        if self.is_whole:
            return self.image_shape
        convolution = self.convolution_of(self.opened, (self.block or 1) - 1)
        return self.batch, convolution.channels, *convolution.before

    def stem_form(self) -> dict[str, int]:
        """Return the MACs of each step before the stages, for one image."""
        places = KERNEL**2 * self.half_grid[0] * self.half_grid[1] * self.stem
        return {"stem.embed": 3 * places, "stem.refine": self.stem * places}

    def form_of_block(self, stage: Stage, block: int) -> dict[str, int]:
        """Return the MACs of each step of a block, counted from 0."""
        b = self.batch
        form = {f"conv.{name}": b * macs for name, macs in self.convolution_of(stage, block).closed_form().items()}
        for path, attention in zip(("attn_block", "attn_grid"), self.attentions_of(stage), strict=True):
            form |= {f"{path}.{name}": macs for name, macs in self.block_form(stage, attention).items()}
        return form

    def closed_form(self) -> dict[str, int]:
        """Return the MACs of each step with MACs; identical blocks are listed once, as the first of them."""
        if self.is_block:
            return self.form_of_block(self.opened, (self.block or 1) - 1)
        form: dict[str, int] = {}
        for stage in self.stages if self.is_whole else [self.opened]:
            for block in range(min(stage.depth, 2)):
                path = self.path_of_block(stage, block)
                form |= {f"{path}.{name}": macs for name, macs in self.form_of_block(stage, block).items()}
        if not self.is_whole:
            return form
        last = self.stages[-1].dim
        form |= {name: self.batch * macs for name, macs in self.stem_form().items()}
        return {**form, "head.hide": self.batch * last**2, "head.classify": self.batch * last * self.classes}

    def params(self) -> int:
        """Count the parameters: those of the stem, of MBConvs, of two attentions with an MLP a block, and of the head."""
        S, (p, q) = self.stem, self.partition
        total = 3 * KERNEL**2 * S + S + 2 * S + KERNEL**2 * S**2 + S
        for stage in self.stages:
            C, E = stage.dim, self.hidden_of(stage)
            attention = 4 * C**2 + 3 * C * self.qkv_bias + C + (2 * p - 1) * (2 * q - 1) * stage.heads
            total += 2 * stage.depth * (attention + 2 * C * E + E + C + 4 * C)
            total += sum([self.convolution_of(stage, block).params() for block in range(stage.depth)])
        return total + 2 * C + C**2 + C + (C + 1) * self.classes

    def attention_cost(self, groups: Sequence[Group]) -> Expression:
        """Return the MACs of block attention, which are those of grid attention: 4hwC² + 2P²hwC."""
        hw, C = tokens_of(groups), dims_of(groups)
        keys = symbol("P²", self.partition[0] * self.partition[1], spelled=(spell(self.partition),))
        return 4 * hw * C**2 + 2 * keys * hw * C

    def _cost(self, is_global: bool) -> Expression:
        """Return the MACs of the network or its part, with global attention or its own."""
        if self.is_whole:
            return self._network_cost(is_global)
        if self.is_block:
            return self._blocks_cost([(self.opened, (self.block or 1) - 1, 1)], is_global)
        return self._summed_cost([self.opened], is_global)

    def _network_cost(self, is_global: bool) -> Expression:
        S, n = symbol("S", self.stem), symbol("n", self.half_grid[0] * self.half_grid[1])
        last = symbol("D", self.stages[-1].dim)
        stem = 3 * KERNEL**2 * n * S + KERNEL**2 * n * S**2
        return stem + self._summed_cost(self.stages, is_global) + last**2 + last * symbol("classes", self.classes)

    def _summed_cost(self, stages: Sequence[Stage], is_global: bool) -> Expression:
        """Return the MACs of the blocks of stages: of the first one, and of the others, which are alike."""
        kinds = [(stage, block, count) for stage in stages for block, count in ((0, 1), (1, stage.depth - 1)) if count]
        cost = symbol("L", *(count for *_, count in kinds), note="blocks") * self._blocks_cost(kinds, is_global)
        return over_stages(len(kinds), cost) if len(kinds) > 1 else cost

    def _blocks_cost(self, kinds: Sequence[tuple[Stage, int, int]], is_global: bool) -> Expression:
        """Return the MACs of a block, with variables that have a value for each kind of block."""
        convolutions = [self.convolution_of(stage, block) for stage, block, _ in kinds]
        groups = [Group(stage, self.attention_of(stage, block), count, 0) for stage, block, count in kinds]
        hw, C = tokens_of(groups), dims_of(groups)
        before = symbol("V", *(each.before[0] * each.before[1] for each in convolutions), note="places before")
        channels = symbol("I", *(each.channels for each in convolutions), note="channels before")
        shortcut = symbol("s", *(int(each.widens_shortcut) for each in convolutions))
        mbconv = (
            EXPANSION * before * channels * C
            + KERNEL**2 * EXPANSION * hw * C
            + 2 * EXPANSION // SQUEEZE * C**2
            + EXPANSION * hw * C**2
            + shortcut * hw * channels * C
        )
        attention = self.global_cost(groups) if is_global else self.attention_cost(groups)
        return mbconv + 2 * (attention + self.mlp_cost(groups))

    def title_of(self, attention: Headed) -> str:
        """Return what distinguishes an attention from the others of its stage, in a few words."""
        return "grid" if getattr(attention, "grid", False) else "block"
