"""Readers of values that a user types: each returns a value for a text, or raises one line with the rule and the text."""

import math
from collections.abc import Callable
from typing import Any

from attnscope.core.errors import AttnscopeError, quoted
from attnscope.core.sizes import Ints, Pair, Sides, describe_sides, parse_ints, parse_sides


class FlagError(AttnscopeError):
    """An error for a text that does not have the type of its flag or field."""

    exit_code = 2


def integer(name: str) -> Callable[[Any], int]:
    """Return a reader of an integer for the flag with this name."""
    return _reader(name, lambda text: int(text, 10), "an integer")


def number(name: str) -> Callable[[Any], float]:
    """Return a reader of a finite number for the flag with this name."""
    return _reader(name, _finite, "a finite number")


def percent(name: str) -> Callable[[Any], float]:
    """Return a reader of a percentage, `2%`, for the flag with this name; its value is a fraction, 0.02."""

    def parse(text: str) -> float:
        if not text.endswith("%"):
            raise ValueError(text)
        return _finite(text[:-1]) / 100

    return _reader(name, parse, "a percentage, such as 2%")


def sides(name: str, count: int) -> Callable[[Any], Sides]:
    """Return a reader of an integer or of this number of sides, `56` or `56x48`, for the flag with this name."""
    return _reader(name, lambda text: parse_sides(text, count), describe_sides(count))


def place(name: str) -> Callable[[Any], Pair]:
    """Return a reader of a row and a column, `5,9`, for the flag with this name."""

    def parse(text: str) -> Pair:
        row, column = text.split(",")
        return int(row, 10), int(column, 10)

    return _reader(name, parse, "a row and a column, such as 5,9")


def ints(name: str) -> Callable[[Any], Ints]:
    """Return a reader of a list of integers, `2,2,6,2`, for the flag with this name."""
    return _reader(name, parse_ints, "a list of integers, such as 2,2,6,2")


def switch(name: str) -> Callable[[Any], bool]:
    """Return a reader of a word for on or off, for the field with this name."""

    def parse(text: str) -> bool:
        if text.lower() not in SWITCH:
            raise ValueError(text)
        return SWITCH[text.lower()]

    return _reader(name, parse, "on or off")


SWITCH = {"on": True, "yes": True, "true": True, "1": True, "off": False, "no": False, "false": False, "0": False}
"""Words for on and off."""


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _reader(name: str, read: Callable[[str], Any], rule: str) -> Callable[[Any], Any]:
    def parse(value: Any) -> Any:
        try:
            return None if value is None else read(value)
        except ValueError:
            raise FlagError(f"{{{name}}} must be {rule} (got {quoted(value)})") from None

    return parse
