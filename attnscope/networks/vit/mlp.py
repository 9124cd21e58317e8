"""The MLPs of published vision transformers: where they differ."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class MlpKind:
    """An MLP of a block.

    Args:
        layers: its steps with linear layers, each with the number of layers that it computes in one matmul.
    """

    layers: Mapping[str, int]

    @property
    def count(self) -> int:
        """Return the number of linear layers; a gated MLP has three."""
        return sum(self.layers.values())


GELU, SWIGLU, PACKED = "gelu", "swiglu", "swiglu-packed"
MLPS = {
    GELU: MlpKind({"expand": 1, "contract": 1}),
    SWIGLU: MlpKind({"gate": 1, "value": 1, "contract": 1}),
    PACKED: MlpKind({"gate_and_value": 2, "contract": 1}),
}
"""MLPs by the value of --mlp; both gated ones are SwiGLU (Shazeer, arXiv 2002.05202), as in timm.

The packed one has the weights of both layers before the gate as one parameter, and computes them in one matmul.
"""
