"""Columns that mark what changed since another report, and columns with the differences from it."""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from attnscope.render import words
from attnscope.render.columns import Column
from attnscope.render.explorer.kept import kept
from attnscope.reports.report import PartRow, StepRow
from attnscope.reports.sharding import ShardedStep

MARK = " *"
"""The end of a cell that changed."""
CHANGED = "bold yellow"
"""The style of such a cell, in addition to the mark."""
AFTER = 0.05
"""A difference has its place after its column, also where not all columns fit."""
UNCOUNTED = ("times", "stage")
"""Keys of columns with integers other than counts."""
KEPT = 8
"""Pairs of tables that are kept: the current one with the one before it and the pinned one, and those to undo."""


def identity(row: StepRow | PartRow | ShardedStep) -> tuple[Hashable, ...]:
    """Return what a row of two reports has in common."""
    if isinstance(row, ShardedStep):
        return (row.name,)
    return row.stage, row.path.rpartition(".")[0], getattr(row, "part", ""), row.name


@kept(KEPT)
def matched(rows: Sequence[Any], others: Sequence[Any]) -> Mapping[int, Any]:
    """Return the row of another report for each row, by the id of the row; rows without one are left out."""
    seen: Counter[Hashable] = Counter()
    by_identity = {}
    for row in others:
        known = identity(row)
        by_identity[known, seen[known]] = row
        seen[known] += 1
    seen.clear()
    found = {}
    for row in rows:
        known = identity(row)
        key = known, seen[known]
        seen[known] += 1
        if key in by_identity:
            found[id(row)] = by_identity[key]
    return found


def marked(
    columns: Sequence[Column[Any]], rows: Sequence[Any], before: Sequence[Column[Any]], others: Sequence[Any]
) -> list[Column[Any]]:
    """Return the columns with a mark in each cell whose value differs from that of the report before.

    Args:
        columns, rows: those of the report.
        before, others: those of the report before.
    """
    pairs = matched(rows, others)
    if 2 * len(pairs) < len(rows):
        return list(columns)  # another attention, of which everything is new
    earlier = {column.key: column for column in before}
    return [_marked(column, rows, earlier.get(column.key), pairs) for column in columns]


def _marked(
    column: Column[Any], rows: Sequence[Any], before: Column[Any] | None, pairs: Mapping[int, Any]
) -> Column[Any]:
    if column.drawn or before is None or column.rank is None:
        return column
    texts = dict(zip(map(id, rows), column.texts(rows), strict=True))
    changed = {
        id(row)
        for row in rows
        if texts[id(row)] and (id(row) not in pairs or column.value(row) != before.value(pairs[id(row)]))
    }
    total_changed = column.total != before.total
    if not changed and not total_changed:
        return column
    blank = " " * len(MARK)

    def text(row: Any) -> str:
        return texts[id(row)] + (MARK if id(row) in changed else blank)

    foot = column.foot and column.foot + (MARK if total_changed else blank)
    return replace(
        column,
        text=text,
        title=column.title + blank if column.right else column.title,
        tint=lambda row: CHANGED if id(row) in changed else column.tint(row),
        show=str,
        total=foot or None,
        total_at_least=None,
    )


@kept(KEPT)
def with_differences(
    columns: Sequence[Column[Any]], rows: Sequence[Any], pinned: Sequence[Column[Any]], others: Sequence[Any]
) -> Sequence[Column[Any]]:
    """Return the columns, each column of counts followed by one with the difference from another report: B − A.

    Args:
        columns, rows: those of the report, B.
        pinned, others: those of the other report, A.
    """
    pairs = matched(rows, others)
    of_a = {column.key: column for column in pinned}
    found: list[Column[Any]] = []
    for column in columns:
        found.append(column)
        if column.key in of_a and column.rank is not None and _is_count(column, rows):
            found.append(_difference(column, of_a[column.key], pairs))
    return found


def _is_count(column: Column[Any], rows: Sequence[Any]) -> bool:
    values = [column.value(row) for row in rows]
    return (
        not column.drawn
        and column.key not in UNCOUNTED
        and any(type(value) is int for value in values)
        and all(value is None or type(value) is int for value in values)
    )


def _difference(column: Column[Any], of_a: Column[Any], pairs: Mapping[int, Any]) -> Column[Any]:
    def text(row: Any) -> str:
        if id(row) not in pairs:
            return "new"
        return signed(column.value(row), of_a.value(pairs[id(row)]), column.show)

    return Column(
        f"{column.key}_difference",
        f"Δ {column.title}",
        lambda row: None,
        str,
        column.rank and column.rank + AFTER,
        total=signed(column.total, of_a.total, column.show),
        text=text,
    )


def signed(value: Any, other: Any, show: Callable[[Any], str]) -> str:
    """Return the difference of two counts with its sign, `+12.3 M`, `=` for equal ones, or `?` if one is unknown."""
    if not isinstance(value, int) or not isinstance(other, int):
        return words.UNKNOWN
    if value == other:
        return "="
    return f"{'+' if value > other else '−'}{show(abs(value - other))}"


def only_in(rows: Sequence[Any], others: Sequence[Any]) -> list[str]:
    """Return the names of the rows that only the other report has."""
    in_both = {id(row) for row in matched(rows, others).values()}
    return [row.name for row in others if id(row) not in in_both]
