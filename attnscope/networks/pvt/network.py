"""PVT v2 as modules with timm's parameter names."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from attnscope.attentions.heads import Headed
from attnscope.attentions.layer import CHANNELS_FIRST, Layer
from attnscope.core.sizes import Pair
from attnscope.networks.block.network import Block
from attnscope.networks.hierarchy import steps as shared
from attnscope.networks.hierarchy.spec import STRIDE
from attnscope.networks.layers import Mlp, initialize
from attnscope.networks.pvt import steps
from attnscope.networks.pvt.spec import KERNEL, PVTNetworkSpec
from attnscope.networks.stages import Stage

EPS = 1e-6
"""Number that the norms of blocks and stages add to the variance, as in timm; the other norms have torch's default."""
RESIZE = "resize it, or build the network for its size"


class Patches(Layer):
    """Tokens of patches of an image or of a grid of tokens: a convolution, padded if they overlap, then a norm.

    Args:
        channels: channels of the input.
        dim: embedding dimension, c.
        kernel: side of the kernel.
        stride: stride of the kernel.
    """

    def __init__(self, channels: int, dim: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, kernel, stride=stride, padding=kernel // 2 if kernel > stride else 0)
        self.norm = nn.LayerNorm(dim)

    def arguments(self) -> dict[str, Any]:
        return {"dim": self.proj.out_channels}

    @shared.to_tokens
    def to_tokens(self, planes: Tensor) -> Tensor:
        return planes.flatten(2).transpose(1, 2).contiguous()  # otherwise the norm would copy it

    @shared.norm_patches
    def norm_patches(self, patches: Tensor) -> Tensor:
        return self.norm(patches)


class PatchEmbed(Patches):
    """Patch embedding: (b, 3, height, width) -> (b, n, c)."""

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        p, q = self.proj.kernel_size
        return {"i": self.proj.in_channels, "p": p, "q": q, "c": self.proj.out_channels}

    def forward(self, image: Tensor) -> Tensor:
        self.check_shape(image, {"b": None, "i": 3, "height": None, "width": None}, fix=CHANNELS_FIRST)
        return self.norm_patches(self.to_tokens(self.embed(image)))

    @shared.embed
    def embed(self, image: Tensor) -> Tensor:
        return self.proj(image)


class PatchMerging(Patches):
    """Patch merging: (b, v·w, o) -> (b, ⌈v/2⌉·⌈w/2⌉, c).

    Args:
        channels: embedding dimension before it, o.
        dim: embedding dimension after it, c.
        kernel: side of the kernel.
        grid: the grid before it, (v, w).
    """

    def __init__(self, channels: int, dim: int, kernel: int, grid: Pair) -> None:
        super().__init__(channels, dim, kernel, stride=2)
        self.grid = grid

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        (v, w), (p, q) = self.grid, self.proj.kernel_size
        return {"v": v, "w": w, "o": self.proj.in_channels, "p": p, "q": q, "c": self.proj.out_channels}

    def forward(self, x: Tensor) -> Tensor:
        self.check_shape(x, {"b": None, "n": self.grid[0] * self.grid[1], "c": self.proj.in_channels})
        x = self.unflatten(x)
        x = self.merge(x)
        x = self.to_tokens(x)
        return self.norm_patches(x)

    @steps.unflatten
    def unflatten(self, x: Tensor) -> Tensor:
        return x.unflatten(1, self.grid).permute(0, 3, 1, 2)

    @shared.merge
    def merge(self, grid: Tensor) -> Tensor:
        return self.proj(grid)


class ConvolutionalMlp(Mlp):
    """Two linear layers with a depthwise 3×3 convolution and a GELU between them: (b, n, c) -> (b, n, c).

    Args:
        dim: embedding dimension, c.
        hidden: hidden size, e.
        drop: dropout probability after the GELU and after the second layer in training.
        grid: the grid of tokens, (y, x).
        linear: whether a ReLU precedes the convolution, as in PVT v2-Li.
    """

    def __init__(self, dim: int, hidden: int, drop: float, grid: Pair, linear: bool) -> None:
        super().__init__(dim, hidden, drop)
        self.dwconv = nn.Conv2d(hidden, hidden, KERNEL, padding=KERNEL // 2, groups=hidden)
        self.grid, self.linear = grid, linear

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        return {**super().sizes, "y": self.grid[0], "x": self.grid[1]}

    def forward(self, x: Tensor) -> Tensor:
        self.check_shape(x, {"b": None, "n": self.grid[0] * self.grid[1], "c": self.fc1.in_features})
        x = self.expand(x)
        x = self.to_planes(x)
        if self.linear:
            x = self.rectify(x)
        x = self.mix_neighbours(x)
        x = self.to_sequence(x)
        x = self.gelu(x)
        return self.contract(x)

    @steps.to_planes
    def to_planes(self, hidden: Tensor) -> Tensor:
        return hidden.unflatten(1, self.grid).permute(0, 3, 1, 2)

    @steps.rectify
    def rectify(self, planes: Tensor) -> Tensor:
        return F.relu(planes)

    @steps.mix_neighbours
    def mix_neighbours(self, planes: Tensor) -> Tensor:
        return self.dwconv(planes)

    @steps.to_sequence
    def to_sequence(self, planes: Tensor) -> Tensor:
        return planes.flatten(2).transpose(1, 2)


class PVTStage(Layer):
    """A stage: patch merging, except in the first stage, blocks, and a norm."""

    def __init__(self, spec: PVTNetworkSpec, stage: Stage) -> None:
        super().__init__()
        self.stage = stage
        before = spec.before(stage)
        self.downsample = (
            PatchMerging(before.dim, stage.dim, spec.MERGING, before.grid) if stage.index else nn.Identity()
        )
        self.blocks = nn.Sequential(
            *(build_block(spec, stage, spec.attention_of(stage, index)) for index in range(stage.depth))
        )
        self.norm = nn.LayerNorm(stage.dim, EPS)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        return {"c": self.stage.dim}

    def arguments(self) -> dict[str, Any]:
        return {"dim": self.stage.dim, "heads": self.stage.heads, "depth": self.stage.depth}

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        for block in self.blocks:  # calling the Sequential would keep its first input alive to the end
            x = block(x)
        return self.normalize(x)

    @shared.norm
    def normalize(self, x: Tensor) -> Tensor:
        return self.norm(x)


class PyramidVisionTransformer(Layer):
    """PVT v2: (b, 3, height, width) -> (b, classes). State dicts of timm are loaded unchanged."""

    def __init__(self, spec: PVTNetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.patch_embed = PatchEmbed(3, spec.dim, spec.STEM, STRIDE)
        self.stages = nn.Sequential(*(PVTStage(spec, stage) for stage in spec.stages))
        self.head = nn.Linear(spec.stages[-1].dim, spec.classes)
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
        x = self.pool(x)
        return self.classify(x)

    @shared.pool
    def pool(self, x: Tensor) -> Tensor:
        return x.mean(dim=1)

    @shared.head
    def classify(self, pooled: Tensor) -> Tensor:
        return self.head(pooled)


def build_block(spec: PVTNetworkSpec, stage: Stage, attention: Headed) -> Block:
    """Build a block of a stage."""
    mlp = ConvolutionalMlp(stage.dim, spec.hidden_of(stage), spec.proj_drop, stage.grid, spec.linear)
    return Block(attention, mlp, spec.checkpoint, EPS)


def build(spec: PVTNetworkSpec) -> nn.Module:
    """Build the module that a Spec describes: the whole network, one stage, or one block."""
    if spec.is_whole:
        return PyramidVisionTransformer(spec)
    if not spec.is_block:
        return PVTStage(spec, spec.opened)
    return build_block(spec, spec.opened, spec.attention())
