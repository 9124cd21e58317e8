"""The rows of the fields: the attention, the scope, then the fields of the Spec in their groups."""

from collections.abc import Callable
from dataclasses import Field, dataclass
from typing import Any

from attnscope import attentions
from attnscope.attentions.draft import Draft, beside
from attnscope.attentions.spec import Spec, own_fields_first, spell_value
from attnscope.core.errors import UsageError, did_you_mean, quoted
from attnscope.networks.composed import ComposedSpec
from attnscope.networks.drafts import in_scope, of_attention, scope_of, scopes_of

UNSET = "–"


@dataclass(frozen=True)
class Row:
    """One editable row.

    Args:
        name: what the row sets.
        group: the group of rows that it belongs to.
        value: its value as text, which can be typed again.
        is_given: whether the value was given; others are defaults, or follow from given ones.
        help: what explains the row.
        step: a function that returns the draft with the next value below (-1) or above (1), by a factor.
        type: a function that returns the draft with a typed value.
    """

    name: str
    group: str
    value: str
    is_given: bool
    help: str
    step: Callable[[int, int], Draft]
    type: Callable[[str], Draft]


def rows_of(draft: Draft) -> list[Row]:
    """Return the rows of a draft."""
    rows = [_choice(draft, "attention", draft.kind.name, attentions.names(), of_attention, _about(draft.kind))]
    if len(scopes_of(draft)) > 1:
        text = "Part to explore: a single attention, a block, or the whole network."
        rows.append(_choice(draft, "scope", scope_of(draft), scopes_of(draft), in_scope, text))
    declared = [field for field in own_fields_first(draft.kind) if field.name not in ("scope",)]
    group = "Network" if issubclass(draft.kind, ComposedSpec) else "Attention"
    of_fields = [_field(draft, field, field.metadata.get("group", group)) for field in declared]
    order = list(dict.fromkeys(row.group for row in of_fields))
    return rows + sorted(of_fields, key=lambda row: order.index(row.group))


def values_beside(row: Row, name_of: Callable[[Draft], str]) -> tuple[str, str]:
    """Return the legal values below and above that of a row, as text; an empty text without one."""
    found = []
    for sign in (-1, 1):
        value = name_of(row.step(sign, 1))
        found.append("" if value == row.value else value)
    return found[0], found[1]


def value_in(draft: Draft, name: str) -> str:
    """Return the value of the row with this name in a draft."""
    if name == "attention":
        return draft.kind.name
    if name == "scope":
        return scope_of(draft)
    field = next(each for each in own_fields_first(draft.kind) if each.name == name)
    return _spelled(field, getattr(draft.spec, name))


def _field(draft: Draft, field: Field[Any], group: str) -> Row:
    def step(sign: int, factor: int) -> Draft:
        return beside(draft, field.name, sign > 0, factor)

    value = getattr(draft.spec, field.name)
    rules = field.metadata
    said = [f"{field.name}: {rules['help']}"]
    default = rules.get("shown", UNSET) if field.default is None else spell_value(field, field.default)
    said.append(f"default {default}")
    said += [f"choices {', '.join(rules['choices'])}"] if "choices" in rules else []
    return Row(
        field.name,
        group,
        _spelled(field, value),
        field.name in draft.given,
        "\n".join(said),
        step,
        lambda text: draft.with_text(field.name, text),
    )


def _choice(draft: Draft, name: str, value: str, choices: Any, change: Callable[[Draft, str], Draft], text: str) -> Row:
    """Return a row that chooses another kind of Spec."""
    names = list(choices)

    def step(sign: int, factor: int) -> Draft:
        place = names.index(value) + sign
        return change(draft, names[place]) if 0 <= place < len(names) else draft

    def typed(word: str) -> Draft:
        if word not in names:
            raise UsageError(f"the {name} {quoted(word)} is unknown; {did_you_mean(word, names)}")
        return change(draft, word)

    return Row(name, "", value, True, f"{name}: {text}", step, typed)


def _spelled(field: Field[Any], value: Any) -> str:
    return UNSET if value is None else spell_value(field, value)


def _about(kind: type[Spec]) -> str:
    said = {"looks at": kind.LOOKS_AT, "gives up": kind.GIVES_UP, "paper": kind.PAPER}
    return "\n".join([kind.SUMMARY, *(f"{name} {words}" for name, words in said.items() if words)])
