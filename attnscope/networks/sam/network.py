"""SAM's image encoder as a module with timm's parameter names, which loads SAM's own checkpoints, too."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnscope.attentions.layer import CHANNELS_FIRST, Layer
from attnscope.attentions.sam.spec import SAMSpec
from attnscope.networks.block.network import GridBlock, GridMlp
from attnscope.networks.layers import initialize
from attnscope.networks.sam import steps
from attnscope.networks.sam.spec import SAMNetworkSpec
from attnscope.networks.swin.network import Head
from attnscope.networks.swin.steps import to_grid
from attnscope.networks.vit.network import RESIZE
from attnscope.networks.vit.steps import embed, pad_image
from attnscope.networks.weights import LoadsOthers, State, from_official_sam

EPS = 1e-6
"""The number that the layer norms of the neck add to the variance."""


class PatchEmbed(Layer):
    """Patch embedding: (b, 3, height, width) -> (b, y, x, c)."""

    def __init__(self, spec: SAMNetworkSpec) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, spec.dim, spec.patch, stride=spec.patch)
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
        return self.to_grid(self.embed(image))

    @pad_image
    def pad_image(self, image: Tensor) -> Tensor:
        (height, width), (p, q) = image.shape[2:], self.proj.kernel_size
        return F.pad(image, (0, -width % q, 0, -height % p))

    @embed
    def embed(self, image: Tensor) -> Tensor:
        return self.proj(image)

    @to_grid
    def to_grid(self, planes: Tensor) -> Tensor:
        return planes.permute(0, 2, 3, 1).contiguous()


class ImageEncoder(LoadsOthers):
    """SAM's image encoder: (b, 3, height, width) -> (b, o, y, x), or (b, classes) with a head.

    State dicts of timm are loaded unchanged; of SAM's own checkpoints, the image encoder is loaded.
    """

    def __init__(self, spec: SAMNetworkSpec) -> None:
        super().__init__()
        self.spec, c, o = spec, spec.dim, spec.width
        self.pos_embed = nn.Parameter(torch.zeros(1, *spec.grid, c)) if spec.abs_pos else None
        self.patch_embed = PatchEmbed(spec)
        self.blocks = nn.Sequential(*(block_of(spec, spec.attention_of(index)) for index in range(spec.depth)))
        self.neck: nn.Module = nn.LayerNorm(c, EPS)
        if spec.neck:
            first, second = nn.Conv2d(c, o, 1, bias=False), nn.Conv2d(o, o, 3, padding=1, bias=False)
            self.neck = nn.Sequential(first, nn.LayerNorm(o, EPS), second, nn.LayerNorm(o, EPS))
        self.head = Head(o, spec.classes) if spec.classes else None
        initialize(self)
        if self.pos_embed is not None:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        (y, x), spec = self.spec.grid, self.spec
        return {"y": y, "x": x, "c": spec.dim, "o": spec.width, "k": spec.classes}

    def arguments(self) -> dict[str, Any]:
        spec = self.spec
        return {"image": spec.image, "patch": spec.patch, "dim": spec.dim, "depth": spec.depth, "window": spec.window}

    def forward(self, image: Tensor) -> Tensor:
        height, width = self.spec.image
        self.check_shape(image, {"b": None, "i": 3, "height": height, "width": width}, fix=RESIZE)
        x = self.patch_embed(image)
        if self.pos_embed is not None:
            x = self.add_positions(x)
        for block in self.blocks:  # calling the Sequential would keep its first input alive to the end
            x = block(x)
        x = self.to_planes(x)
        if self.spec.neck:
            x = self.reduce(x)
            x = self.norm_reduced(x)
            x = self.smooth(x)
            x = self.norm_smoothed(x)
        else:
            x = self.normalize(x)
        if self.head is None:
            return x
        x = self.pool(x)
        return self.classify(x)

    @steps.add_positions
    def add_positions(self, patches: Tensor) -> Tensor:
        assert self.pos_embed is not None
        return self.pos_embed + patches

    @steps.to_planes
    def to_planes(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)

    @steps.reduce
    def reduce(self, planes: Tensor) -> Tensor:
        return self.neck[0](planes)  # type: ignore[index]

    @steps.norm_reduced
    def norm_reduced(self, planes: Tensor) -> Tensor:
        return normalized(self.neck[1], planes)  # type: ignore[index]

    @steps.smooth
    def smooth(self, planes: Tensor) -> Tensor:
        return self.neck[2](planes)  # type: ignore[index]

    @steps.norm_smoothed
    def norm_smoothed(self, planes: Tensor) -> Tensor:
        return normalized(self.neck[3], planes)  # type: ignore[index]

    @steps.norm
    def normalize(self, planes: Tensor) -> Tensor:
        return normalized(self.neck, planes)

    @steps.pool
    def pool(self, planes: Tensor) -> Tensor:
        return planes.mean(dim=(2, 3))

    @steps.head
    def classify(self, pooled: Tensor) -> Tensor:
        assert self.head is not None
        return self.head.fc(pooled)

    def translate(self, state: State) -> None:
        """Convert a state dict of SAM in place."""
        from_official_sam(state)


def normalized(norm: nn.Module, planes: Tensor) -> Tensor:
    """Return planes, (b, c, height, width), with normalized channels."""
    result: Tensor = norm(planes.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return result


def block_of(spec: SAMNetworkSpec, attention: SAMSpec) -> GridBlock:
    """Build a block with this attention."""
    mlp = GridMlp(spec.dim, spec.hidden(spec.dim), attention.proj_drop)
    return GridBlock(attention, mlp, spec.checkpoint, spec.norm_eps)


def build(spec: SAMNetworkSpec) -> nn.Module:
    """Build the module that a Spec describes: the whole network, or one block."""
    return ImageEncoder(spec) if spec.is_whole else block_of(spec, spec.attention())
