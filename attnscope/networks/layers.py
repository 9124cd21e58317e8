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
        norm_eps: number that a LayerNorm of the hidden layer adds to the variance; None without that norm.
    """

    axes: ClassVar[tuple[str, ...]] = ("b", "n")
    """The axes of the input before its channels."""

    def __init__(self, dim: int, hidden: int, drop: float = 0.0, norm_eps: float | None = None) -> None:
        super().__init__()
        self.add_first_layers(dim, hidden)
        self.drop1 = nn.Dropout(drop)
        self.norm = None if norm_eps is None else nn.LayerNorm(hidden, norm_eps)
        self.fc2 = nn.Linear(hidden, dim)
        self.drop2 = nn.Dropout(drop)

    def add_first_layers(self, dim: int, hidden: int) -> None:
        """Add the layers before the nonlinearity."""
        self.fc1 = nn.Linear(dim, hidden)

    def arguments(self) -> dict[str, Any]:
        return {"dim": self.fc2.out_features, "hidden": self.fc2.in_features}

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        return {"c": self.fc2.out_features, "e": self.fc2.in_features}

    def forward(self, x: Tensor) -> Tensor:
        self.check_shape(x, {**dict.fromkeys(self.axes), "c": self.fc2.out_features})
        x = self.hidden_layer(x)
        if self.norm is not None:
            x = self.norm_hidden(x)
        return self.contract(x)

    def hidden_layer(self, x: Tensor) -> Tensor:
        """Return the hidden channels of each token: (b, n, c) -> (b, n, e)."""
        x = self.expand(x)
        return self.gelu(x)

    @steps.expand
    def expand(self, x: Tensor) -> Tensor:
        return self.fc1(x)

    @steps.gelu
    def gelu(self, hidden: Tensor) -> Tensor:
        return self.drop1(self.curve(hidden))

    def curve(self, hidden: Tensor) -> Tensor:
        """Return GELU of each element."""
        return F.gelu(hidden)

    @steps.norm_hidden
    def norm_hidden(self, hidden: Tensor) -> Tensor:
        assert self.norm is not None
        return self.norm(hidden)

    @steps.contract
    def contract(self, hidden: Tensor) -> Tensor:
        return self.drop2(self.fc2(hidden))


class SwiGLU(Mlp):
    """An MLP with a gate, SiLU(xW) ⊗ xV (Shazeer, arXiv 2002.05202): (b, n, c) -> (b, n, c)."""

    def add_first_layers(self, dim: int, hidden: int) -> None:
        """Add a layer for the gate and one for the channels that it multiplies."""
        self.fc1_g = nn.Linear(dim, hidden)
        self.fc1_x = nn.Linear(dim, hidden)

    def hidden_layer(self, x: Tensor) -> Tensor:
        return self.swiglu(self.gate(x), self.value(x))

    @steps.gate
    def gate(self, x: Tensor) -> Tensor:
        return self.fc1_g(x)

    @steps.value
    def value(self, x: Tensor) -> Tensor:
        return self.fc1_x(x)

    @steps.swiglu
    def swiglu(self, gate: Tensor, hidden: Tensor) -> Tensor:
        return self.drop1(F.silu(gate) * hidden)


class PackedSwiGLU(Mlp):
    """SwiGLU whose first two layers are one parameter and one matmul, as in DINOv2: (b, n, c) -> (b, n, c)."""

    def add_first_layers(self, dim: int, hidden: int) -> None:
        """Add one layer for the gate and for the channels that it multiplies."""
        self.fc1 = nn.Linear(dim, 2 * hidden)

    def hidden_layer(self, x: Tensor) -> Tensor:
        x = self.gate_and_value(x)
        return self.swiglu_packed(x)

    @steps.gate_and_value
    def gate_and_value(self, x: Tensor) -> Tensor:
        return self.fc1(x)

    @steps.swiglu_packed
    def swiglu_packed(self, packed: Tensor) -> Tensor:
        gate, hidden = packed.chunk(2, dim=-1)
        return self.drop1(F.silu(gate) * hidden)


class LayerScale(nn.Module):
    """A learned factor for each channel of a branch; a separate module, so that its parameter name is timm's.

    Args:
        dim: embedding dimension, c.
        initial: initial value of the factors (Touvron et al., arXiv 2103.17239, section 2).
    """

    def __init__(self, dim: int, initial: float = 1e-5) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), initial))


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

    def checkpointed(self, part: str, run: Callable[..., Tensor], *x: Tensor) -> Tensor:
        """Run a part of the block, "block" or "attention"; save its inputs alone if that is the checkpointed part."""
        if part != self.checkpoint or not torch.is_grad_enabled():
            return run(*x)
        result: Tensor = checkpoint(run, *x, use_reentrant=False, preserve_rng_state=self.drops)
        return result


def initialize(network: nn.Module) -> None:
    """Initialize linear layers as in ViT and Swin: weights from a truncated normal with std 0.02, biases with 0."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
