"""Separable attention, as in MobileViT v2: one score for each token, and one context vector for all of them."""

from attnscope.attentions.separable.spec import SeparableSpec as Spec
from attnscope.attentions.separable.steps import plan

__all__ = ["Spec", "plan"]
