"""Attention with decomposed relative positions, as in ViTDet and SAM: in windows, or global."""

from attnscope.attentions.sam.spec import SAMSpec as Spec
from attnscope.attentions.sam.steps import plan

__all__ = ["Spec", "plan"]
