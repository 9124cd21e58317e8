"""MaxViT as modules with timm's parameter names; those of its TensorFlow ports are converted."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from attnscope.attentions.layer import CHANNELS_FIRST, Layer
from attnscope.attentions.maxvit.spec import MaxViTSpec
from attnscope.networks.block.network import GridBlock, GridMlp
from attnscope.networks.layers import initialize
from attnscope.networks.maxvit import steps
from attnscope.networks.maxvit.spec import KERNEL, MaxViTNetworkSpec, MBConv
from attnscope.networks.stages import Stage
from attnscope.networks.vit.network import RESIZE
from attnscope.networks.weights import LoadsOthers, State, from_timm_maxvit

EPS, BATCH_EPS = 1e-5, 1e-3
"""Numbers that layer norms and batch norms add to the variance."""


def curved(x: Tensor) -> Tensor:
    """Return GELU by its approximation with tanh, as in TensorFlow."""
    return F.gelu(x, approximate="tanh")


class Stem(Layer):
    """Two convolutions, the first with stride 2: (b, 3, height, width) -> (b, s, y, x)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels, KERNEL, stride=2)
        self.norm1 = nn.BatchNorm2d(channels, BATCH_EPS)
        self.conv2 = nn.Conv2d(channels, channels, KERNEL, padding=KERNEL // 2)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        return {"i": 3, "s": self.conv1.out_channels, "p": KERNEL, "q": KERNEL}

    def forward(self, image: Tensor) -> Tensor:
        self.check_shape(image, {"b": None, "i": 3, "height": None, "width": None}, fix=CHANNELS_FIRST)
        image = self.pad_image(image)
        x = self.embed(image)
        del image
        x = self.normalize_stem(x)
        x = self.gelu_stem(x)
        return self.refine(x)

    @steps.pad_image
    def pad_image(self, image: Tensor) -> Tensor:
        return F.pad(image, (0, 1, 0, 1))

    @steps.embed
    def embed(self, image: Tensor) -> Tensor:
        return self.conv1(image)

    @steps.normalize_stem
    def normalize_stem(self, planes: Tensor) -> Tensor:
        return self.norm1(planes)

    @steps.gelu_stem
    def gelu_stem(self, planes: Tensor) -> Tensor:
        return curved(planes)

    @steps.refine
    def refine(self, planes: Tensor) -> Tensor:
        return self.conv2(planes)


class InvertedBottleneck(Layer):
    """An MBConv with squeeze-and-excitation: (b, c, v, w) -> (b, o, y, x).

    Args:
        convolution: its sizes.
    """

    def __init__(self, convolution: MBConv) -> None:
        super().__init__()
        self.convolution = convolution
        c, o, e, r = convolution.channels, convolution.dim, convolution.expanded, convolution.squeezed
        self.shortcut = nn.ModuleDict({"expand": nn.Conv2d(c, o, 1)} if convolution.widens_shortcut else {})
        self.pre_norm = nn.BatchNorm2d(c, BATCH_EPS)
        self.conv1_1x1 = nn.Conv2d(c, e, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(e, BATCH_EPS)
        stride, padding = (2, 0) if convolution.halves else (1, KERNEL // 2)
        self.conv2_kxk = nn.Conv2d(e, e, KERNEL, stride=stride, padding=padding, groups=e, bias=False)
        self.norm2 = nn.BatchNorm2d(e, BATCH_EPS)
        self.se = nn.ModuleDict({"fc1": nn.Conv2d(e, r, 1), "fc2": nn.Conv2d(r, e, 1)})
        self.conv3_1x1 = nn.Conv2d(e, o, 1)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        own = self.convolution
        return {"c": own.channels, "o": own.dim, "e": own.expanded, "r": own.squeezed}

    def arguments(self) -> dict[str, Any]:
        return {"dim": self.convolution.dim, "halves": self.convolution.halves}

    def forward(self, x: Tensor) -> Tensor:
        shape = {"b": None, "c": self.convolution.channels, "height": None, "width": None}
        self.check_shape(x, shape, fix=CHANNELS_FIRST)
        shortcut = self.shortened(x) if self.convolution.halves else x
        return self.add_shortcut(self.convolved(x), shortcut)

    def shortened(self, x: Tensor) -> Tensor:
        """Return the shortcut with the grid and the channels of the output."""
        x = self.pool_shortcut(x)
        return self.widen_shortcut(x) if self.convolution.widens_shortcut else x

    def convolved(self, x: Tensor) -> Tensor:
        """Return the output of the convolutions."""
        x = self.normalize(x)
        x = self.expand(x)
        x = self.norm_expanded(x)
        x = self.gelu_expanded(x)
        if self.convolution.halves:
            x = self.pad(x)
        x = self.mix(x)
        x = self.norm_mixed(x)
        x = self.gelu_mixed(x)
        x = self.excite(x, self.gate(x))
        return self.project(x)

    def gate(self, planes: Tensor) -> Tensor:
        """Return the gate of each channel before the sigmoid: (b, e, 1, 1)."""
        gate = self.squeeze(planes)
        gate = self.reduce(gate)
        gate = self.silu(gate)
        return self.restore(gate)

    @steps.pool_shortcut
    def pool_shortcut(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x, (x.shape[2] // 2, x.shape[3] // 2))

    @steps.widen_shortcut
    def widen_shortcut(self, shortcut: Tensor) -> Tensor:
        return self.shortcut["expand"](shortcut)

    @steps.pre_norm
    def normalize(self, x: Tensor) -> Tensor:
        return self.pre_norm(x)

    @steps.expand
    def expand(self, planes: Tensor) -> Tensor:
        return self.conv1_1x1(planes)

    @steps.norm_expanded
    def norm_expanded(self, planes: Tensor) -> Tensor:
        return self.norm1(planes)

    @steps.gelu_expanded
    def gelu_expanded(self, planes: Tensor) -> Tensor:
        return curved(planes)

    @steps.pad
    def pad(self, planes: Tensor) -> Tensor:
        return F.pad(planes, (0, 1, 0, 1))

    @steps.mix
    def mix(self, planes: Tensor) -> Tensor:
        return self.conv2_kxk(planes)

    @steps.norm_mixed
    def norm_mixed(self, planes: Tensor) -> Tensor:
        return self.norm2(planes)

    @steps.gelu_mixed
    def gelu_mixed(self, planes: Tensor) -> Tensor:
        return curved(planes)

    @steps.squeeze
    def squeeze(self, planes: Tensor) -> Tensor:
        return planes.mean(dim=(2, 3))[..., None, None]

    @steps.reduce
    def reduce(self, gate: Tensor) -> Tensor:
        return self.se["fc1"](gate)

    @steps.silu
    def silu(self, gate: Tensor) -> Tensor:
        return F.silu(gate)

    @steps.restore
    def restore(self, gate: Tensor) -> Tensor:
        return self.se["fc2"](gate)

    @steps.excite
    def excite(self, planes: Tensor, gate: Tensor) -> Tensor:
        return planes * gate.sigmoid()

    @steps.project
    def project(self, planes: Tensor) -> Tensor:
        return self.conv3_1x1(planes)

    @steps.add_shortcut
    def add_shortcut(self, planes: Tensor, shortcut: Tensor) -> Tensor:
        return planes + shortcut


class CurvedMlp(GridMlp):
    """The MLP of MaxViT, whose GELU is the approximation by tanh: (b, y, x, c) -> (b, y, x, c)."""

    def curve(self, hidden: Tensor) -> Tensor:
        """Return GELU of each element."""
        return curved(hidden)


class MaxViTBlock(Layer):
    """An MBConv, block attention and grid attention: (b, c, v, w) -> (b, o, y, x).

    Args:
        spec: the network.
        stage: its stage.
        block: its number in the stage, counted from 0.
    """

    def __init__(self, spec: MaxViTNetworkSpec, stage: Stage, block: int) -> None:
        super().__init__()
        self.conv = InvertedBottleneck(spec.convolution_of(stage, block))
        within, sparse = spec.attentions_of(stage)
        self.attn_block, self.attn_grid = (attention_block(spec, stage, each) for each in (within, sparse))
        self.dim = stage.dim

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        return {"c": self.dim}

    def arguments(self) -> dict[str, Any]:
        return {"dim": self.dim}

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = self.to_grid(x)
        x = self.attn_block(x)
        x = self.attn_grid(x)
        return self.to_planes(x)

    @steps.to_grid
    def to_grid(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).contiguous()  # otherwise the norm would copy it

    @steps.to_planes
    def to_planes(self, tokens: Tensor) -> Tensor:
        return tokens.permute(0, 3, 1, 2)


def attention_block(spec: MaxViTNetworkSpec, stage: Stage, attention: MaxViTSpec) -> GridBlock:
    """Build an attention with its norms and its MLP."""
    return GridBlock(attention, CurvedMlp(stage.dim, spec.hidden_of(stage), spec.proj_drop), spec.checkpoint, EPS)


class MaxViTStage(Layer):
    """A stage: blocks, the first of which halves the grid."""

    def __init__(self, spec: MaxViTNetworkSpec, stage: Stage) -> None:
        super().__init__()
        self.stage = stage
        self.blocks = nn.Sequential(*(MaxViTBlock(spec, stage, block) for block in range(stage.depth)))

    def arguments(self) -> dict[str, Any]:
        return {"dim": self.stage.dim, "heads": self.stage.heads, "depth": self.stage.depth}

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:  # calling the Sequential would keep its first input alive to the end
            x = block(x)
        return x


class Head(Layer):
    """The head: average, norm, a hidden layer with tanh, and the classifier: (b, c, y, x) -> (b, k)."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, EPS)
        self.pre_logits = nn.ModuleDict({"fc": nn.Linear(dim, dim)})
        self.fc = nn.Linear(dim, classes)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        return {"c": self.fc.in_features, "k": self.fc.out_features}

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(x)
        x = self.normalize(x)
        x = self.hide(x)
        x = self.bend(x)
        return self.classify(x)

    @steps.pool
    def pool(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))

    @steps.norm
    def normalize(self, pooled: Tensor) -> Tensor:
        return self.norm(pooled)

    @steps.hide
    def hide(self, pooled: Tensor) -> Tensor:
        return self.pre_logits["fc"](pooled)

    @steps.bend
    def bend(self, pooled: Tensor) -> Tensor:
        return pooled.tanh()

    @steps.classify
    def classify(self, pooled: Tensor) -> Tensor:
        return self.fc(pooled)


class MaxViT(LoadsOthers):
    """MaxViT: (b, 3, height, width) -> (b, classes). State dicts of timm's TensorFlow ports are converted."""

    def __init__(self, spec: MaxViTNetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.stem = Stem(spec.stem)
        self.stages = nn.Sequential(*(MaxViTStage(spec, stage) for stage in spec.stages))
        self.head = Head(spec.stages[-1].dim, spec.classes)
        initialize(self)

    def arguments(self) -> dict[str, Any]:
        spec = self.spec
        return {"image": spec.image, "dim": spec.dim, "depths": spec.depths, "classes": spec.classes}

    def forward(self, image: Tensor) -> Tensor:
        height, width = self.spec.image
        self.check_shape(image, {"b": None, "i": 3, "height": height, "width": width}, fix=RESIZE)
        x = self.stem(image)
        for stage in self.stages:
            x = stage(x)
        return self.head(x)

    def translate(self, state: State) -> None:
        """Convert a state dict of timm in place."""
        from_timm_maxvit(state, {stage.index: stage.heads for stage in self.spec.stages})


def build(spec: MaxViTNetworkSpec) -> nn.Module:
    """Build the module that a Spec describes: the whole network, one stage, or one block."""
    if spec.is_whole:
        return MaxViT(spec)
    if not spec.is_block:
        return MaxViTStage(spec, spec.opened)
    return MaxViTBlock(spec, spec.opened, (spec.block or 1) - 1)
