"""Spatial-reduction attention, as in PVT: all tokens attend to fewer keys, each computed from a patch of tokens."""

from attnscope.attentions.pvt.spec import PVTSpec as Spec
from attnscope.attentions.pvt.steps import plan

__all__ = ["Spec", "plan"]
