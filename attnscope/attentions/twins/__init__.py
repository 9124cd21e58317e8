"""Locally-grouped attention, as in Twins: windows without a shift, a mask or a position bias."""

from attnscope.attentions.twins.spec import TwinsSpec as Spec
from attnscope.attentions.twins.steps import plan

__all__ = ["Spec", "plan"]
