"""Swin and Swin V2 as modules with timm's parameter names, which load state dicts of torchvision and Microsoft, too."""

import math
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from attnscope.attentions.layer import CHANNELS_FIRST, Layer
from attnscope.attentions.swin.attention import WindowAttention, may_be_padded
from attnscope.attentions.swin.spec import SwinSpec
from attnscope.core.sizes import Pair
from attnscope.core.windows import Windows
from attnscope.networks.block.network import GridBlock, GridMlp
from attnscope.networks.layers import initialize
from attnscope.networks.resizing import resize_bias_table
from attnscope.networks.stages import Stage
from attnscope.networks.swin import steps
from attnscope.networks.swin.spec import SwinNetworkSpec, SwinV2NetworkSpec
from attnscope.networks.vit.steps import embed, pad_image
from attnscope.networks.weights import LoadsOthers, State, from_official_swin, from_torchvision_swin


class PatchEmbed(Layer):
    """Patch embedding: (b, 3, height, width) -> (b, y, x, c)."""

    def __init__(self, spec: SwinNetworkSpec) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, spec.dim, spec.patch, stride=spec.patch)
        self.norm = nn.LayerNorm(spec.dim)
        self.pads = spec.image_is_padded

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        p, q = self.proj.kernel_size
        return {"i": 3, "p": p, "q": q, "c": self.proj.out_channels}

    def arguments(self) -> dict[str, Any]:
        return {"dim": self.proj.out_channels, "patch": self.proj.kernel_size}

    def forward(self, image: Tensor) -> Tensor:
        self.check_shape(image, {"b": None, "i": 3, "height": None, "width": None}, fix=CHANNELS_FIRST)
        if self.pads:
            image = self.pad_image(image)
        x = self.embed(image)
        x = self.to_grid(x)
        return self.norm_patches(x)

    @pad_image
    def pad_image(self, image: Tensor) -> Tensor:
        (height, width), (p, q) = image.shape[2:], self.proj.kernel_size
        return F.pad(image, (0, -width % q, 0, -height % p))

    @embed
    def embed(self, image: Tensor) -> Tensor:
        return self.proj(image)

    @steps.to_grid
    def to_grid(self, planes: Tensor) -> Tensor:
        return planes.permute(0, 2, 3, 1).contiguous()  # otherwise the norm would copy it

    @steps.norm_patches
    def norm_patches(self, patches: Tensor) -> Tensor:
        return self.norm(patches)


class SwinBlock(GridBlock):
    """Norm, windowed attention, residual, norm, MLP, residual: (b, y, x, c) -> (b, y, x, c)."""

    def __init__(self, attention: SwinSpec, hidden: int, checkpoint: str = "none") -> None:
        super().__init__(attention, GridMlp(attention.dim, hidden, attention.proj_drop), checkpoint)


class SwinV2Block(SwinBlock):
    """The block of Swin V2: each norm follows its branch (res-post-norm).

    The norms are initialized with zero, so a new block is the identity.
    """

    def __init__(self, attention: SwinSpec, hidden: int, checkpoint: str = "none") -> None:
        super().__init__(attention, hidden, checkpoint)
        nn.init.zeros_(self.norm1.weight)
        nn.init.zeros_(self.norm2.weight)

    def residual_branches(self, x: Tensor, *others: Tensor) -> Tensor:
        """Add the normalized outputs of the attention and of the MLP."""
        x = self.residual1(x, self.normalize1(self.checkpointed("attention", self.attn, x)))
        return self.residual2(x, self.normalize2(self.mlp(x)))


class PatchMerging(Layer):
    """Patch merging of 2×2 tokens to one: (b, y, x, c) -> (b, ⌈y/2⌉, ⌈x/2⌉, 2c).

    The order of the four tokens is top left, bottom left, top right, bottom right; an odd side is padded by one.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        return {"c": self.reduction.in_features // 4, "i": 2, "j": 2}

    def arguments(self) -> dict[str, Any]:
        return {"dim": self.reduction.in_features // 4}

    def forward(self, x: Tensor) -> Tensor:
        self.check_shape(x, {"b": None, "y": None, "x": None, "c": self.reduction.in_features // 4})
        if may_be_padded(Windows(x.shape[1], x.shape[2], (2, 2))):
            x = self.pad_odd(x)
        x = self.gather(x)
        x = self.norm_four(x)
        return self.reduce(x)

    @steps.pad_odd
    def pad_odd(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))

    @steps.gather
    def gather(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).permute(0, 1, 3, 4, 2, 5).flatten(3)

    @steps.norm_four
    def norm_four(self, four: Tensor) -> Tensor:
        return self.norm(four)

    @steps.reduce
    def reduce(self, four: Tensor) -> Tensor:
        return self.reduction(four)


class PatchMergingV2(PatchMerging):
    """Patch merging of Swin V2, with the norm after the reduction."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.norm = nn.LayerNorm(2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        self.check_shape(x, {"b": None, "y": None, "x": None, "c": self.reduction.in_features // 4})
        if may_be_padded(Windows(x.shape[1], x.shape[2], (2, 2))):
            x = self.pad_odd(x)
        x = self.gather(x)
        x = self.reduce(x)
        return self.norm_reduced(x)

    @steps.norm_reduced
    def norm_reduced(self, x: Tensor) -> Tensor:
        return self.norm(x)


class SwinStage(Layer):
    """A stage: patch merging, except in the first stage, then blocks that alternate plain and shifted windows."""

    def __init__(self, spec: SwinNetworkSpec, stage: Stage) -> None:
        super().__init__()
        self.stage = stage
        block, merging = (
            (SwinV2Block, PatchMergingV2) if isinstance(spec, SwinV2NetworkSpec) else (SwinBlock, PatchMerging)
        )
        hidden = spec.hidden(stage.dim)
        self.downsample = merging(stage.dim // 2) if stage.index else nn.Identity()
        self.blocks = nn.Sequential(
            *(block(spec.attention_of(stage, index), hidden, spec.checkpoint) for index in range(stage.depth))
        )

    def arguments(self) -> dict[str, Any]:
        stage = self.stage
        return {"dim": stage.dim, "heads": stage.heads, "window": stage.window, "depth": stage.depth}

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        for block in self.blocks:  # calling the Sequential would keep its first input alive to the end
            x = block(x)
        return x


class Head(nn.Module):
    """The classification layer; a separate module, so that its parameter names are timm's."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(dim, classes)


class SwinTransformer(LoadsOthers):
    """Swin and Swin V2: (b, 3, height, width) -> (b, classes).

    State dicts of timm are loaded unchanged; those of torchvision and Microsoft are converted, and their buffers are
    ignored. Position bias tables of another, square window are resized as in timm.
    """

    def __init__(self, spec: SwinNetworkSpec) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(spec)
        self.layers = nn.Sequential(*(SwinStage(spec, stage) for stage in spec.stages))
        last = spec.stages[-1].dim
        self.norm = nn.LayerNorm(last)
        self.head = Head(last, spec.classes)
        initialize(self)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        return {"c": self.head.fc.in_features, "k": self.head.fc.out_features}

    def arguments(self) -> dict[str, Any]:
        return {"dim": self.patch_embed.proj.out_channels, "classes": self.head.fc.out_features}

    def forward(self, image: Tensor) -> Tensor:
        x = self.patch_embed(image)
        for stage in self.layers:
            x = stage(x)
        x = self.normalize(x)
        x = self.pool(x)
        return self.classify(x)

    def translate(self, state: State) -> None:
        """Convert a state dict of torchvision or Microsoft in place, and resize bias tables to this network's windows."""
        from_torchvision_swin(state)
        from_official_swin(state)
        for path, attention in self.named_modules():
            name = f"{path}.relative_position_bias_table"
            if isinstance(attention, WindowAttention) and name in state:
                height, width = attention.window
                state[name] = _fitted_table(state[name], (height, width))

    @steps.norm
    def normalize(self, x: Tensor) -> Tensor:
        return self.norm(x)

    @steps.pool
    def pool(self, x: Tensor) -> Tensor:
        return x.mean(dim=(1, 2))

    @steps.head
    def classify(self, pooled: Tensor) -> Tensor:
        return self.head.fc(pooled)


def _fitted_table(table: Tensor, window: Pair) -> Tensor:
    """Resize the bias table of another, square window to this window; torch reports a table of any other size."""
    rows = table.shape[0]
    side = (math.isqrt(rows) + 1) // 2
    if rows == (2 * window[0] - 1) * (2 * window[1] - 1) or rows != (2 * side - 1) ** 2:
        return table
    return resize_bias_table(table, (side, side), window)


def build(spec: SwinNetworkSpec) -> nn.Module:
    """Build the module that a Spec describes: the whole network, one stage, or one block."""
    if spec.is_whole:
        return SwinTransformer(spec)
    if not spec.is_block:
        return SwinStage(spec, spec.opened)
    block = SwinV2Block if isinstance(spec, SwinV2NetworkSpec) else SwinBlock
    return block(spec.attention(), spec.hidden(spec.opened.dim), spec.checkpoint)
