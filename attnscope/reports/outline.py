"""The outline of a table of module calls: headings of modules, and the rows below them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import Generic, Protocol, TypeVar

CALL, MODULE, CALLS = "call", "module", "calls"
"""Kinds of rows: a torch call, the run of a module, or several calls without their module."""


class Placed(Protocol):
    """A row at the path of a module: the run of that module, or calls in it."""

    @property
    def path(self) -> str:
        """Return the path of the module, dotted; "" for the root."""

    @property
    def represents(self) -> str:
        """Return CALL, MODULE or CALLS."""


Row = TypeVar("Row", bound=Placed)


@dataclass(frozen=True)
class Entry(Generic[Row]):
    """A line of an outline: a row, or a heading with all rows below it.

    Args:
        level: number of headings above it.
        above: the path of the heading above it.
        path: the parts of its path below that heading.
        rows: the row, or the rows below the heading.
        is_heading: whether it is a heading.
    """

    level: int
    above: tuple[str, ...]
    path: tuple[str, ...]
    rows: Sequence[Row]
    is_heading: bool


def outline(rows: Iterable[Row]) -> Iterator[Entry[Row]]:
    """Yield the lines of a table: its rows in their order, and a heading above rows that share a module.

    A module with a single row has no heading, and neither has a module that only holds another one.
    """
    return _entries([(tuple(row.path.split(".")) if row.path else (), row) for row in rows], (), 0)


def _entries(rows: list[tuple[tuple[str, ...], Row]], above: tuple[str, ...], level: int) -> Iterator[Entry[Row]]:
    start = len(above)
    for below, run in groupby(rows, lambda each: _home(*each)[start : start + 1]):
        members = list(run)
        if not below or len(members) == 1:
            for parts, row in members:
                yield Entry(level, above, parts[start:], [row], False)
            continue
        home = _shared([_home(*each) for each in members])
        yield Entry(level, above, home[start:], [row for _, row in members], True)
        yield from _entries(members, home, level + 1)


def _home(parts: tuple[str, ...], row: Placed) -> tuple[str, ...]:
    """Return the path of the module that contains the row."""
    return parts[:-1] if row.represents == MODULE else parts


def _shared(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the longest path that contains all of these paths."""
    together = takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
    return tuple(parts[0] for parts in together)
