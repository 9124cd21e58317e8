"""Layers and initialization that all networks share."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from attnscope.attentions.layer import Layer
from attnscope.networks import steps


class Mlp(Layer):
    """Two linear layers with a GELU between them: (b, n, c) -> (b, n, c).

    Args:
        dim: embedding dimension, c.
        hidden: hidden size, e.
        drop: dropout probability after each layer in training.
    """

    axes: ClassVar[tuple[str, ...]] = ("b", "n")
    """The axes of the input before its channels."""

    def __init__(self, dim: int, hidden: int, drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.drop1 = nn.Dropout(drop)
        self.fc2 = nn.Linear(hidden, dim)
        self.drop2 = nn.Dropout(drop)

    def arguments(self) -> dict[str, Any]:
        return {"dim": self.fc1.in_features, "hidden": self.fc1.out_features}

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        return {"c": self.fc1.in_features, "e": self.fc1.out_features}

    def forward(self, x: Tensor) -> Tensor:
        self.check_shape(x, {**dict.fromkeys(self.axes), "c": self.fc1.in_features})
        x = self.expand(x)
        x = self.gelu(x)
        return self.contract(x)

    @steps.expand
    def expand(self, x: Tensor) -> Tensor:
        return self.fc1(x)

    @steps.gelu
    def gelu(self, hidden: Tensor) -> Tensor:
        return self.drop1(F.gelu(hidden))

    @steps.contract
    def contract(self, hidden: Tensor) -> Tensor:
        return self.drop2(self.fc2(hidden))


class Checkpointing(Layer):
    """A block whose backward can compute the block, or its attention, again instead of saving their tensors.

    Args:
        checkpoint: what it computes again: "none", "block" or "attention".
        drops: whether it has dropout, which must draw the same numbers again.
    """

    def __init__(self, checkpoint: str, drops: bool) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.drops = drops

    def checkpointed(self, part: str, run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Run a part of the block, "block" or "attention"; save its input alone if that is the checkpointed part."""
        if part != self.checkpoint or not torch.is_grad_enabled():
            return run(x)
        result: Tensor = checkpoint(run, x, use_reentrant=False, preserve_rng_state=self.drops)
        return result


def initialize(network: nn.Module) -> None:
    """Initialize linear layers as in ViT and Swin: weights from a truncated normal with std 0.02, biases with 0."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
