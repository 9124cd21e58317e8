"""Arithmetic with unknown values: a result is None, and never 0, if an operand is None."""

from collections.abc import Sequence
from typing import TypeVar

Number = TypeVar("Number", int, float)


def sum_of(values: Sequence[Number | None]) -> Number | None:
    """Return the sum, or None if a value is None."""
    numbers = [value for value in values if value is not None]
    return sum(numbers) if len(numbers) == len(values) else None


def most(values: Sequence[Number | None]) -> Number | None:
    """Return the largest value, or None if a value is None."""
    numbers = [value for value in values if value is not None]
    return max(numbers) if len(numbers) == len(values) else None
