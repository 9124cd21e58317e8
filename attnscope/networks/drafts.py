"""Drafts of attentions and of networks: the same values in another scope, or in another attention."""

from collections.abc import Mapping
from typing import Any

from attnscope import attentions, networks
from attnscope.attentions.draft import Draft
from attnscope.attentions.spec import Spec, own_fields
from attnscope.core.errors import UsageError
from attnscope.networks.composed import ComposedSpec


def scope_of(draft: Draft) -> str:
    """Return the scope of a draft: attention, block or model."""
    return draft.spec.scope if isinstance(draft.spec, ComposedSpec) else "attention"


def scopes_of(draft: Draft) -> tuple[str, ...]:
    """Return the scopes that the attention of a draft has."""
    return tuple(scope for scope in networks.scopes(draft.kind.name) if scope == "attention" or _has(draft, scope))


def _has(draft: Draft, scope: str) -> bool:
    """Return whether the attention of a draft has a block, or a network."""
    try:
        networks.spec_class(draft.kind.name)(scope=scope)
    except UsageError:
        return False
    return True


def in_scope(draft: Draft, scope: str) -> Draft:
    """Return a draft of an attention, a block or a network with the values that both scopes have."""
    if scope == scope_of(draft):
        return draft
    if scope == "attention":
        assert isinstance(draft.spec, ComposedSpec)
        return Draft.of(draft.spec.attention())
    return _carried(networks.spec_class(draft.kind.name), {"scope": scope}, draft.given)


def of_attention(draft: Draft, name: str) -> Draft:
    """Return a draft of another attention with the values that both have, in the same scope if it has networks."""
    scope = scope_of(draft)
    if scope not in scopes_of(Draft(attentions.spec_class(name))) or scope == "attention":
        return _carried(attentions.spec_class(name), {}, draft.given)
    return _carried(networks.spec_class(name), {"scope": scope}, draft.given)


def _carried(kind: type[Spec], given: Mapping[str, Any], values: Mapping[str, Any]) -> Draft:
    """Return a draft with the given values and those of the others that the Spec accepts, one after the other."""
    draft = Draft(kind, given)
    for name, value in values.items():
        if name in own_fields(kind) and name not in given:
            try:
                draft = draft.with_value(name, value)
            except UsageError:
                continue
    return draft
