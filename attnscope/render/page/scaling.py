"""MACs against the size: polynomials in the axis letters, which the script evaluates in exact integers.

A position of a slider is another value of one field of the Spec. The steps and the sizes of their letters come from the
plan of that Spec, and the script computes the MACs from them.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from attnscope.attentions.spec import Spec, kind, own_fields
from attnscope.core.errors import AttnscopeError
from attnscope.core.sizes import count_sides, spell_sides
from attnscope.plan.plan import SizedStep, place
from attnscope.plan.polynomial import Polynomial, macs_of
from attnscope.render.page.document import Panel, front_coded

FACTORS = (1, 2, 3, 4, 6, 8, 12, 16)
"""Multiples of the smallest step of a field that a slider offers, next to simple ratios of its value."""
RATIOS = ((1, 8), (1, 4), (1, 2), (3, 4), (1, 1), (3, 2), (2, 1), (3, 1), (4, 1), (6, 1), (8, 1))
FEWEST = 3
"""Number of positions from which on a field gets a slider."""
IGNORED = ("seed", "classes")


Sizes = tuple[tuple[str, int], ...]
"""The letters in alphabetical order, each with its size."""


@dataclass(frozen=True)
class Work:
    """A step with MACs: its key, how often it runs, its scope of letters, and its polynomial."""

    key: str
    times: int
    scope: int
    macs: Polynomial


@dataclass(frozen=True)
class Position:
    """A value of a field: its text, the steps with MACs, the letters of each scope, and the MACs of global attention."""

    value: str
    here: bool
    work: tuple[Work, ...]
    letters: tuple[Sizes, ...]
    total: int
    reference: int | None


def scaling_panel(spec: Spec | None) -> Panel | None:
    """Return the panel of MACs against a size; None if no field can vary."""
    if spec is None:
        return None
    sliders = {name: positions for name in _fields(spec) if (positions := _positions(spec, name))}
    if not sliders:
        return None
    works = list(dict.fromkeys(position.work for positions in sliders.values() for position in positions))
    costs = spec.complexity()
    reference = "" if costs.own == costs.reference else "global attention"
    steps = {each: number for number, each in enumerate(dict.fromkeys(each for work in works for each in work))}
    first = next(iter(sliders.values()))[0].letters
    data = {
        "names": front_coded([each.key for each in steps]),
        "steps": [[each.times, each.scope, _encoded(each.macs)] for each in steps],
        "letters": [dict(sizes) for sizes in first],
        "works": [[steps[each] for each in work] for work in works],
        "sliders": [
            {
                "field": name,
                "title": name.replace("_", " "),
                "positions": [
                    {
                        "value": position.value,
                        "here": position.here,
                        "work": works.index(position.work),
                        "letters": _changes(position.letters, first),
                        "reference": None if position.reference is None else str(position.reference),
                    }
                    for position in positions
                ],
            }
            for name, positions in sliders.items()
        ],
    }
    lead = "Each formula follows from the letters of its step. The slider changes one option of this run."
    content = {"sliders": data["sliders"], "own": spec.title, "reference": reference}
    return Panel("complexity", "Complexity against size", lead, "scaling", content, data)


def _changes(letters: tuple[Sizes, ...], first: tuple[Sizes, ...]) -> dict[int, dict[str, int]]:
    """Return the letters of each scope whose sizes differ from those of the first position, which the script knows."""
    known = [*map(set, first), *([set()] * len(letters))]
    found = {scope: dict(pair for pair in sizes if pair not in known[scope]) for scope, sizes in enumerate(letters)}
    return {scope: sizes for scope, sizes in found.items() if sizes}


def _fields(spec: Spec) -> list[str]:
    """Return the fields that are sizes, the number of tokens first."""
    names = [
        name
        for name, declared in own_fields(type(spec)).items()
        if (kind(declared) is int or count_sides(kind(declared))) and name not in IGNORED
    ]
    return sorted(names, key=lambda name: (name != spec.SIZE_FIELD, name == "batch"))


def _positions(spec: Spec, name: str) -> list[Position]:
    """Return the positions of a field; none if there are too few, or if it changes no MACs."""
    found = []
    for value in _values(spec, name):
        try:
            position = _position(replace(spec, **{name: value}), _text(value), value == getattr(spec, name))
        except AttnscopeError:
            continue
        if position is not None:
            found.append(position)
    return found if len(found) >= FEWEST and len({position.total for position in found}) > 1 else []


def _values(spec: Spec, name: str) -> Iterator[Any]:
    """Yield values of a field from small to large: simple ratios of its value, and multiples of what needs no padding."""
    now = getattr(spec, name)
    if now is None or now == 0:
        return
    sides = now if isinstance(now, tuple) else (now,)
    found = {
        tuple(side * up // down for side in sides) for up, down in RATIOS if not any(side * up % down for side in sides)
    }
    if name == spec.SIZE_FIELD and len(sides) == 2:
        found |= {tuple(factor * side for side in spec.neighbourhood.alignment) for factor in FACTORS}
    found = {value for value in found if all(value)} | {sides}
    for value in sorted(found):
        yield value if isinstance(now, tuple) else value[0]


def _text(value: Any) -> str:
    return spell_sides(value, "×") if isinstance(value, tuple) else str(value)


def field_value(spec: Spec, name: str, text: str) -> Any:
    """Return the value of a field from the text of its position, such as `7×14`."""
    sides = tuple(map(int, text.split("×")))
    now = getattr(spec, name)
    if not isinstance(now, tuple):
        return sides[0]
    return sides if len(sides) > 1 else sides * len(now)


def _position(spec: Spec, text: str, here: bool) -> Position | None:
    """Return a position; None if the MACs of a step have no polynomial.

    Steps with the same sizes of all letters share a scope.
    """
    plan = spec.plan()
    steps = [step for step in plan.steps if step.macs]
    scopes = {sizes: number for number, sizes in enumerate(dict.fromkeys(map(_sizes, steps)))}
    work = []
    used: dict[int, set[str]] = {number: set() for number in scopes.values()}
    for step in steps:
        macs, scope = macs_of(step), scopes[_sizes(step)]
        if macs is None or macs.value(step.sizes) != step.macs:
            return None
        work.append(Work(place(step.path, step.name), step.times, scope, macs))
        used[scope].update(macs.letters)
    letters = tuple(tuple(pair for pair in sizes if pair[0] in used[scope]) for sizes, scope in scopes.items())
    costs = spec.complexity()
    reference = None if costs.own == costs.reference else costs.reference_macs
    return Position(text, here, tuple(work), letters, plan.macs, reference) if work else None


def _sizes(step: SizedStep) -> Sizes:
    return tuple(sorted(step.sizes.items()))


def _encoded(macs: Polynomial) -> list[list[Any]]:
    """Return the terms as plain data: the coefficient, then each letter as often as its power."""
    return [[str(term.coefficient), "".join(Counter(dict(term.powers)).elements())] for term in macs.terms]
