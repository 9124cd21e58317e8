"""Whole networks made of attentions, in the same three parts: what can be asked, the steps on a page, the module.

The first two are torch-free; only `build` imports the third.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from attnscope import attentions
from attnscope.attentions.spec import Spec, own_fields
from attnscope.core.errors import UsageError, did_you_mean, quoted
from attnscope.networks.spec import NetworkSpec
from attnscope.plan.plan import Plan

if TYPE_CHECKING:
    from torch import nn

SCOPES = ("attention", "block", "model")
"""How much is looked at."""

__all__ = ["SCOPES", "NetworkSpec", "asked", "build", "names", "plan", "spec_class", "without_effect"]

_SPECS = {
    "vit": ("vit", "ViTNetworkSpec"),
    "swin": ("swin", "SwinNetworkSpec"),
    "swinv2": ("swin", "SwinV2NetworkSpec"),
}
"""For each attention that there are networks of: their folder, and the Spec in it."""


def names() -> list[str]:
    """The attentions that there are networks of."""
    return list(_SPECS)


def spec_class(name: str) -> type[NetworkSpec]:
    """The Spec of the networks that are made of the attention with this name."""
    folder, spec = _SPECS[name]
    found: type[NetworkSpec] = getattr(import_module(f"{__name__}.{folder}.spec"), spec)
    return found


def asked(name: str, given: Mapping[str, Any], scope: str = "attention") -> Spec:
    """The Spec of what is asked for: one attention, or a block, a stage or the whole of a network made of it.

    Args:
        name: an attention.
        given: fields of its Spec and of its networks' Spec, those that differ from their defaults.
        scope: attention, block or model. One attention of a network is asked for with fields that only a network has,
            such as depth; fields that only the attention has, such as tokens, then replace what the network makes of it.

    Raises:
        UsageError: the scope is unknown, there is no such network, or a field has no place in the scope.
    """
    if scope not in SCOPES:
        raise UsageError(f"{{scope}} {quoted(scope)} is unknown; {did_you_mean(scope, SCOPES)}")
    attention = attentions.spec_class(name)
    if name not in _SPECS:
        if scope != "attention":
            raise UsageError(f"{{scope}} {scope} has no place in {name}, of which there are no networks")
        return attention(**given)
    network = spec_class(name)
    of_attention, of_network = ({field.name for field in fields(spec)} for spec in (attention, network))
    if scope == "attention" and of_attention.issuperset(given):
        return attention(**given)
    of_one = {field: value for field, value in given.items() if field not in of_network}
    whole = {field: value for field, value in given.items() if field in of_network}
    if scope != "attention":
        for field in of_one:
            instead = {attention.SIZE_FIELD: f"{{{network.SIZE_FIELD}}}", **network.INSTEAD}.get(field)
            fix = f"give {instead} in its place" if instead else "leave one of them out"
            raise UsageError(f"{{{field}}} is of one attention, and {{scope}} {scope} has no such flag; {fix}")
        return network(scope=scope, **whole)
    of_block: Spec = network(scope="block", **whole).attention()
    if attention.SIZE_FIELD in of_one:
        of_block = of_block.of_size(of_one.pop(attention.SIZE_FIELD))
    return replace(of_block, **of_one)


def without_effect(name: str, given: Mapping[str, Any], scope: str) -> dict[str, str]:
    """Return the fields of a network that change nothing in a scope, each with the flags that it needs.

    A field changes nothing if the Spec, or of a part of a network its attention and its plan, are the same without it.

    Args:
        name: an attention.
        given: fields as `asked` takes them.
        scope: attention, block or model.
    """
    if name not in _SPECS:
        return {}
    network, of_attention = own_fields(spec_class(name)), own_fields(attentions.spec_class(name))
    own = {
        field: value
        for field, value in given.items()
        if field in network and field not in of_attention and value != network[field].default
    }
    selecting = [field for field in own if network[field].metadata.get("selects")]
    needed = {}
    for field in own:
        if field not in selecting and not _changes(name, given, scope, field):
            wider = [each for each in SCOPES[SCOPES.index(scope) + 1 :] if _changes(name, own, each, field)]
            rest = "".join(f" without {{{each}}}" for each in selecting)
            needed[field] = f"{{scope}} {wider[0]}" if wider else f"{{scope}} model{rest}"
    return needed


def _changes(name: str, given: Mapping[str, Any], scope: str, field: str) -> bool:
    """Return whether what is explored in a scope is another without a field, or is not there at all."""
    others = {each: value for each, value in given.items() if each != field}
    try:
        return _explored(asked(name, given, scope)) != _explored(asked(name, others, scope))
    except UsageError:
        return True


def _explored(spec: Spec) -> object:
    """Return what the fields of a Spec decide: all of a whole network; of a part of one, its attention and its plan."""
    is_part = isinstance(spec, NetworkSpec) and not spec.is_whole
    return (spec.attention(), spec.plan()) if is_part else spec  # type: ignore[attr-defined]


def plan(spec: NetworkSpec) -> Plan:
    """The steps that this Spec runs, with their sizes; identical blocks are one. No torch."""
    return spec.plan()


def build(spec: NetworkSpec) -> "nn.Module":
    """The module of this Spec, on torch's default device and with torch's default dtype."""
    return spec.build()
