"""Reckoning with what may not be known: unknown is unknown, and never 0."""

from collections.abc import Sequence
from typing import TypeVar

Number = TypeVar("Number", int, float)


def sum_of(values: Sequence[Number | None]) -> Number | None:
    """The sum; None where one of them is not known."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def most(values: Sequence[Number | None]) -> Number | None:
    """The largest; None where one of them is not known."""
    known = [value for value in values if value is not None]
    return max(known) if len(known) == len(values) else None
