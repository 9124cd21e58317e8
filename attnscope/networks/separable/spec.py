"""Options of MobileViT v2's block."""

from dataclasses import dataclass

from attnscope.attentions.spec import option
from attnscope.networks.block.spec import MLP_OPTION, BlockSpec


@dataclass(frozen=True, kw_only=True)
class MobileViTBlockSpec(BlockSpec):
    """A transformer block of MobileViT v2 (Mehta and Rastegari, arXiv 2206.02680): separable attention, then an MLP.

    Each follows a group norm of the whole image, and the layers of the MLP are convolutions of 1×1.

    Raises:
        UsageError: if a value of the attention is not allowed, or if the MLP has no hidden channel.
    """

    mlp_ratio: float = option(2.0, **MLP_OPTION)
