"""Attentions: one folder each, in this package, in an installed distribution or at any path (`load`).

A folder contains `spec.py` (the options), `steps.py` (the steps, and the plan of a Spec) and `attention.py` (the
module). `spec.py` and `steps.py` do not import torch; `build` imports `attention.py`.
"""

from typing import TYPE_CHECKING

from attnscope.attentions.discovery import find_spec_class, load, names
from attnscope.attentions.spec import Spec
from attnscope.core.errors import UsageError, did_you_mean, quoted
from attnscope.plan.plan import Plan

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Spec", "build", "load", "names", "plan", "spec_class"]


def spec_class(name: str) -> type[Spec]:
    """Return the Spec of the attention with this name.

    Raises:
        UsageError: if the name is unknown, or if it belongs to an installed attention that cannot be used.
    """
    spec = find_spec_class(name)
    if spec is None:
        raise UsageError(f"the attention {quoted(name)} is unknown; {did_you_mean(name, names())}")
    return spec


def plan(spec: Spec) -> Plan:
    """Return the steps that `spec` runs, with their sizes, without importing torch."""
    return spec.plan()


def build(spec: Spec) -> "nn.Module":
    """Build the module of `spec` on torch's default device, with torch's default dtype."""
    return spec.build()
