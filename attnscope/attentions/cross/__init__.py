"""Cross-attention between two sequences, as in the decoder of the Transformer."""

from attnscope.attentions.cross.spec import CrossSpec as Spec
from attnscope.attentions.cross.steps import plan

__all__ = ["Spec", "plan"]
