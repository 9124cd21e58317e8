"""Samples of large tables of cases, and all of them with `pytest --every`.

A table that takes minutes guards a rule that is the same for all of its cases. Each run takes a sample from all parts of
the table. All cases run before a release, and once a week.
"""

from collections.abc import Sequence
from typing import TypeVar

from hypothesis import settings

Case = TypeVar("Case")

SHARE = 4
"""Random examples of which a run takes one, unless all of them run."""


class Extent:
    """The extent of the tables. The option sets it before tests are collected."""

    every = False


def some(cases: Sequence[Case], count: int) -> list[Case]:
    """Return this many cases at equal distances, the first and the last among them, or all of them with `--every`."""
    if Extent.every or count >= len(cases):
        return list(cases)
    return [cases[place * (len(cases) - 1) // (count - 1)] for place in range(count)]


def examples(count: int) -> settings:
    """Return the settings of a property that is tried with a share of `count` examples, or all of them with `--every`."""
    return settings(max_examples=count if Extent.every else -(-count // SHARE))
