"""MaxViT's attention: within blocks of neighbouring tokens, or within a sparse grid over the whole image."""

from attnscope.attentions.maxvit.spec import MaxViTSpec as Spec
from attnscope.attentions.maxvit.steps import plan

__all__ = ["Spec", "plan"]
