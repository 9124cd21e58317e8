"""Windowed multi-head self-attention in a volume, plain and shifted, as in Video Swin."""

from attnscope.attentions.swin3d.spec import Swin3DSpec as Spec
from attnscope.attentions.swin3d.steps import plan

__all__ = ["Spec", "plan"]
