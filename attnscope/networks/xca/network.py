"""XCiT's block as a module; parameter names are timm's."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnscope.attentions.layer import Layer
from attnscope.attentions.xca.spec import XCASpec
from attnscope.core.sizes import Pair
from attnscope.networks.block.network import Block
from attnscope.networks.layers import Mlp
from attnscope.networks.xca import steps
from attnscope.networks.xca.spec import KERNEL, XCiTBlockSpec

EPS = 1e-6
"""Number that the norms of XCiT add to the variance."""
SCALE = 1.0
"""Initial factor of each channel of a branch, in networks of 12 layers."""


class LocalPatchInteraction(Layer):
    """Two depthwise 3×3 convolutions with a GELU and a batch norm between them: (b, n, c) -> (b, n, c).

    Args:
        dim: embedding dimension, c.
        grid: the grid of tokens, (y, x).
    """

    def __init__(self, dim: int, grid: Pair) -> None:
        super().__init__()
        self.grid = grid
        self.conv1 = nn.Conv2d(dim, dim, KERNEL, padding=KERNEL // 2, groups=dim)
        self.bn = nn.BatchNorm2d(dim)
        self.conv2 = nn.Conv2d(dim, dim, KERNEL, padding=KERNEL // 2, groups=dim)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        return {"c": self.conv1.in_channels, "y": self.grid[0], "x": self.grid[1]}

    def arguments(self) -> dict[str, Any]:
        return {"grid": self.grid}

    def forward(self, x: Tensor) -> Tensor:
        self.check_shape(x, {"b": None, "n": self.grid[0] * self.grid[1], "c": self.conv1.in_channels})
        x = self.to_planes(x)
        x = self.mix_neighbours(x)
        x = self.gelu_planes(x)
        x = self.normalize_planes(x)
        x = self.mix_again(x)
        return self.to_sequence(x)

    @steps.to_planes
    def to_planes(self, x: Tensor) -> Tensor:
        return x.unflatten(1, self.grid).permute(0, 3, 1, 2)

    @steps.mix_neighbours
    def mix_neighbours(self, planes: Tensor) -> Tensor:
        return self.conv1(planes)

    @steps.gelu_planes
    def gelu_planes(self, planes: Tensor) -> Tensor:
        return F.gelu(planes)

    @steps.normalize_planes
    def normalize_planes(self, planes: Tensor) -> Tensor:
        return self.bn(planes)

    @steps.mix_again
    def mix_again(self, planes: Tensor) -> Tensor:
        return self.conv2(planes)

    @steps.to_sequence
    def to_sequence(self, planes: Tensor) -> Tensor:
        return planes.flatten(2).transpose(1, 2)


class XCiTBlock(Block):
    """Attention between channels, local patch interaction and an MLP, each with LayerScale: (b, n, c) -> (b, n, c).

    Args:
        attention: the attention.
        mlp: the MLP.
        checkpoint: what the backward computes again: "none", "block" or "attention".
        scale: initial factor of each channel of a branch.
    """

    def __init__(self, attention: XCASpec, mlp: Mlp, checkpoint: str = "none", scale: float = SCALE) -> None:
        super().__init__(attention, mlp, checkpoint, EPS)
        dim = attention.dim
        self.norm3 = nn.LayerNorm(dim, EPS)
        self.local_mp = LocalPatchInteraction(dim, attention.resolution)
        self.gamma1, self.gamma3, self.gamma2 = (nn.Parameter(torch.full((dim,), scale)) for _ in range(3))

    def residual_branches(self, x: Tensor, *others: Tensor) -> Tensor:
        """Add the scaled outputs of attention, local patch interaction and MLP, each of the normalized tokens."""
        x = self.residual1(x, self.scale1(self.checkpointed("attention", self.attn, self.normalize1(x))))
        x = self.residual3(x, self.scale3(self.local_mp(self.normalize3(x))))
        return self.residual2(x, self.scale2(self.mlp(self.normalize2(x))))

    @steps.scale1
    def scale1(self, branch: Tensor) -> Tensor:
        return branch * self.gamma1

    @steps.norm3
    def normalize3(self, x: Tensor) -> Tensor:
        return self.norm3(x)

    @steps.scale3
    def scale3(self, branch: Tensor) -> Tensor:
        return branch * self.gamma3

    @steps.residual3
    def residual3(self, x: Tensor, branch: Tensor) -> Tensor:
        return x + branch

    @steps.scale2
    def scale2(self, branch: Tensor) -> Tensor:
        return branch * self.gamma2


def build(spec: XCiTBlockSpec) -> nn.Module:
    """Build the block that a Spec describes."""
    attention = spec.attention()
    assert isinstance(attention, XCASpec)
    mlp = Mlp(spec.width, spec.hidden(spec.width), spec.proj_drop)
    return XCiTBlock(attention, mlp, spec.checkpoint)
