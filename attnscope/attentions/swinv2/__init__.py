"""Windowed cosine attention with a continuous position bias, as in Swin V2."""

from attnscope.attentions.swinv2.spec import SwinV2Spec as Spec
from attnscope.attentions.swinv2.steps import plan

__all__ = ["Spec", "plan"]
