"""The block of any attention as a module."""

from typing import Any, ClassVar

from torch import Tensor, nn

from attnscope.attentions.spec import Spec
from attnscope.networks import steps
from attnscope.networks.block.spec import BlockSpec
from attnscope.networks.block.steps import TOKENS
from attnscope.networks.layers import Checkpointing, Mlp


class Block(Checkpointing):
    """Norm, attention, residual, norm, MLP, residual: (b, n, c) -> (b, n, c).

    Args:
        attention: the attention; its output has the shape of its first input.
        mlp: the MLP, with the layers fc1 and fc2.
        checkpoint: what the backward computes again: "none", "block" or "attention".
        eps: the number that the norms add to the variance.
    """

    axes: ClassVar[tuple[str, ...]] = ("b", *TOKENS[3])
    """The axes of the input before its channels."""

    def __init__(self, attention: Spec, mlp: Mlp, checkpoint: str = "none", eps: float = 1e-5) -> None:
        super().__init__(checkpoint, attention.drops)
        dim = attention.input_shape[-1]
        self.norm1 = nn.LayerNorm(dim, eps)
        self.attn = attention.build()
        self.norm2 = nn.LayerNorm(dim, eps)
        self.mlp = mlp

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        return {"c": self.norm1.normalized_shape[0]}

    def arguments(self) -> dict[str, Any]:
        return {"dim": self.mlp.fc1.in_features, "hidden": self.mlp.fc1.out_features}

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        self.check_shape(x, {**dict.fromkeys(self.axes), "c": self.mlp.fc1.in_features})
        return self.checkpointed("block", self.residual_branches, x, *others)

    def residual_branches(self, x: Tensor, *others: Tensor) -> Tensor:
        """Add the attention and the MLP, each of the normalized tokens."""
        x = self.residual1(x, self.checkpointed("attention", self.attn, self.normalize1(x), *others))
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


class GridMlp(Mlp):
    """The MLP on a grid of tokens: (b, y, x, c) -> (b, y, x, c)."""

    spelling: ClassVar[dict[str, str]] = steps.GRID
    axes: ClassVar[tuple[str, ...]] = ("b", *TOKENS[4])


class GridBlock(Block):
    """The block on a grid of tokens: (b, y, x, c) -> (b, y, x, c)."""

    spelling: ClassVar[dict[str, str]] = GridMlp.spelling
    axes: ClassVar[tuple[str, ...]] = GridMlp.axes


class VolumeMlp(Mlp):
    """The MLP on the tokens of a video: (b, t, y, x, c) -> (b, t, y, x, c)."""

    spelling: ClassVar[dict[str, str]] = {"n": " ".join(TOKENS[5])}
    axes: ClassVar[tuple[str, ...]] = ("b", *TOKENS[5])


class VolumeBlock(Block):
    """The block on the tokens of a video: (b, t, y, x, c) -> (b, t, y, x, c)."""

    spelling: ClassVar[dict[str, str]] = VolumeMlp.spelling
    axes: ClassVar[tuple[str, ...]] = VolumeMlp.axes


KINDS = {3: (Block, Mlp), 4: (GridBlock, GridMlp), 5: (VolumeBlock, VolumeMlp)}
"""The classes of a block and of its MLP, by the number of axes of the input."""


def build(spec: BlockSpec) -> nn.Module:
    """Build the block that a Spec describes."""
    block, mlp = KINDS[len(spec.input_shape)]
    return block(spec.attention(), mlp(spec.width, spec.hidden(spec.width), spec.proj_drop), spec.checkpoint)
