"""MobileViT v2's block as a module; parameter names are timm's."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from attnscope.attentions.layer import CHANNELS_FIRST, Layer
from attnscope.networks.layers import Checkpointing
from attnscope.networks.separable import steps
from attnscope.networks.separable.spec import MobileViTBlockSpec


class ConvolutionalMlp(Layer):
    """Two convolutions of 1×1 with a SiLU between them: (b, c, y, x) -> (b, c, y, x).

    Args:
        dim: embedding dimension, c.
        hidden: hidden size, e.
        drop: dropout probability after the SiLU in training.
    """

    def __init__(self, dim: int, hidden: int, drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.drop = nn.Dropout(drop)
        self.fc2 = nn.Conv2d(hidden, dim, 1)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        return {"c": self.fc1.in_channels, "e": self.fc1.out_channels}

    def forward(self, x: Tensor) -> Tensor:
        x = self.expand(x)
        x = self.silu(x)
        return self.contract(x)

    @steps.expand
    def expand(self, x: Tensor) -> Tensor:
        return self.fc1(x)

    @steps.silu
    def silu(self, hidden: Tensor) -> Tensor:
        return self.drop(F.silu(hidden))

    @steps.contract
    def contract(self, hidden: Tensor) -> Tensor:
        return self.fc2(hidden)


class MobileViTBlock(Checkpointing):
    """Separable attention and an MLP, each with a group norm and a residual: (b, c, y, x) -> (b, c, y, x)."""

    def __init__(self, spec: MobileViTBlockSpec) -> None:
        attention = spec.attention()
        super().__init__(spec.checkpoint, attention.drops)
        self.norm1 = nn.GroupNorm(1, spec.width)
        self.attn = attention.build()
        self.norm2 = nn.GroupNorm(1, spec.width)
        self.mlp = ConvolutionalMlp(spec.width, spec.hidden(spec.width), spec.proj_drop)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        return {"c": self.norm1.num_channels}

    def arguments(self) -> dict[str, Any]:
        return {"dim": self.norm1.num_channels}

    def forward(self, x: Tensor) -> Tensor:
        self.check_shape(
            x, {"b": None, "c": self.norm1.num_channels, "height": None, "width": None}, fix=CHANNELS_FIRST
        )
        return self.checkpointed("block", self.residual_branches, x)

    def residual_branches(self, x: Tensor) -> Tensor:
        """Add the attention and the MLP, each of the normalized tokens."""
        x = self.residual1(x, self.checkpointed("attention", self.attn, self.normalize1(x)))
        return self.residual2(x, self.mlp(self.normalize2(x)))

    @steps.norm1
    def normalize1(self, x: Tensor) -> Tensor:
        return self.norm1(x)

    @steps.residual1
    def residual1(self, x: Tensor, branch: Tensor) -> Tensor:
        return x + branch

    @steps.norm2
    def normalize2(self, x: Tensor) -> Tensor:
        return self.norm2(x)

    @steps.residual2
    def residual2(self, x: Tensor, branch: Tensor) -> Tensor:
        return x + branch


def build(spec: MobileViTBlockSpec) -> nn.Module:
    """Build the block that a Spec describes."""
    return MobileViTBlock(spec)
