"""Linear attention, as in EfficientViT: keys and values are summed before the queries see them, without N×N scores."""

from attnscope.attentions.linear.spec import LinearSpec as Spec
from attnscope.attentions.linear.steps import plan

__all__ = ["Spec", "plan"]
