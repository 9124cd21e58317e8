"""Options of Swin and Swin V2, and their cost by the papers' formulas."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

from attnscope.attentions.complexity import Complexity, Term, padded_tokens, window_keys
from attnscope.attentions.heads import KV_HEADS
from attnscope.attentions.spec import option
from attnscope.attentions.swin.spec import SwinSpec
from attnscope.attentions.swinv2.spec import HIDDEN, SwinV2Spec
from attnscope.core.errors import UsageError
from attnscope.core.formula import Expression, over_stages, symbol
from attnscope.core.neighbourhood import Seen, widen
from attnscope.core.sizes import Ints, Pair, plural, spell_pair
from attnscope.networks.spec import DEEPEST, NetworkSpec
from attnscope.networks.stages import CLIPS, PER_AXIS, Stage, halving

MOST_FOLLOWED = 2**16
"""Maximum number of patches along a side for which receptive fields are computed, which takes about a second."""


@dataclass(frozen=True, kw_only=True)
class SwinNetworkSpec(NetworkSpec):
    """Swin (Liu et al., arXiv 2103.14030): stages of alternating W-MSA and SW-MSA blocks, joined by patch merging.

    The defaults are Swin-T at 224 pixels. Embedding dimension and heads double from stage to stage; a given number of
    key/value heads is the same in every stage. Libraries differ in what they do if a window is
    larger than a stage's grid, which `clip` selects.

    Raises:
        UsageError: if a value is out of range or contradicts another one. dim must be divisible by heads, heads by
            kv_heads, and the image by the patch.
    """

    name: ClassVar[str] = "swin"
    title: ClassVar[str] = "Swin"
    SUMMARY: ClassVar[str] = "Swin, whole or in stages and blocks."
    INSTEAD: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("shift", "shift_size"), "{scope} block {block} 2 (shifted windows) or {block} 1 (plain windows)"
    )

    dim: int = option(96, "Embedding dimension of the first stage.")
    heads: int = option(3, "Number of attention heads of the first stage.")
    kv_heads: int | None = option(None, f"{KV_HEADS} The same in every stage.", shown="heads")
    depths: Ints = option((2, 2, 6, 2), "Number of blocks of each stage.", high=DEEPEST)
    window: Pair = option((7, 7), "Window size in tokens.")
    patch: Pair = option((4, 4), "Patch size in pixels.")
    clip: str = option(
        PER_AXIS,
        f"Windows on a smaller grid: {', '.join(f'{name} ({rule.libraries})' for name, rule in CLIPS.items())}.",
        choices=tuple(CLIPS),
    )
    stage: int | None = option(
        None, "Stage to explore, counted from 1.", shown="all with --scope model, else 1", selects=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.depths) > 32:
            raise UsageError(
                f"{{depths}} must have at most 32 stages, since each doubles {{dim}} (got {len(self.depths)})"
            )
        self.attention_of(self.stages[0], 0)  # valid heads here are valid in all stages
        self.hidden(self.dim)  # the hidden size is larger in all later stages
        self.check_index("stage", self.stage, len(self.depths))
        if self.block is not None and self.stage is None and self.scope == "model":
            raise UsageError("{block} requires {stage}, because blocks are numbered within a stage; add {stage}")
        self.check_index("block", self.block, self.opened.depth)

    @property
    def is_whole(self) -> bool:
        """Return whether the Spec describes the whole network."""
        return super().is_whole and self.stage is None

    @property
    def is_block(self) -> bool:
        """Return whether the Spec describes one block."""
        return self.scope == "block" or self.block is not None

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Return the stages; a grid with an odd side is padded by one before merging, and clips the window."""
        return halving(self.depths, self.dim, self.heads, self.grid, self.window, self.clip)

    @property
    def opened(self) -> Stage:
        """Return the selected stage, by default the first one."""
        return self.stages[(self.stage or 1) - 1]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of the module's input: images for a network, (b, height, width, c) for a part of it."""
        if self.is_whole:
            return self.image_shape
        stage = self.opened if self.is_block or self.opened.index == 0 else self.stages[self.opened.index - 1]
        return self.batch, *stage.grid, stage.dim

    def attention(self) -> SwinSpec:
        """Return the attention of the selected block; every second block is shifted."""
        return self.attention_of(self.opened, (self.block or 1) - 1)

    def attention_of(self, stage: Stage, block: int) -> SwinSpec:
        """Return the attention of a block, counted from 0; blocks with equal attentions are identical."""
        cache = self._attentions
        if (stage.index, block % 2) not in cache:
            cache[stage.index, block % 2] = self._attention(stage, shifted=block % 2 > 0)
        return cache[stage.index, block % 2]

    @cached_property
    def _attentions(self) -> dict[tuple[int, int], SwinSpec]:
        """Return the cache of attentions, by stage and shift."""
        return {}

    def _attention(self, stage: Stage, shifted: bool) -> SwinSpec:
        return self.attention_class()(
            dim=stage.dim,
            heads=stage.heads,
            kv_heads=self.kv_heads,
            resolution=stage.grid,
            window=stage.window,
            shift_size=stage.shift if shifted and any(stage.shift) else None,
            **self.of_attention(stage),
        )

    def attention_class(self) -> type[SwinSpec]:
        """Return the Spec class of the blocks' attention."""
        return SwinSpec

    def of_attention(self, stage: Stage) -> dict[str, Any]:
        """Return the other fields of the attention's Spec in a stage."""
        return self.shared()

    def kinds(self, stage: Stage) -> list[tuple[SwinSpec, list[int]]]:
        """Return the different attentions of a stage, each with its blocks, counted from 0."""
        blocks: dict[SwinSpec, list[int]] = {}
        for block, attention in zip(range(stage.depth), self._alternating(stage), strict=False):
            blocks.setdefault(attention, []).append(block)
        return list(blocks.items())

    def _alternating(self, stage: Stage) -> list[SwinSpec]:
        plain, shifted = self.attention_of(stage, 0), self.attention_of(stage, 1)
        return [plain, shifted] * (stage.depth // 2 + 1)

    def of_size(self, size: int) -> "SwinNetworkSpec":
        """Return a copy for images with `size` patches on each side."""
        return replace(self, image=(size * self.patch[0], size * self.patch[1]))

    def headline(self) -> list[str]:
        """Describe this Spec in a few words each."""
        (height, width), (p, q), stage = self.image, self.patch, self.opened
        if self.is_block:
            return [f"stage {stage.index + 1}, block {self.block or 1} of {stage.depth}", *self.attention().headline()]
        window = [f"window {self.window[0]}" if len(set(self.window)) == 1 else "window {}×{}".format(*self.window)]
        if not self.is_whole:
            tokens = "{}×{} tokens".format(*stage.grid)
            words = [f"stage {stage.index + 1} of {len(self.depths)}", plural(stage.depth, "block"), tokens]
            heads = [plural(stage.heads, "head"), *self.attention().shared_heads()]
            return [*words, f"dim {stage.dim}", *heads, *window]
        words = [f"{height}×{width} pixels", f"patch {p}" if p == q else f"patch {p}×{q}", f"dim {self.dim}"]
        shared = self.attention_of(self.stages[-1], 0).shared_heads()
        heads = ["-".join(str(stage.heads) for stage in self.stages) + " heads", *shared] if shared else []
        return [*words, f"{'-'.join(map(str, self.depths))} blocks", *heads, *window]

    def closed_form(self) -> dict[str, int]:
        """Return the MACs of each step with MACs; identical blocks are listed once, as the first of them."""
        if self.is_block:
            return self._block_form(self.attention())
        b, stages = self.batch, self.stages if self.is_whole else [self.opened]
        form: dict[str, int] = {}
        for stage in stages:
            path = f"layers.{stage.index}." if self.is_whole else ""
            if stage.index:
                form[f"{path}downsample.reduce"] = b * self._merging(stage)
            for attention, blocks in self.kinds(stage):
                of_block = self._block_form(attention)
                form |= {f"{path}blocks.{blocks[0]}.{name}": macs for name, macs in of_block.items()}
        if self.is_whole:
            form |= {"patch_embed.embed": b * self._embed(), "head": b * stages[-1].dim * self.classes}
        return form

    def params(self) -> int:
        """Count the parameters: 3p²C + 3C, blocks of 12C² + 13C + (2M−1)²H, merging 8C² + 8C, 2C + (C+1)·classes."""
        total = (3 * self.patch[0] * self.patch[1] + 3) * self.dim
        for stage in self.stages:
            C, E, G = stage.dim, self.hidden(stage.dim), self._kv_dim(stage)
            block = 2 * C**2 + 2 * C * G + C + 2 * C * E + E + C + 4 * C + self._attention_params(stage)
            total += stage.depth * block + (self._merging_params(C // 2) if stage.index else 0)
        return total + 2 * C + (C + 1) * self.classes

    def macs(self) -> int:
        """Count the MACs for one image.

        They are 3p²hw₁C₁ + Σ(L(12hwC² + 2M²hwC) + 2mhwC²) + C₄·classes, and in Swin V2 those of the position bias.
        """
        return self._network_cost().value + sum([stage.depth * self._bias_macs(stage) for stage in self.stages])

    def complexity(self) -> Complexity:
        """Return the formulas of the network or its part with windows and with global attention.

        Neither includes the bias MLP of Swin V2, which runs once for all images.
        """
        own, reference = (self._cost(is_global) for is_global in (False, True))
        return Complexity(self.batch, Term("windowed", own), Term("global", reference), saving="in windows")

    def cautions(self) -> list[str]:
        """Return notes about clipped windows, padding and receptive fields that are not computed."""
        notes = super().cautions()
        if max(self.grid) > MOST_FOLLOWED:
            notes.append(f"receptive fields are not computed for more than {MOST_FOLLOWED:,} patches along a side")
        for stage in self.stages if self.is_whole else [self.opened]:
            grid = self.attention_of(stage, 0).windows
            if stage.window != self.window:
                rule = f"clip {self.clip}, as in {CLIPS[self.clip].libraries}"
                notes.append(
                    f"stage {stage.index + 1} clips the window to its grid: {spell_pair(stage.window)} ({rule})"
                )
            if grid.is_padded:
                before, after = ("{}×{}".format(*sides) for sides in (stage.grid, grid.padded))
                notes.append(
                    f"stage {stage.index + 1} pads its grid from {before} to {after} for attention: "
                    f"{grid.waste:.1%} of the tokens there are padding"
                )
        return notes

    def next_command(self) -> tuple[str, str]:
        """Return the suggested next command and the reason for it."""
        if self.is_whole:
            deepest = max(self.stages, key=lambda stage: stage.depth)
            return self.command(stage=deepest.index + 1), "the steps of its deepest stage"
        return self.command(scope="model", stage=None, block=None), "the whole network"

    @cached_property
    def sees(self) -> dict[tuple[int, int], Pair]:
        """Return the largest receptive field after each block, in patches down and across, by stage and block from 0.

        It is empty for a grid with more than MOST_FOLLOWED patches along a side, since each position is computed.
        """
        if max(self.grid) > MOST_FOLLOWED:
            return {}
        seen: dict[tuple[int, int], Pair] = {}
        axes: list[Seen] = [[(place, place) for place in range(side)] for side in self.grid]
        is_global = False
        for stage in self.stages:
            if stage.index:
                axes = [_merged(axis) for axis in axes]
            for block, attention in zip(range(stage.depth), self._alternating(stage), strict=False):
                if not is_global:
                    axes = [widen(each, attention.neighbourhood, axis) for axis, each in enumerate(axes)]
                    is_global = all(
                        first == 0 and last == side - 1
                        for axis, side in zip(axes, self.grid, strict=True)
                        for first, last in axis
                    )
                down, across = (max(last - first for first, last in axis) + 1 for axis in axes)
                seen[stage.index, block] = down, across
        return seen

    def _embed(self) -> int:
        return 3 * self.patch[0] * self.patch[1] * self.dim * self.grid[0] * self.grid[1]

    def _merging(self, stage: Stage) -> int:
        return 2 * stage.grid[0] * stage.grid[1] * stage.dim**2

    def _merging_params(self, dim: int) -> int:
        return 8 * dim**2 + 8 * dim

    def _kv_dim(self, stage: Stage) -> int:
        """Return the dimension of keys and of values."""
        return stage.dim // stage.heads * (self.kv_heads or stage.heads)

    def _attention_params(self, stage: Stage) -> int:
        """Count the parameters of an attention, without the weights of its projections and the bias of the last one."""
        p, q = stage.window
        bias = (stage.dim + 2 * self._kv_dim(stage)) * self.qkv_bias
        return bias + (2 * p - 1) * (2 * q - 1) * stage.heads

    def _block_form(self, attention: SwinSpec) -> dict[str, int]:
        (height, width), C = attention.resolution, attention.dim
        mlp = self.batch * height * width * C * self.hidden(C)
        form = {f"attn.{name}": macs for name, macs in attention.closed_form().items()}
        return {**form, "mlp.expand": mlp, "mlp.contract": mlp}

    def _cost(self, is_global: bool) -> Expression:
        """Return the MACs of the network or its part, with global attention or with windows on the padded grid."""
        if self.is_whole:
            return self._network_cost(is_global)
        stage = self.opened
        block = self._block_cost([stage], is_global)
        if self.is_block:
            return block
        hw, C = self._tokens([stage]), symbol("C", stage.dim)
        return stage.depth * block + 2 * hw * C**2 if stage.index else stage.depth * block

    def _network_cost(self, is_global: bool = False) -> Expression:
        stages, hw, C = self.stages, self._tokens(self.stages), symbol("C", *(stage.dim for stage in self.stages))
        summand = symbol("L", *self.depths, note="blocks") * self._block_cost(stages, is_global)
        if len(stages) > 1:
            merging = symbol("m", *(int(stage.index > 0) for stage in stages), note="mergings")
            summand += 2 * merging * hw * C**2
        embedding = 3 * self.patch_pixels * hw.in_stage(1) * C.in_stage(1)
        head = C.in_stage(len(stages)) * symbol("classes", self.classes)
        return embedding + over_stages(len(stages), summand) + head

    def _block_cost(self, stages: Sequence[Stage], is_global: bool) -> Expression:
        """Return the MACs of a block, with variables that have a value for each of the stages."""
        hw, grids = self._tokens(stages), [self.attention_of(stage, 0).windows for stage in stages]
        dims, kv_dims = tuple(stage.dim for stage in stages), tuple(map(self._kv_dim, stages))
        if is_global:
            return self.block_cost(hw, dims, kv_dims, keys=hw)
        tokens = tuple(stage.grid[0] * stage.grid[1] for stage in stages)
        padded = padded_tokens(tokens, tuple(grid.tokens for grid in grids))
        return self.block_cost(hw, dims, kv_dims, window_keys(*(grid.window for grid in grids)), padded)

    def _tokens(self, stages: Sequence[Stage]) -> Expression:
        return symbol("hw", *(stage.grid[0] * stage.grid[1] for stage in stages))

    def _bias_macs(self, stage: Stage) -> int:
        """Return the MACs of an attention's position bias."""
        return 0


@dataclass(frozen=True, kw_only=True)
class SwinV2NetworkSpec(SwinNetworkSpec):
    """Swin V2 (Liu et al., arXiv 2111.09883): cosine attention, and norms after each branch and each merging.

    The defaults are SwinV2-T at 256 pixels, with 8×8 windows.
    """

    name: ClassVar[str] = "swinv2"
    title: ClassVar[str] = "Swin V2"
    SUMMARY: ClassVar[str] = "Swin V2, whole or in stages and blocks."
    INSTEAD: ClassVar[Mapping[str, str]] = {**SwinNetworkSpec.INSTEAD, "pretrained_window": "{pretrained_windows}"}

    image: Pair = option((256, 256), "Image size in pixels.")
    window: Pair = option((8, 8), "Window size in tokens.")
    pretrained_windows: Ints | None = option(None, "Window sizes in pre-training, one for each stage.", shown="window")

    def __post_init__(self) -> None:
        super().__post_init__()
        given, stages = self.pretrained_windows, len(self.depths)
        if given is not None and len(given) not in (1, stages):
            raise UsageError(
                f"{{pretrained_windows}} must have 1 or {stages} numbers, one for each stage (got {len(given)})"
            )

    def attention_class(self) -> type[SwinSpec]:
        """Return the Spec class of the blocks' attention."""
        return SwinV2Spec

    def of_attention(self, stage: Stage) -> dict[str, Any]:
        """Return the other fields of the attention's Spec in a stage."""
        if self.pretrained_windows is None:
            return self.shared()
        windows = self.pretrained_windows
        side = windows[min(stage.index, len(windows) - 1)]
        return {**self.shared(), "pretrained_window": (side, side)}

    def _merging_params(self, dim: int) -> int:
        return 8 * dim**2 + 4 * dim

    def _attention_params(self, stage: Stage) -> int:
        C, G, H = stage.dim, self._kv_dim(stage), stage.heads
        return (C + G) * self.qkv_bias + H + 3 * HIDDEN + HIDDEN * H

    def _bias_macs(self, stage: Stage) -> int:
        p, q = stage.window
        return (2 * p - 1) * (2 * q - 1) * (2 * HIDDEN + HIDDEN * stage.heads)


def _merged(seen: Seen) -> Seen:
    """Return the receptive fields along an axis after merging: the union of each pair, or a single last one."""
    pairs = [seen[start : start + 2] for start in range(0, len(seen), 2)]
    return [(min(first for first, _ in both), max(last for _, last in both)) for both in pairs]
