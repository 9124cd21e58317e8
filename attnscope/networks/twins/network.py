"""Twins as modules; state dicts of timm are converted."""

from typing import Any

from torch import Tensor, nn

from attnscope.attentions.heads import Headed
from attnscope.attentions.layer import Layer
from attnscope.core.sizes import Pair
from attnscope.networks.block.network import Block
from attnscope.networks.hierarchy import steps as shared
from attnscope.networks.hierarchy.spec import STRIDE
from attnscope.networks.layers import Mlp, initialize
from attnscope.networks.pvt import network as pvt
from attnscope.networks.pvt.network import EPS, RESIZE
from attnscope.networks.stages import Stage
from attnscope.networks.twins import steps
from attnscope.networks.twins.spec import KERNEL, TwinsNetworkSpec
from attnscope.networks.weights import LoadsOthers, State, from_timm_twins


class PatchEmbed(pvt.PatchEmbed):
    """Patch embedding of patches that do not overlap: (b, 3, height, width) -> (b, n, c)."""

    @steps.embed
    def embed(self, image: Tensor) -> Tensor:
        return self.proj(image)


class PatchMerging(pvt.PatchMerging):
    """Patch merging of 2×2 tokens: (b, v·w, o) -> (b, v/2·w/2, c)."""

    @steps.merge
    def merge(self, grid: Tensor) -> Tensor:
        return self.proj(grid)


class PositionEncoding(Layer):
    """A depthwise 3×3 convolution whose result is added to the tokens: (b, n, c) -> (b, n, c).

    Args:
        dim: embedding dimension, c.
        grid: the grid of tokens, (y, x).
    """

    def __init__(self, dim: int, grid: Pair) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.Conv2d(dim, dim, KERNEL, padding=KERNEL // 2, groups=dim))
        self.dim, self.grid = dim, grid

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        return {"y": self.grid[0], "x": self.grid[1], "c": self.dim}

    def forward(self, x: Tensor) -> Tensor:
        planes = self.to_planes(x)
        return self.to_sequence(self.add_encoding(self.encode(planes), planes))

    @steps.to_planes
    def to_planes(self, x: Tensor) -> Tensor:
        return x.unflatten(1, self.grid).permute(0, 3, 1, 2)

    @steps.encode
    def encode(self, planes: Tensor) -> Tensor:
        return self.proj(planes)

    @steps.add_encoding
    def add_encoding(self, encoding: Tensor, planes: Tensor) -> Tensor:
        return encoding + planes

    @steps.to_sequence
    def to_sequence(self, planes: Tensor) -> Tensor:
        return planes.flatten(2).transpose(1, 2)


class TwinsStage(Layer):
    """A stage: patch merging, except in the first stage, and blocks, with the position encoding after the first one."""

    def __init__(self, spec: TwinsNetworkSpec, stage: Stage) -> None:
        super().__init__()
        self.stage = stage
        before = spec.before(stage)
        self.downsample = (
            PatchMerging(before.dim, stage.dim, spec.MERGING, before.grid) if stage.index else nn.Identity()
        )
        self.blocks = nn.Sequential(
            *(build_block(spec, stage, spec.attention_of(stage, index)) for index in range(stage.depth))
        )
        self.pos_block = PositionEncoding(stage.dim, stage.grid)

    def arguments(self) -> dict[str, Any]:
        return {"dim": self.stage.dim, "heads": self.stage.heads, "depth": self.stage.depth}

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index == 0:
                x = self.pos_block(x)
        return x


class Twins(LoadsOthers):
    """Twins-SVT and Twins-PCPVT: (b, 3, height, width) -> (b, classes). State dicts of timm are converted."""

    def __init__(self, spec: TwinsNetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.patch_embed = PatchEmbed(3, spec.dim, spec.STEM, STRIDE)
        self.stages = nn.Sequential(*(TwinsStage(spec, stage) for stage in spec.stages))
        last = spec.stages[-1].dim
        self.norm = nn.LayerNorm(last, EPS)
        self.head = nn.Linear(last, spec.classes)
        initialize(self)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        return {"c": self.head.in_features, "k": self.head.out_features}

    def arguments(self) -> dict[str, Any]:
        spec = self.spec
        return {"image": spec.image, "dim": spec.dim, "depths": spec.depths, "classes": spec.classes}

    def forward(self, image: Tensor) -> Tensor:
        height, width = self.spec.image
        self.check_shape(image, {"b": None, "i": 3, "height": height, "width": width}, fix=RESIZE)
        x = self.patch_embed(image)
        for stage in self.stages:
            x = stage(x)
        x = self.normalize(x)
        x = self.pool(x)
        return self.classify(x)

    @shared.norm
    def normalize(self, x: Tensor) -> Tensor:
        return self.norm(x)

    @shared.pool
    def pool(self, x: Tensor) -> Tensor:
        return x.mean(dim=1)

    @shared.head
    def classify(self, pooled: Tensor) -> Tensor:
        return self.head(pooled)

    def translate(self, state: State) -> None:
        """Convert a state dict of timm in place."""
        from_timm_twins(state)


def build_block(spec: TwinsNetworkSpec, stage: Stage, attention: Headed) -> Block:
    """Build a block of a stage."""
    return Block(attention, Mlp(stage.dim, spec.hidden_of(stage), spec.proj_drop), spec.checkpoint, EPS)


def build(spec: TwinsNetworkSpec) -> nn.Module:
    """Build the module that a Spec describes: the whole network, one stage, or one block."""
    if spec.is_whole:
        return Twins(spec)
    if not spec.is_block:
        return TwinsStage(spec, spec.opened)
    return build_block(spec, spec.opened, spec.attention())
