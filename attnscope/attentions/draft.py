"""A Spec that is being edited: the values that were given, and the legal values next to each of them."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import Field, dataclass, field
from functools import cached_property
from itertools import chain, takewhile
from typing import Any, Self

from attnscope.attentions.spec import Spec, flags_of, kind, own_fields, reader_of
from attnscope.core.errors import AttnscopeError, UsageError
from attnscope.core.sizes import LARGEST, Ints, count_sides

CLOSE = 16
"""Whole numbers next to a value that are tried one by one."""
MULTIPLES = 8
"""Multiples of another value of the Spec that are tried on each side."""
MOST_DIVISORS = 1000
"""The largest number that is tried as a divisor of another value."""


@dataclass(frozen=True)
class Draft:
    """A class of Specs and the values that were given for its fields; all others have their defaults.

    A field that is not given may follow from others, as the number of tokens follows from the image. A Spec alone does
    not tell such values from given ones.

    Raises:
        UsageError: if the values are invalid.
    """

    kind: type[Spec]
    given: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _ = self.spec

    @classmethod
    def of(cls, spec: Spec) -> "Draft":
        """Return a draft with the fewest values that give a Spec."""
        kind, declared = type(spec), own_fields(type(spec))
        given = {name: getattr(spec, name) for name in declared}
        for name in declared:
            fewer = {other: value for other, value in given.items() if other != name}
            with suppress(UsageError):
                if kind(**fewer) == spec:
                    given = fewer
        return cls(kind, given)

    @cached_property
    def spec(self) -> Spec:
        """Return the Spec of these values."""
        return self.kind(**self.given)

    @property
    def command(self) -> str:
        """Return the command that explores this Spec."""
        return " ".join(["attnscope", self.kind.name, *flags_of(self.kind, {**self._said, **self.given})])

    @property
    def _said(self) -> dict[str, Any]:
        """Return the values that a command includes even if they are defaults."""
        return {name: getattr(self.spec, name) for name in self.kind.SAID}

    def with_value(self, name: str, value: Any) -> Self:
        """Return a draft with another value of a field; None is the value that the field has by itself.

        Given values that contradict the new one are left out.

        Raises:
            UsageError: if the Spec refuses the value.
        """
        given = {**self.given, name: value}
        if value is None:
            del given[name]
        for pair in self.kind.contradictions(given):
            if name in pair:
                given.pop(pair[1 - pair.index(name)], None)
        return type(self)(self.kind, given)

    def with_text(self, name: str, text: str) -> Self:
        """Return a draft with a typed value of a field; an empty text is the value that the field has by itself.

        Raises:
            AttnscopeError: if the text does not have the type of the field, or if the Spec refuses the value.
        """
        declared = own_fields(self.kind)[name]
        return self.with_value(name, reader_of(declared)(text.strip()) if text.strip() else None)


def neighbours(draft: Draft, name: str, factor: int = 1) -> tuple[Any, Any]:
    """Return the legal values of a field next to its value, below and above: `(756, 780)` for dim 768 with 12 heads.

    Candidates are tried on a copy of the Spec, so that its own checks decide. They are the next whole numbers, and the
    next multiples and divisors of the Spec's other values.

    Args:
        draft: the Spec.
        name: name of the field.
        factor: how many times smaller and larger the neighbours are at least.

    Returns:
        Both values; the value of the draft itself on a side without another one.
    """
    below, above = (beside(draft, name, rises, factor) for rises in (False, True))
    return getattr(below.spec, name), getattr(above.spec, name)


def beside(draft: Draft, name: str, rises: bool, factor: int = 1) -> Draft:
    """Return the draft with the legal value of a field below its own one, or above it; the draft itself without one.

    Args:
        draft: the Spec.
        name: name of the field.
        rises: whether the value is above.
        factor: as in `neighbours`.
    """
    for value in _candidates(draft, name, rises, factor):
        try:
            found = draft.with_value(name, value)
        except UsageError:
            continue
        if found.spec != draft.spec:
            return found
    return draft


def _candidates(draft: Draft, name: str, rises: bool, factor: int) -> Iterator[Any]:
    """Yield the values of a field above or below its own one, the nearest first."""
    declared, value = own_fields(draft.kind)[name], getattr(draft.spec, name)
    base, rules = kind(declared), declared.metadata
    unset = [None] if declared.default is None and not rises else []
    if base is bool:
        return iter([*unset, rises] if value is not rises else [*unset])
    if base is str:
        ordered = [*([None] if declared.default is None else []), *rules.get("choices", ())]
        place = ordered.index(value) if value in ordered else 0
        return iter(ordered[place + 1 :] if rises else ordered[:place][::-1])
    if value is None:
        return iter([]) if not rises else _first_values(draft, declared)
    if base is float:
        return chain(_decimals(value, rises, factor), unset)
    count = count_sides(base)
    sides = value if isinstance(value, tuple) else (value,)
    low, high = rules.get("low", 1), rules.get("high", LARGEST)
    longest = max(sides)
    numbers = _numbers(longest, rises, factor, _values(draft))
    legal = takewhile(lambda number: low <= number <= high, numbers)
    if base is int:
        return chain(legal, unset)
    if count:  # all sides move together
        return chain((tuple([max(low, side + number - longest) for side in sides]) for number in legal), unset)
    place = sides.index(longest)
    return ((*sides[:place], number, *sides[place + 1 :]) for number in legal)


def _first_values(draft: Draft, declared: Field[Any]) -> Iterator[Any]:
    """Yield values for a field that has none: its usual value in words, if it can be read, then the smallest ones."""
    with suppress(AttnscopeError):
        yield reader_of(declared)(declared.metadata.get("shown", ""))
    if kind(declared) is float:
        yield from (1.0, 0.1)
        return
    low = declared.metadata.get("low", 1)
    count = count_sides(kind(declared)) or int(kind(declared) == Ints)
    for number in sorted({*range(low, low + CLOSE), *_values(draft)}):
        yield (number,) * count if count else number


def _values(draft: Draft) -> set[int]:
    """Return the whole numbers of a Spec."""
    found: set[int] = set()
    for name in own_fields(draft.kind):
        value = getattr(draft.spec, name)
        found.update(
            each for each in (value if isinstance(value, tuple) else (value,)) if type(each) is int and each > 0
        )
    return found


def _numbers(value: int, rises: bool, factor: int, others: Iterable[int]) -> list[int]:
    """Return whole numbers above or below a value, the nearest first.

    They are the next numbers, and the next multiples and divisors of the Spec's other values.
    """
    start = value * factor if rises else value // factor
    near = {start + step for step in range(-CLOSE, CLOSE + 1)}
    for unit in others:
        multiple = start // unit * unit
        near.update(multiple + unit * step for step in range(-MULTIPLES, MULTIPLES + 1))
        divisors = [number for number in range(1, min(math.isqrt(unit), MOST_DIVISORS) + 1) if unit % number == 0]
        near.update(divisors, (unit // divisor for divisor in divisors))
    if rises:
        return sorted(number for number in near if number > value and number >= start)
    return sorted((number for number in near if number < value and number <= start), reverse=True)


def _decimals(value: float, rises: bool, factor: int) -> Iterator[float]:
    """Yield round numbers above or below a value, the nearest first, then finer steps."""
    sign = 1 if rises else -1
    start = value * factor if rises else value / factor
    if factor > 1:
        yield start
    for digits in (1, 2):
        unit = 10.0 ** (math.floor(math.log10(abs(start))) if start else -1)
        if digits > 1 or (not rises and start == unit):
            unit /= 10
        steps = math.floor(start / unit + 1e-9) + 1 if rises else math.ceil(start / unit - 1e-9) - 1
        yield from (float(f"{(steps + sign * more) * unit:.6g}") for more in range(3))
