"""Networks built from attentions, in the same three parts: the options, the steps, the module.

Options and steps do not import torch; only `build` imports the module.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from attnscope import attentions
from attnscope.attentions.spec import Spec, own_fields
from attnscope.core.errors import UsageError, did_you_mean, quoted
from attnscope.networks.block.spec import BlockSpec, block_class
from attnscope.networks.composed import ComposedSpec
from attnscope.networks.spec import NetworkSpec
from attnscope.plan.plan import Plan

if TYPE_CHECKING:
    from torch import nn

SCOPES = ("attention", "block", "model")
"""Scopes of a command: one attention, one block, or the whole network."""
_OTHER_WORDS = {"network": "model", "net": "model", "layer": "attention", "attn": "attention"}

__all__ = [
    "SCOPES",
    "ComposedSpec",
    "NetworkSpec",
    "asked",
    "build",
    "names",
    "plan",
    "scopes",
    "spec_class",
    "without_effect",
]

_SPECS = {
    "vit": ("vit", "ViTNetworkSpec"),
    "sam": ("sam", "SAMNetworkSpec"),
    "hiera": ("hiera", "HieraNetworkSpec"),
    "nat": ("nat", "NATNetworkSpec"),
    "pvt": ("pvt", "PVTNetworkSpec"),
    "xca": ("xca", "XCiTNetworkSpec"),
    "maxvit": ("maxvit", "MaxViTNetworkSpec"),
    "twins": ("twins", "TwinsNetworkSpec"),
    "cswin": ("cswin", "CSWinNetworkSpec"),
    "swin": ("swin", "SwinNetworkSpec"),
    "swinv2": ("swin", "SwinV2NetworkSpec"),
}
"""Folder and name of the network Spec for each attention that has networks."""
_BLOCKS = {
    "linear": ("linear", "EfficientViTBlockSpec"),
    "separable": ("separable", "MobileViTBlockSpec"),
}
"""Folder and name of the block Spec for each attention without networks whose blocks are not the usual ones."""


def names() -> list[str]:
    """Return the names of the attentions that have networks."""
    return list(_SPECS)


def scopes(name: str) -> tuple[str, ...]:
    """Return the scopes of an attention's command; the model is one of them if it has networks."""
    if name in _SPECS:
        return SCOPES
    return SCOPES[:1] if "scope" in own_fields(attentions.spec_class(name)) else SCOPES[:2]


def spec_class(name: str) -> type[NetworkSpec] | type[BlockSpec]:
    """Return the Spec of the networks built from the attention with this name, or of its block if it has none."""
    if name in _SPECS:
        network: type[NetworkSpec] = _found(*_SPECS[name])
        return network
    block: type[BlockSpec] = _found(*_BLOCKS[name]) if name in _BLOCKS else BlockSpec
    return block_class(attentions.spec_class(name), block)


def _found(folder: str, spec: str) -> Any:
    """Return the Spec class with this name in a folder of networks."""
    return getattr(import_module(f"{__name__}.{folder}.spec"), spec)


def asked(name: str, given: Mapping[str, Any], scope: str = "attention") -> Spec:
    """Return the Spec of one attention, or of a block, a stage or the whole of a network built from it.

    Args:
        name: name of an attention.
        given: values of fields of its Spec and of its networks' Spec that differ from the defaults.
        scope: "attention", "block" or "model". With scope "attention", a field that only networks have, such as depth,
            selects the attention of a network. Fields that only the attention has, such as tokens, then override the
            network's values.

    Raises:
        UsageError: if the scope is unknown, the attention has no networks, or a field does not apply to the scope.
    """
    if scope not in SCOPES:
        raise UsageError(f"{{scope}} {quoted(scope)} is unknown; {did_you_mean(scope, SCOPES, synonyms=_OTHER_WORDS)}")
    attention = attentions.spec_class(name)
    if name not in _SPECS and scope == "model":
        raise UsageError(
            f"{{scope}} must be attention or block for {name}, which has no networks (got model); use {{scope}} block"
        )
    network = spec_class(name)
    of_attention, of_network = ({field.name for field in fields(spec)} for spec in (attention, network))
    if scope == "attention" and of_attention.issuperset(given):
        return attention(**given)
    of_one = {field: value for field, value in given.items() if field not in of_network}
    whole = {field: value for field, value in given.items() if field in of_network}
    if scope != "attention":
        for field, value in of_one.items():
            typed = f"no_{field}" if value is False else field
            instead = {attention.SIZE_FIELD: f"{{{network.SIZE_FIELD}}}", **network.INSTEAD}.get(field)
            fix = f"use {instead or '{scope} attention'} instead"
            raise UsageError(f"{{{typed}}} applies only to {{scope}} attention (got {{scope}} {scope}); {fix}")
        return network(scope=scope, **whole)
    of_block: Spec = network(scope="block", **whole).attention()
    if attention.SIZE_FIELD in of_one:
        of_block = of_block.of_size(of_one.pop(attention.SIZE_FIELD))
    return replace(of_block, **of_one)


def without_effect(name: str, given: Mapping[str, Any], scope: str) -> dict[str, str]:
    """Return the fields of a network that have no effect in a scope, each with the flags that it requires.

    A field has no effect if the Spec is the same without it. For a part of a network, only its attention and its plan
    must be the same.

    Args:
        name: name of an attention.
        given: values of fields, as in `asked`.
        scope: "attention", "block" or "model".
    """
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
    """Return whether a field changes the explored part of a network, or whether the part does not exist without it."""
    others = {each: value for each, value in given.items() if each != field}
    try:
        return _explored(asked(name, given, scope)) != _explored(asked(name, others, scope))
    except UsageError:
        return True


def _explored(spec: Spec) -> object:
    """Return the values to compare: the Spec of a whole network, or the attention and the plan of a part of one."""
    is_part = isinstance(spec, ComposedSpec) and not spec.is_whole
    return (spec.attention(), spec.plan()) if is_part else spec  # type: ignore[attr-defined]


def plan(spec: ComposedSpec) -> Plan:
    """Return the steps that this Spec runs, with their sizes; identical blocks are merged. It does not import torch."""
    return spec.plan()


def build(spec: ComposedSpec) -> "nn.Module":
    """Build the module of this Spec on torch's default device, with torch's default dtype."""
    return spec.build()
