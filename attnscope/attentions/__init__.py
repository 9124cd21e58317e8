"""The attentions that attnscope knows: every folder here is one, found by its name.

A folder holds `spec.py` (what can be asked), `steps.py` (the attention on one page, and the plan of a Spec) and
`attention.py` (the module). The first two are torch-free; only `build` imports the third.
"""

from functools import lru_cache
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import TYPE_CHECKING

from attnscope.attentions.spec import Spec
from attnscope.plan.plan import Plan

if TYPE_CHECKING:
    from torch import nn


def names() -> list[str]:
    """The names of all attentions."""
    return sorted(module.name for module in iter_modules(__path__) if module.ispkg)


def spec_class(name: str) -> type[Spec]:
    """The Spec of the attention with this name."""
    spec: type[Spec] = _folder(name).Spec
    return spec


def plan(spec: Spec) -> Plan:
    """The steps that this Spec runs, with their sizes. No torch."""
    return spec.plan()


def build(spec: Spec) -> "nn.Module":
    """The module of this Spec, on torch's default device and with torch's default dtype."""
    return spec.build()


@lru_cache
def _folder(name: str) -> ModuleType:
    return import_module(f"{__name__}.{name}")
