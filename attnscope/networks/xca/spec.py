"""Options of XCiT's block, and its cost by formula."""

from dataclasses import dataclass
from typing import ClassVar

from attnscope.attentions.xca.spec import XCASpec
from attnscope.core.errors import UsageError
from attnscope.core.formula import Expression, symbol
from attnscope.networks.block.spec import BlockSpec

KERNEL = 3
"""Side of the depthwise convolutions of local patch interaction (El-Nouby et al., arXiv 2106.09681, section 3.3)."""


@dataclass(frozen=True, kw_only=True)
class XCiTBlockSpec(BlockSpec):
    """A block of XCiT (arXiv 2106.09681, section 3.3): channel attention, local patch interaction, MLP.

    A norm precedes each of them, and LayerScale and a residual follow it.

    Raises:
        UsageError: if a value of the attention is not allowed or is DaViT's, or if the MLP has no hidden
            channel.
    """

    OTHERS: ClassVar[str] = ", LPI and MLP"

    def __post_init__(self) -> None:
        super().__post_init__()
        attention = self.attention()
        assert isinstance(attention, XCASpec)
        if attention.variant != "xcit":
            raise UsageError(
                f"{{variant}} must be xcit for {{scope}} block, since DaViT's block has other convolutions "
                f"(got {attention.variant}); use {{variant}} xcit, or {{scope}} attention"
            )

    def others_form(self) -> dict[str, int]:
        """Return the MACs of each step outside the attention, for one image: 18NC for LPI, and 2NCE for the MLP."""
        convolve = KERNEL**2 * self.tokens_of_mlp * self.width
        return {"local_mp.mix_neighbours": convolve, "local_mp.mix_again": convolve, **super().others_form()}

    def others_cost(self) -> Expression:
        """Return the MACs outside the attention for one image, such as `8hwC² + 18hwC`."""
        return super().others_cost() + 2 * KERNEL**2 * self.token_count * symbol("C", self.width)
