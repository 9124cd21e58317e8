"""Windowed multi-head self-attention, plain and shifted, as in Swin: every token attends to its own window."""

from attnscope.attentions.swin.spec import SwinSpec as Spec
from attnscope.attentions.swin.steps import plan

__all__ = ["Spec", "plan"]
