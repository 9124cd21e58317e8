"""Attention between channels, as in XCiT and DaViT: the map of each head is d×d for any number of tokens."""

from attnscope.attentions.xca.spec import XCASpec as Spec
from attnscope.attentions.xca.steps import plan

__all__ = ["Spec", "plan"]
