"""Options of EfficientViT's block, and its cost by formula."""

from dataclasses import dataclass
from typing import ClassVar

from attnscope.core.formula import Expression, symbol
from attnscope.networks.block.spec import BlockSpec

KERNEL = 3
"""Side of the depthwise convolution of an MBConv (Cai et al., arXiv 2205.14756, section 3.2)."""


@dataclass(frozen=True, kw_only=True)
class EfficientViTBlockSpec(BlockSpec):
    """A block of EfficientViT (Cai et al., arXiv 2205.14756, section 3.2): linear attention, then an MBConv.

    The MBConv is the MLP with a depthwise 3×3 convolution between its layers. Batch norms end both branches, and no
    norm precedes them.

    Raises:
        UsageError: if a value of the attention is not allowed, or if the MBConv has no hidden channel.
    """

    PATH: ClassVar[str] = "context_module.main"
    OTHERS: ClassVar[str] = " and MBConv"
    MLP: ClassVar[str] = "MBConv"

    def others_form(self) -> dict[str, int]:
        """Return the MACs of each step outside the attention, for one image: 2NCE + 9NE for a hidden size E."""
        N, C, E = self.tokens_of_mlp, self.width, self.hidden(self.width)
        mbconv = {"expand": N * C * E, "mix_neighbours": KERNEL**2 * N * E, "contract": N * C * E}
        return {f"local_module.main.{name}": macs for name, macs in mbconv.items()}

    def others_cost(self) -> Expression:
        """Return the MACs outside the attention for one image, such as `8hwC² + 9hwE`."""
        return super().others_cost() + KERNEL**2 * self.token_count * symbol("E", self.hidden(self.width))
