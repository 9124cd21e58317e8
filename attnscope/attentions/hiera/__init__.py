"""Mask unit attention, as in Hiera: windows without positions, whose queries can be pooled."""

from attnscope.attentions.hiera.spec import HieraSpec as Spec
from attnscope.attentions.hiera.steps import plan

__all__ = ["Spec", "plan"]
