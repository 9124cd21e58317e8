"""Neighbourhood attention, as in NAT and DiNAT: each token attends to the K×K tokens around it."""

from attnscope.attentions.nat.spec import NATSpec as Spec
from attnscope.attentions.nat.steps import plan

__all__ = ["Spec", "plan"]
