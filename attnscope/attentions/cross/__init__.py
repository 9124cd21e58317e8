"""Cross-attention between two sequences, as in the decoder of the Transformer."""

from attnscope.attentions.cross.spec import CrossSpec as Spec
from attnscope.attentions.cross.steps import plan

ORDER = 4

__all__ = ["ORDER", "Spec", "plan"]
