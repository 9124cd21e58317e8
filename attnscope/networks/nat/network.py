"""NAT and DiNAT as modules, which load the official checkpoints."""

from typing import Any

import torch
from torch import Tensor, nn

from attnscope.attentions.heads import Headed
from attnscope.attentions.layer import CHANNELS_FIRST, Layer
from attnscope.networks.block.network import GridBlock, GridMlp
from attnscope.networks.layers import Mlp, initialize
from attnscope.networks.nat import steps
from attnscope.networks.nat.spec import KERNEL, NATNetworkSpec
from attnscope.networks.stages import Stage
from attnscope.networks.swin import steps as windowed
from attnscope.networks.weights import LoadsOthers, State, from_official_nat

SCALE = 1e-5
"""Initial factor of layer scale (Hassani et al., arXiv 2204.07143, appendix)."""


class Tokens(Layer):
    """The layers after a convolution: channels last, then a norm."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)

    @windowed.to_grid
    def to_grid(self, planes: Tensor) -> Tensor:
        return planes.permute(0, 2, 3, 1).contiguous()  # otherwise the norm would copy it

    @windowed.norm_patches
    def norm_patches(self, patches: Tensor) -> Tensor:
        return self.norm(patches)


class PatchEmbed(Tokens):
    """Patch embedding by two convolutions: (b, 3, height, width) -> (b, y, x, c)."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.proj = nn.Sequential(
            nn.Conv2d(3, dim // 2, KERNEL, stride=2, padding=KERNEL // 2),
            nn.Conv2d(dim // 2, dim, KERNEL, stride=2, padding=KERNEL // 2),
        )

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        (dim,) = self.norm.normalized_shape
        return {"i": 3, "p": KERNEL, "q": KERNEL, "s": dim // 2, "c": dim}

    def arguments(self) -> dict[str, Any]:
        return {"dim": self.norm.normalized_shape[0]}

    def forward(self, image: Tensor) -> Tensor:
        self.check_shape(image, {"b": None, "i": 3, "height": None, "width": None}, fix=CHANNELS_FIRST)
        x = self.embed_half(image)
        x = self.embed(x)
        x = self.to_grid(x)
        return self.norm_patches(x)

    @steps.embed_half
    def embed_half(self, image: Tensor) -> Tensor:
        return self.proj[0](image)

    @steps.embed
    def embed(self, halves: Tensor) -> Tensor:
        return self.proj[1](halves)


class PatchMerging(Tokens):
    """Patch merging by a convolution: (b, v, w, o) -> (b, ⌈v/2⌉, ⌈w/2⌉, c)."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__(dim)
        self.reduction = nn.Conv2d(channels, dim, KERNEL, stride=2, padding=KERNEL // 2, bias=False)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        return {"o": self.reduction.in_channels, "p": KERNEL, "q": KERNEL, "c": self.reduction.out_channels}

    def arguments(self) -> dict[str, Any]:
        return {"dim": self.reduction.in_channels}

    def forward(self, x: Tensor) -> Tensor:
        self.check_shape(x, {"b": None, "y": None, "x": None, "c": self.reduction.in_channels})
        x = self.to_planes(x)
        x = self.merge(x)
        x = self.to_grid(x)
        return self.norm_patches(x)

    @steps.to_planes
    def to_planes(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)

    @steps.merge
    def merge(self, grid: Tensor) -> Tensor:
        return self.reduction(grid)


class ScaledBlock(GridBlock):
    """A block with layer scale: a learned factor for each channel of both branches (b, y, x, c) -> (b, y, x, c)."""

    def __init__(self, attention: Headed, mlp: Mlp, checkpoint: str = "none") -> None:
        super().__init__(attention, mlp, checkpoint)
        self.gamma1 = nn.Parameter(torch.full((attention.dim,), SCALE))
        self.gamma2 = nn.Parameter(torch.full((attention.dim,), SCALE))

    def residual_branches(self, x: Tensor, *others: Tensor) -> Tensor:
        """Add the scaled outputs of the attention and of the MLP."""
        x = self.residual1(x, self.scale1(self.checkpointed("attention", self.attn, self.normalize1(x))))
        return self.residual2(x, self.scale2(self.mlp(self.normalize2(x))))

    @steps.scale1
    def scale1(self, branch: Tensor) -> Tensor:
        return branch * self.gamma1

    @steps.scale2
    def scale2(self, branch: Tensor) -> Tensor:
        return branch * self.gamma2


class NATStage(Layer):
    """A stage: patch merging, except in the first stage, then blocks, every second of which may be dilated."""

    def __init__(self, spec: NATNetworkSpec, stage: Stage) -> None:
        super().__init__()
        self.stage = stage
        self.downsample = PatchMerging(spec.before(stage).dim, stage.dim) if stage.index else nn.Identity()
        self.blocks = nn.Sequential(
            *(build_block(spec, stage, spec.attention_of(stage, index)) for index in range(stage.depth))
        )

    def arguments(self) -> dict[str, Any]:
        return {"dim": self.stage.dim, "heads": self.stage.heads, "depth": self.stage.depth}

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        for block in self.blocks:  # calling the Sequential would keep its first input alive to the end
            x = block(x)
        return x


class NAT(LoadsOthers):
    """NAT and DiNAT: (b, 3, height, width) -> (b, classes). Official state dicts are converted."""

    def __init__(self, spec: NATNetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.patch_embed = PatchEmbed(spec.dim)
        self.levels = nn.Sequential(*(NATStage(spec, stage) for stage in spec.stages))
        last = spec.stages[-1].dim
        self.norm = nn.LayerNorm(last)
        self.head = nn.Linear(last, spec.classes)
        initialize(self)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        return {"c": self.head.in_features, "k": self.head.out_features}

    def arguments(self) -> dict[str, Any]:
        spec = self.spec
        return {"dim": spec.dim, "depths": spec.depths, "classes": spec.classes}

    def forward(self, image: Tensor) -> Tensor:
        x = self.patch_embed(image)
        for stage in self.levels:
            x = stage(x)
        x = self.normalize(x)
        x = self.pool(x)
        return self.classify(x)

    @windowed.norm
    def normalize(self, x: Tensor) -> Tensor:
        return self.norm(x)

    @windowed.pool
    def pool(self, x: Tensor) -> Tensor:
        return x.mean(dim=(1, 2))

    @steps.head
    def classify(self, pooled: Tensor) -> Tensor:
        return self.head(pooled)

    def translate(self, state: State) -> None:
        """Convert an official state dict in place."""
        from_official_nat(state)


def build_block(spec: NATNetworkSpec, stage: Stage, attention: Headed) -> GridBlock:
    """Build a block of a stage."""
    mlp = GridMlp(stage.dim, spec.hidden_of(stage), spec.proj_drop)
    block = ScaledBlock if spec.layer_scale else GridBlock
    return block(attention, mlp, spec.checkpoint)


def build(spec: NATNetworkSpec) -> nn.Module:
    """Build the module that a Spec describes: the whole network, one stage, or one block."""
    if spec.is_whole:
        return NAT(spec)
    if not spec.is_block:
        return NATStage(spec, spec.opened)
    return build_block(spec, spec.opened, spec.attention())
