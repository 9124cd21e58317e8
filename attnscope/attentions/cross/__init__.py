"""Cross-attention between two sequences, as in the Transformer decoder."""

from attnscope.attentions.cross.spec import CrossSpec as Spec
from attnscope.attentions.cross.steps import plan

__all__ = ["Spec", "plan"]
