"""Global multi-head self-attention, as in ViT: every token attends to all tokens."""

from attnscope.attentions.vit.spec import ViTSpec as Spec
from attnscope.attentions.vit.steps import plan

__all__ = ["Spec", "plan"]
