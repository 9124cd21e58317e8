"""Hiera as modules with timm's parameter names.

timm orders the tokens so that pooling is a maximum over the slowest index. Here the tokens stay on their grid, and each
attention partitions it; the result is the same.
"""

from typing import Any

import torch
from torch import Tensor, nn

from attnscope.attentions.heads import Headed
from attnscope.attentions.hiera.spec import HieraSpec
from attnscope.attentions.layer import CHANNELS_FIRST, Layer
from attnscope.networks.block.network import GridBlock, GridMlp
from attnscope.networks.hiera import steps
from attnscope.networks.hiera.spec import POOL, HieraNetworkSpec
from attnscope.networks.hierarchy import steps as shared
from attnscope.networks.hierarchy.spec import STRIDE
from attnscope.networks.layers import initialize
from attnscope.networks.stages import Stage
from attnscope.networks.vit import steps as sequence

EPS = 1e-6
"""Number that the norms add to the variance, as in timm."""
RESIZE = "resize it, or build the network for its size"


class PatchEmbed(Layer):
    """Patch embedding of overlapping patches: (b, 3, height, width) -> (b, n, c)."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel, stride=STRIDE, padding=kernel // 2)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        p, q = self.proj.kernel_size
        return {"i": 3, "p": p, "q": q, "c": self.proj.out_channels}

    def arguments(self) -> dict[str, Any]:
        return {"dim": self.proj.out_channels}

    def forward(self, image: Tensor) -> Tensor:
        return self.flatten(self.embed(image))

    @shared.embed
    def embed(self, image: Tensor) -> Tensor:
        return self.proj(image)

    @sequence.flatten
    def flatten(self, planes: Tensor) -> Tensor:
        return planes.flatten(2).transpose(1, 2)


class PoolingBlock(GridBlock):
    """The first block of a later stage: (b, y, x, c) -> (b, y/2, x/2, o).

    Attention pools the queries. The residual is the maximum of each cell, after a projection of the normalized tokens.
    """

    def __init__(self, attention: HieraSpec, mlp: GridMlp, checkpoint: str = "none") -> None:
        super().__init__(attention, mlp, checkpoint, EPS)
        self.proj = nn.Linear(attention.dim, attention.out_dim)
        self.norm2 = nn.LayerNorm(attention.out_dim, EPS)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        return {"c": self.proj.in_features, "o": self.proj.out_features, "i": POOL, "j": POOL}

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        self.check_shape(x, {**dict.fromkeys(self.axes), "c": self.proj.in_features})
        return self.checkpointed("block", self.residual_branches, x)

    def residual_branches(self, x: Tensor, *others: Tensor) -> Tensor:
        """Add the attention to the pooled residual, then the MLP."""
        x = self.residual1(*self.pooled(x))
        return self.residual2(x, self.mlp(self.normalize2(x)))

    def pooled(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pooled residual and the output of the attention."""
        branch = self.normalize1(x)
        x = self.pool_residual(self.widen(branch))
        return x, self.checkpointed("attention", self.attn, branch)

    @steps.norm1
    def normalize1(self, x: Tensor) -> Tensor:
        return self.norm1(x)

    @steps.widen
    def widen(self, branch: Tensor) -> Tensor:
        return self.proj(branch)

    @steps.pool_residual
    def pool_residual(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (-1, POOL)).unflatten(1, (-1, POOL)).amax(dim=(2, 4))

    @steps.residual1
    def residual1(self, x: Tensor, branch: Tensor) -> Tensor:
        return x + branch

    @steps.norm2
    def normalize2(self, x: Tensor) -> Tensor:
        return self.norm2(x)

    @steps.residual2
    def residual2(self, x: Tensor, branch: Tensor) -> Tensor:
        return x + branch


class HieraStage(Layer):
    """A stage: blocks, the first of which pools, except in the first stage."""

    def __init__(self, spec: HieraNetworkSpec, stage: Stage) -> None:
        super().__init__()
        self.stage = stage
        self.blocks = nn.ModuleList(build_blocks(spec, stage))

    def arguments(self) -> dict[str, Any]:
        return {"dim": self.stage.dim, "heads": self.stage.heads, "depth": self.stage.depth}

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class Head(nn.Module):
    """The norm and the classification layer; a separate module, so that its parameter names are timm's."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, EPS)
        self.fc = nn.Linear(dim, classes)


class Hiera(Layer):
    """Hiera: (b, 3, height, width) -> (b, classes). State dicts of timm are loaded unchanged."""

    def __init__(self, spec: HieraNetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.pos_embed = nn.Parameter(torch.empty(1, spec.grid[0] * spec.grid[1], spec.dim))
        self.patch_embed = PatchEmbed(spec.dim, spec.STEM)
        self.blocks = nn.ModuleList(block for stage in spec.stages for block in build_blocks(spec, stage))
        self.head = Head(spec.stages[-1].dim, spec.classes)
        initialize(self)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        return {"k": self.head.fc.out_features}

    def arguments(self) -> dict[str, Any]:
        spec = self.spec
        return {"image": spec.image, "dim": spec.dim, "depths": spec.depths, "classes": spec.classes}

    def forward(self, image: Tensor) -> Tensor:
        height, width = self.spec.image
        axes = {"b": None, "i": 3, "height": height, "width": width}
        self.check_shape(image, axes, fix=RESIZE if image.dim() == 4 else CHANNELS_FIRST)
        x = self.unflatten(self.add_positions(self.patch_embed(image)))  # a variable would keep the patches alive
        for block in self.blocks:
            x = block(x)
        x = self.pool(x)
        x = self.normalize(x)
        return self.classify(x)

    @sequence.add_patch_positions
    def add_positions(self, patches: Tensor) -> Tensor:
        # The sum has the memory layout of its first operand. Unlike the patches, the positions are always contiguous.
        return self.pos_embed + patches

    @steps.unflatten
    def unflatten(self, patches: Tensor) -> Tensor:
        return patches.unflatten(1, self.spec.grid)

    @steps.pool
    def pool(self, x: Tensor) -> Tensor:
        return x.mean(dim=(1, 2))

    @steps.norm
    def normalize(self, pooled: Tensor) -> Tensor:
        return self.head.norm(pooled)

    @steps.head
    def classify(self, pooled: Tensor) -> Tensor:
        return self.head.fc(pooled)


def build_block(spec: HieraNetworkSpec, stage: Stage, attention: Headed) -> GridBlock:
    """Build a block of a stage."""
    assert isinstance(attention, HieraSpec)
    mlp = GridMlp(stage.dim, spec.hidden_of(stage), spec.proj_drop)
    if attention.q_stride > 1:
        return PoolingBlock(attention, mlp, spec.checkpoint)
    return GridBlock(attention, mlp, spec.checkpoint, EPS)


def build_blocks(spec: HieraNetworkSpec, stage: Stage) -> list[GridBlock]:
    """Build the blocks of a stage."""
    return [build_block(spec, stage, spec.attention_of(stage, index)) for index in range(stage.depth)]


def build(spec: HieraNetworkSpec) -> nn.Module:
    """Build the module that a Spec describes: the whole network, one stage, or one block."""
    if spec.is_whole:
        return Hiera(spec)
    if not spec.is_block:
        return HieraStage(spec, spec.opened)
    return build_block(spec, spec.opened, spec.attention())
