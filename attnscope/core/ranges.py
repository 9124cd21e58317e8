"""Ranges of whole numbers as they are typed: `4,7,8`, `14:56:7`, `14:224:2x`."""

import math
import re
from collections.abc import Iterator
from fractions import Fraction

from attnscope.core.errors import UsageError

MOST_VALUES = 100_000
FORMS = "4,7,8 or 14:56:7 (steps of 7) or 14:224:2x (each twice the last)"


def read_over(text: str) -> tuple[str, list[int]]:
    """Read `resolution=14:224:2x` into the name of a field and its values.

    Raises:
        UsageError: there is no name, or what follows it is no range (see `read_range`).
    """
    name, equals, values = text.partition("=")
    name = name.strip().lower().replace("-", "_")
    if not equals or not name.isidentifier():
        raise UsageError(f"{{over}} {text} says no field and its values, such as --over resolution=14:224:2x")
    return name, read_range(name, values)


def read_range(name: str, text: str) -> list[int]:
    """Read values, `start:stop:step` or `start:stop:factor x`, or a list of these; a stop that is met belongs to it.

    A factor need not be whole: what falls between two whole numbers is rounded. Values come once each, in their order.

    Raises:
        UsageError: it is none of these, it is empty or endless, or a value is no size.
    """
    values: dict[int, None] = {}
    for part in text.split(","):
        for value in _part(name, part.strip()):
            if value < 1:
                raise UsageError(f"{{over}} {name}={text} has {value} in it; the smallest is 1")
            values[value] = None
            if len(values) > MOST_VALUES:
                raise UsageError(f"{{over}} {name}={text} is too long; {MOST_VALUES} values are the most")
    return list(values)


def _part(name: str, text: str) -> Iterator[int]:
    pieces = text.split(":")
    if len(pieces) == 1:
        yield _whole(name, text, text)
        return
    if len(pieces) > 3:
        raise UsageError(f"{{over}} {name}={text} is no range; it is {FORMS}")
    start, stop = (_whole(name, piece, text) for piece in pieces[:2])
    step = pieces[2].strip().lower() if len(pieces) == 3 else "1"
    if start > stop:
        told = f"{{over}} {name}={text} is empty: {start} is more than {stop}"
        raise UsageError(f"{told}; turn them round: {stop}:{start}:{step}")
    if step.endswith(("x", "×")):
        yield from _by_factor(start, stop, _factor(name, step[:-1], text))
    else:
        stride = _whole(name, step, text)
        if stride < 1:
            told = f"{{over}} {name}={text} never ends: the step is {stride}"
            raise UsageError(f"{told}; the smallest is 1, or a factor such as 2x")
        yield from range(start, stop + 1, stride)


def _by_factor(start: int, stop: int, factor: Fraction) -> Iterator[int]:
    exact = Fraction(max(start, 1))
    while exact <= stop:
        value = _nearest(exact)
        yield value
        # digits that no size has are dropped, and a factor close to 1 still moves on
        grown = (exact * factor).limit_denominator(1_000_000)
        exact = grown if _nearest(grown) > value else Fraction(value + 1)


def _nearest(exact: Fraction) -> int:
    return math.floor(exact + Fraction(1, 2))


def _whole(name: str, text: str, of: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{{over}} {name}={of} is no range of whole numbers; it is {FORMS}") from None


def _factor(name: str, text: str, of: str) -> Fraction:
    factor = Fraction(text) if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text) else Fraction(0)
    if factor <= 1:
        told = f"the factor is {text or 'missing'}"
        raise UsageError(f"{{over}} {name}={of} never ends: {told}; it is more than 1, such as 2x")
    return factor
