"""MACs against the size: polynomials in the axis letters, which the script evaluates in exact integers.

A position of a slider is another value of one field of the Spec. The sizes of the letters come from the plan of that
Spec, and the script computes the MACs from them. A position is left out if its plan gives another number.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from attnscope.attentions.spec import Spec, kind, own_fields
from attnscope.core.errors import AttnscopeError
from attnscope.core.sizes import count_sides, spell_sides
from attnscope.networks import NetworkSpec
from attnscope.plan.plan import Plan, SizedStep, place
from attnscope.plan.polynomial import Polynomial, macs_of
from attnscope.render.page.document import Panel
from attnscope.reports.report import Report

FACTORS = (1, 2, 3, 4, 6, 8, 12, 16)
"""Multiples of the smallest step of a field that a slider offers, next to simple ratios of its value."""
RATIOS = ((1, 8), (1, 4), (1, 2), (3, 4), (1, 1), (5, 4), (3, 2), (2, 1), (5, 2), (3, 1), (4, 1), (6, 1), (8, 1))
FEWEST = 3
"""Number of positions from which on a field gets a slider."""
IGNORED = ("seed", "classes")


@dataclass(frozen=True)
class Work:
    """A step with MACs: its key, how often it runs, its scope of letters, and its polynomial."""

    key: str
    times: int
    scope: int
    macs: Polynomial


def scaling_panel(report: Report, spec: Spec | None) -> Panel | None:
    """Return the panel of MACs against a size; None if no field can vary."""
    if spec is None:
        return None
    plan = spec.plan()
    work = _work(plan)
    if work is None:
        return None
    sliders = [slider for name in _fields(spec) if (slider := _slider(spec, plan, work, name)) is not None]
    if not sliders:
        return None
    data = {
        "work": [[each.key, each.times, each.scope, _encoded(each.macs)] for each in work],
        "sliders": sliders,
        "own": _own_name(spec),
        "reference": "Ω(MSA), global attention" if _reference(spec) is not None else "",
    }
    formulas = [(each.key, f"{each.times} × ({each.macs})" if each.times > 1 else str(each.macs)) for each in work]
    lead = "Each formula follows from the letters of its step. The slider changes one option of this run."
    content = {"formulas": formulas, "sliders": sliders, "own": data["own"], "reference": data["reference"]}
    return Panel("complexity", "Complexity against size", lead, "scaling", content, data)


def _own_name(spec: Spec) -> str:
    return spec.title


def _work(plan: Plan) -> list[Work] | None:
    """Return the steps with MACs; None if one of them has no polynomial."""
    scopes = _scopes(plan)
    found = []
    for step in plan.steps:
        if step.macs:
            macs = macs_of(step)
            if macs is None:
                return None
            found.append(Work(place(step.path, step.name), step.times, scopes[_sizes(step)], macs))
    return found or None


Sizes = tuple[tuple[str, int], ...]


def _sizes(step: SizedStep) -> Sizes:
    return tuple(sorted(step.sizes.items()))


def _scopes(plan: Plan) -> dict[Sizes, int]:
    """Return the number of each set of sizes among the steps with MACs, in their order."""
    return {
        sizes: number for number, sizes in enumerate(dict.fromkeys(_sizes(step) for step in plan.steps if step.macs))
    }


def _fields(spec: Spec) -> list[str]:
    """Return the fields that are sizes, the number of tokens first."""
    names = [
        name
        for name, declared in own_fields(type(spec)).items()
        if (kind(declared) is int or count_sides(kind(declared))) and name not in IGNORED
    ]
    return sorted(names, key=lambda name: (name != spec.SIZE_FIELD, name == "batch"))


def _slider(spec: Spec, plan: Plan, work: list[Work], name: str) -> dict[str, Any] | None:
    """Return the positions of a field as plain data; None if there are too few, or if it changes no MACs."""
    positions = []
    for value in _values(spec, name):
        try:
            changed = replace(spec, **{name: value})
            position = _position(changed, work)
        except AttnscopeError:
            continue
        if position is not None:
            positions.append({"value": _text(value), "here": value == getattr(spec, name), **position})
    totals = {position["total"] for position in positions}
    if len(positions) < FEWEST or len(totals) == 1:
        return None
    return {"field": name, "title": name.replace("_", " "), "positions": positions}


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


def _position(spec: Spec, work: list[Work]) -> dict[str, Any] | None:
    """Return the letters of each scope, the tokens and the cost of global attention; None if the steps are others."""
    plan = spec.plan()
    steps = [step for step in plan.steps if step.macs]
    if [(place(step.path, step.name), step.times) for step in steps] != [(each.key, each.times) for each in work]:
        return None
    letters: dict[int, dict[str, int]] = {}
    for step, each in zip(steps, work, strict=True):
        used = {letter: step.sizes[letter] for letter in each.macs.letters}
        known = letters.setdefault(each.scope, {})
        if any(known.get(letter, size) != size for letter, size in used.items()) or each.macs.value(used) != step.macs:
            return None
        known |= used
    return {
        "letters": [letters[number] for number in sorted(letters)],
        "total": str(plan.macs),
        "reference": _reference(spec),
    }


def _reference(spec: Spec) -> str | None:
    """Return the MACs of global attention on the same tokens; None for a network or for global attention itself."""
    if isinstance(spec, NetworkSpec):
        return None
    costs = spec.complexity()
    return None if costs.own == costs.reference else str(costs.reference_macs)


def _encoded(macs: Polynomial) -> list[list[Any]]:
    """Return the terms as plain data: the coefficient, then each letter as often as its power."""
    return [[str(term.coefficient), "".join(Counter(dict(term.powers)).elements())] for term in macs.terms]
