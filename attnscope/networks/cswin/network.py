"""CSWin as modules, which load the official checkpoints."""

from typing import Any

from torch import Tensor, nn

from attnscope.attentions.layer import CHANNELS_FIRST, Layer
from attnscope.attentions.spec import Spec
from attnscope.networks.block.network import GridBlock, GridMlp
from attnscope.networks.cswin.spec import CSWinNetworkSpec
from attnscope.networks.hierarchy import steps
from attnscope.networks.hierarchy.spec import STRIDE
from attnscope.networks.layers import initialize
from attnscope.networks.nat.network import Tokens
from attnscope.networks.nat.steps import to_planes
from attnscope.networks.pvt.network import RESIZE
from attnscope.networks.stages import Stage
from attnscope.networks.swin import steps as windowed
from attnscope.networks.weights import LoadsOthers, State, from_official_cswin


class PatchEmbed(Tokens):
    """Patch embedding: (b, 3, height, width) -> (b, y, x, c)."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__(dim)
        self.proj = nn.Conv2d(3, dim, kernel, stride=STRIDE, padding=(kernel - STRIDE + 1) // 2)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        p, q = self.proj.kernel_size
        return {"i": 3, "p": p, "q": q, "c": self.proj.out_channels}

    def arguments(self) -> dict[str, Any]:
        return {"dim": self.proj.out_channels}

    def forward(self, image: Tensor) -> Tensor:
        self.check_shape(image, {"b": None, "i": 3, "height": None, "width": None}, fix=CHANNELS_FIRST)
        return self.norm_patches(self.to_grid(self.embed(image)))

    @steps.embed
    def embed(self, image: Tensor) -> Tensor:
        return self.proj(image)


class PatchMerging(Tokens):
    """Patch merging: (b, v, w, o) -> (b, ⌈v/2⌉, ⌈w/2⌉, c)."""

    def __init__(self, channels: int, dim: int, kernel: int) -> None:
        super().__init__(dim)
        self.proj = nn.Conv2d(channels, dim, kernel, stride=2, padding=kernel // 2)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        p, q = self.proj.kernel_size
        return {"o": self.proj.in_channels, "p": p, "q": q, "c": self.proj.out_channels}

    def arguments(self) -> dict[str, Any]:
        return {"dim": self.proj.in_channels}

    def forward(self, x: Tensor) -> Tensor:
        self.check_shape(x, {"b": None, "y": None, "x": None, "c": self.proj.in_channels})
        x = self.to_planes(x)
        x = self.merge(x)
        x = self.to_grid(x)
        return self.norm_patches(x)

    @to_planes
    def to_planes(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)

    @steps.merge
    def merge(self, grid: Tensor) -> Tensor:
        return self.proj(grid)


class CSWinStage(Layer):
    """A stage: patch merging, except in the first stage, and blocks."""

    def __init__(self, spec: CSWinNetworkSpec, stage: Stage) -> None:
        super().__init__()
        self.stage = stage
        self.downsample = (
            PatchMerging(spec.before(stage).dim, stage.dim, spec.MERGING) if stage.index else nn.Identity()
        )
        self.blocks = nn.Sequential(*(build_block(spec, spec.attention_of(stage, 0)) for _ in range(stage.depth)))

    def arguments(self) -> dict[str, Any]:
        return {"dim": self.stage.dim, "heads": self.stage.heads, "depth": self.stage.depth}

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        for block in self.blocks:  # calling the Sequential would keep its first input alive to the end
            x = block(x)
        return x


class CSWin(LoadsOthers):
    """CSWin: (b, 3, height, width) -> (b, classes). Official state dicts are converted."""

    def __init__(self, spec: CSWinNetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.patch_embed = PatchEmbed(spec.dim, spec.STEM)
        self.stages = nn.Sequential(*(CSWinStage(spec, stage) for stage in spec.stages))
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
        from_official_cswin(state)


def build_block(spec: CSWinNetworkSpec, attention: Spec) -> GridBlock:
    """Build a block of a stage."""
    dim = attention.input_shape[-1]
    return GridBlock(attention, GridMlp(dim, spec.hidden(dim), spec.proj_drop), spec.checkpoint)


def build(spec: CSWinNetworkSpec) -> nn.Module:
    """Build the module that a Spec describes: the whole network, one stage, or one block."""
    if spec.is_whole:
        return CSWin(spec)
    if not spec.is_block:
        return CSWinStage(spec, spec.opened)
    return build_block(spec, spec.attention())
