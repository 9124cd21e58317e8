"""Drafts of Specs: the legal values next to each one, typed values, and the same values in another scope."""

import random

import pytest

from attnscope import attentions, networks
from attnscope.attentions.draft import Draft, beside, neighbours
from attnscope.attentions.spec import kind, own_fields
from attnscope.core.errors import AttnscopeError, UsageError
from attnscope.networks.drafts import in_scope, of_attention, scope_of, scopes_of
from attnscope.networks.presets import presets

KINDS = [*map(attentions.spec_class, attentions.names()), *map(networks.spec_class, networks.names())]


def walked(start: Draft, seed: int, steps: int) -> list[Draft]:
    """Return the drafts of a random walk over the neighbours of random fields."""
    random.seed(seed)
    drafts = [start]
    for _ in range(steps):
        name = random.choice([field for field in own_fields(start.kind) if field != "scope"])
        drafts.append(beside(drafts[-1], name, random.random() < 0.6, random.choice((1, 1, 2))))
    return drafts


def accepts(draft: Draft, name: str, value: object) -> bool:
    """Return whether a Spec accepts a value of a field."""
    try:
        draft.with_value(name, value)
    except UsageError:
        return False
    return True


@pytest.mark.parametrize("spec", KINDS, ids=lambda spec: spec.__name__)
def test_a_neighbour_is_legal_and_no_nearer_value_is(spec):
    """Whole numbers up to 200 away are tried one by one."""
    for draft in walked(Draft(spec), seed=0, steps=12):
        for name, declared in own_fields(spec).items():
            below, above = neighbours(draft, name)
            own = getattr(draft.spec, name)
            for value in (below, above):
                if value != own:
                    assert getattr(draft.with_value(name, value).spec, name) == value
            if kind(declared) is int and own is not None:
                nearest = next((n for n in range(own + 1, own + 200) if accepts(draft, name, n)), None)
                assert nearest in (above, None), (name, own, draft.given)
                nearest = next((n for n in range(own - 1, max(own - 200, -1), -1) if accepts(draft, name, n)), None)
                assert nearest in (below, None), (name, own, draft.given)


def test_the_embedding_dimension_stays_divisible_by_the_heads():
    assert neighbours(Draft(attentions.spec_class("vit")), "dim") == (756, 780)


def test_twice_and_half():
    draft = Draft(attentions.spec_class("swin"))
    assert neighbours(draft, "resolution", 2) == ((28, 28), (112, 112))
    assert neighbours(Draft(networks.spec_class("vit")), "mlp_ratio", 2) == (2.0, 8.0)


def test_a_value_without_a_neighbour_stays():
    draft = Draft(attentions.spec_class("vit"))
    assert neighbours(draft, "dtype")[0] == "float32"
    assert neighbours(draft, "batch")[0] == 1


@pytest.mark.parametrize("name", ["tokens", "image", "patch", "cls", "registers"])
def test_a_new_value_replaces_those_that_contradict_it(name):
    values = {"tokens": 50, "image": (32, 32), "patch": (8, 8), "cls": False, "registers": 2}
    draft = Draft(attentions.spec_class("vit"))
    for other in values:
        before = draft.with_value(other, values[other])
        after = before.with_value(name, values[name])
        assert getattr(after.spec, name) == values[name]


def test_a_field_without_a_value_has_its_default_again():
    draft = Draft(attentions.spec_class("vit")).with_value("tokens", 50).with_text("tokens", "")
    assert draft.spec == attentions.spec_class("vit")()


def test_a_typed_value_has_the_errors_of_the_command_line():
    draft = Draft(attentions.spec_class("vit"))
    assert draft.with_text("image", " 32x64 ").spec.image == (32, 64)
    assert draft.with_text("qkv_bias", "off").spec.qkv_bias is False
    for name, text, error in (
        ("dim", "770", "--dim must be divisible by --heads 12 (got 770); nearest: 768 or 780, or --heads 11 or 14"),
        ("dim", "7x7", "--dim must be an integer (got 7x7)"),
        ("qkv_bias", "maybe", "--qkv-bias must be on or off (got maybe)"),
        ("dtype", "float", "--dtype float is unknown; did you mean float32?"),
    ):
        with pytest.raises(AttnscopeError) as raised:
            draft.with_text(name, text)
        assert raised.value.in_flags() == error


@pytest.mark.parametrize("spec", KINDS, ids=lambda spec: spec.__name__)
def test_a_draft_of_a_spec_has_the_fewest_values_that_give_it(spec):
    for draft in walked(Draft(spec), seed=1, steps=12):
        found = Draft.of(draft.spec)
        assert found.spec == draft.spec
        for name in found.given:
            fewer = {other: value for other, value in found.given.items() if other != name}
            try:
                assert spec(**fewer) != draft.spec
            except UsageError:
                continue


def test_scopes_carry_the_values_that_both_have():
    draft = Draft(attentions.spec_class("swin"), {"dim": 192, "heads": 6, "shift": True})
    assert scopes_of(draft) == networks.SCOPES
    model = in_scope(draft, "model")
    assert (scope_of(model), model.spec.dim, model.spec.heads) == ("model", 192, 6)
    assert model.command == "attnscope swin --scope model --dim 192 --heads 6"
    assert in_scope(model, "attention").spec == model.spec.attention()
    assert scopes_of(Draft(attentions.spec_class("swin3d"))) == ("attention", "block")
    assert scopes_of(Draft(attentions.spec_class("xca"))) == networks.SCOPES


def test_another_attention_has_the_values_that_it_accepts():
    draft = Draft(attentions.spec_class("vit"), {"dim": 100, "heads": 10, "tokens": 50})
    other = of_attention(draft, "swin")
    assert other.kind is attentions.spec_class("swin")
    assert (other.spec.dim, other.spec.heads) == (96, 3)  # 100 is not divisible by 3, nor 96 by 10
    model = in_scope(Draft(attentions.spec_class("swin")), "model")
    assert scope_of(of_attention(model, "vit")) == "model"
    assert scope_of(of_attention(model, "swin3d")) == "attention"


def test_every_preset_is_a_draft():
    for preset in presets():
        assert Draft.of(preset.spec).spec == preset.spec
