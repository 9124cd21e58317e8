"""Ranges of integers on the command line: `4,7,8`, `14:56:7`, `14:224:2x`."""

import math
import re
from collections.abc import Iterator
from fractions import Fraction

from attnscope.core.errors import UsageError, quoted

MOST_VALUES = 100_000
FORMS = "4,7,8 or 14:56:7 (step 7) or 14:224:2x (factor 2)"


def read_over(text: str) -> tuple[str, list[int]]:
    """Parse `resolution=14:224:2x` into the name of a field and its values.

    Raises:
        UsageError: the name is missing, or the text after `=` is not a range (see `read_range`).
    """
    name, equals, values = text.partition("=")
    name = name.strip().lower().replace("-", "_")
    if not equals or not name.isidentifier():
        raise UsageError(f"{{over}} must be FIELD=RANGE (got {quoted(text)}), such as --over resolution=14:224:2x")
    return name, read_range(name, values)


def read_range(name: str, text: str) -> list[int]:
    """Parse a comma-separated list of values and of ranges, `start:stop:step` or `start:stop:factor x`.

    A range includes its stop if a step reaches it. Values from a fractional factor are rounded. Duplicates are removed;
    the order is kept.

    Args:
        name: the name of the field, for errors.
        text: the text to parse.

    Raises:
        UsageError: the text has another form, a range is empty or infinite, or a value is less than 1.
    """
    values: dict[int, None] = {}
    for part in text.split(","):
        for value in _part(name, part.strip()):
            if value < 1:
                raise UsageError(f"{{over}} {name}={text} must have values of at least 1 (got {value})")
            values[value] = None
            if len(values) > MOST_VALUES:
                raise UsageError(f"{{over}} {name}={text} must have at most {MOST_VALUES} values; use a larger step")
    return list(values)


def _part(name: str, text: str) -> Iterator[int]:
    pieces = text.split(":")
    if len(pieces) == 1:
        yield _whole(name, text, text)
        return
    if len(pieces) > 3:
        raise UsageError(f"{{over}} {name} must be a list or a range of integers (got {quoted(text)}), such as {FORMS}")
    start, stop = (_whole(name, piece, text) for piece in pieces[:2])
    step = pieces[2].strip().lower() if len(pieces) == 3 else "1"
    if start > stop:
        rule = f"{{over}} {name}={text} must start at or below its stop (got {start} and {stop})"
        raise UsageError(f"{rule}; swap them: {stop}:{start}:{step}")
    if step.endswith(("x", "×")):
        yield from _by_factor(start, stop, _factor(name, step[:-1], text))
    else:
        stride = _whole(name, step, text)
        if stride < 1:
            rule = f"{{over}} {name}={text} must have a step of at least 1 (got {stride})"
            raise UsageError(f"{rule}; use 1, or a factor such as 2x")
        yield from range(start, stop + 1, stride)


def _by_factor(start: int, stop: int, factor: Fraction) -> Iterator[int]:
    exact = Fraction(max(start, 1))
    while exact <= stop:
        value = _nearest(exact)
        yield value
        # limit_denominator keeps the fraction small; the fallback ensures progress if the factor is close to 1
        grown = (exact * factor).limit_denominator(1_000_000)
        exact = grown if _nearest(grown) > value else Fraction(value + 1)


def _nearest(exact: Fraction) -> int:
    return math.floor(exact + Fraction(1, 2))


def _whole(name: str, text: str, of: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(
            f"{{over}} {name} must be a list or a range of integers (got {quoted(of)}), such as {FORMS}"
        ) from None


def _factor(name: str, text: str, of: str) -> Fraction:
    factor = Fraction(text) if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text) else Fraction(0)
    if factor <= 1:
        raise UsageError(f"{{over}} {name}={of} must have a factor above 1, such as 2x (got {quoted(text)})")
    return factor
