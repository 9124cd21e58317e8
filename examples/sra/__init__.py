"""Spatial-reduction attention, as in PVT: all tokens attend to fewer keys, each computed from a patch of tokens."""

from .spec import SRASpec as Spec
from .steps import plan

__all__ = ["Spec", "plan"]
