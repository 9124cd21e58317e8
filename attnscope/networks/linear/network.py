"""EfficientViT's block as a module; parameter names are timm's."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from attnscope.attentions.layer import CHANNELS_FIRST, Layer
from attnscope.networks.layers import Checkpointing
from attnscope.networks.linear import steps
from attnscope.networks.linear.spec import KERNEL, EfficientViTBlockSpec


class MBConv(Layer):
    """An inverted bottleneck, 1×1, depthwise 3×3 and 1×1 convolutions: (b, c, y, x) -> (b, c, y, x).

    Args:
        dim: embedding dimension, c.
        hidden: hidden size, e.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        depthwise = nn.Conv2d(hidden, hidden, KERNEL, padding=KERNEL // 2, groups=hidden)
        self.inverted_conv = nn.ModuleDict({"conv": nn.Conv2d(dim, hidden, 1)})
        self.depth_conv = nn.ModuleDict({"conv": depthwise})
        self.point_conv = nn.ModuleDict({"conv": nn.Conv2d(hidden, dim, 1, bias=False), "norm": nn.BatchNorm2d(dim)})
        self.dim, self.hidden = dim, hidden

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        return {"c": self.dim, "e": self.hidden}

    def forward(self, x: Tensor) -> Tensor:
        x = self.expand(x)
        x = self.activate(x)
        x = self.mix_neighbours(x)
        x = self.activate_again(x)
        return self.contract(x)

    @steps.expand
    def expand(self, x: Tensor) -> Tensor:
        return self.inverted_conv["conv"](x)

    @steps.activate
    def activate(self, hidden: Tensor) -> Tensor:
        return F.hardswish(hidden)

    @steps.mix_neighbours
    def mix_neighbours(self, hidden: Tensor) -> Tensor:
        return self.depth_conv["conv"](hidden)

    @steps.activate_again
    def activate_again(self, hidden: Tensor) -> Tensor:
        return F.hardswish(hidden)

    @steps.contract
    def contract(self, hidden: Tensor) -> Tensor:
        return self.point_conv["norm"](self.point_conv["conv"](hidden))


class EfficientViTBlock(Checkpointing):
    """Linear attention, residual, MBConv, residual: (b, c, y, x) -> (b, c, y, x)."""

    def __init__(self, spec: EfficientViTBlockSpec) -> None:
        attention = spec.attention()
        super().__init__(spec.checkpoint, attention.drops)
        self.dim = spec.width
        self.context_module = nn.ModuleDict({"main": attention.build()})
        self.local_module = nn.ModuleDict({"main": MBConv(spec.width, spec.hidden(spec.width))})

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        return {"c": self.dim}

    def arguments(self) -> dict[str, Any]:
        return {"dim": self.dim}

    def forward(self, x: Tensor) -> Tensor:
        self.check_shape(x, {"b": None, "c": self.dim, "height": None, "width": None}, fix=CHANNELS_FIRST)
        return self.checkpointed("block", self.residual_branches, x)

    def residual_branches(self, x: Tensor) -> Tensor:
        """Add the attention and the MBConv."""
        x = self.residual1(x, self.checkpointed("attention", self.context_module["main"], x))
        return self.residual2(x, self.local_module["main"](x))

    @steps.residual1
    def residual1(self, x: Tensor, branch: Tensor) -> Tensor:
        return x + branch

    @steps.residual2
    def residual2(self, x: Tensor, branch: Tensor) -> Tensor:
        return x + branch


def build(spec: EfficientViTBlockSpec) -> nn.Module:
    """Build the block that a Spec describes."""
    return EfficientViTBlock(spec)
