"""Tables of a page: every cell has its text, and its exact value if that differs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from attnscope.render.columns import Column
from attnscope.render.page.document import Panel

DIGITS = 4
"""Significant digits of a measured value; counts have all of theirs."""
COMFORTABLE = 9
"""Number of columns that a table shows until the reader chooses others."""


@dataclass(frozen=True)
class Cell:
    """A cell: its text, its value in base units if it is a number, and the width of its bar in percent, if any."""

    text: str
    value: int | float | None = None
    bar: float | None = None


@dataclass(frozen=True)
class Head:
    """A heading: the key of the column, its title, its unit, and whether it is shown at first."""

    key: str
    title: str
    unit: str
    shown: bool
    right: bool
    bar: bool


@dataclass(frozen=True)
class Line:
    """A row: its cells, its style, the key of its step, and for a tree its level and whether it is a heading."""

    cells: list[Cell]
    style: str = ""
    step: str = ""
    level: int = 0
    opens: bool = False
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table of a page."""

    caption: str
    heads: list[Head]
    lines: list[Line]
    foot: list[str] = field(default_factory=list)
    is_tree: bool = False


def table_of(
    caption: str,
    columns: Sequence[Column[Any]],
    rows: Sequence[Any],
    style: Callable[[Any], str] = lambda row: "",
    step: Callable[[Any], str] = lambda row: "",
    most: int = COMFORTABLE,
    keep: Sequence[str] = (),
) -> Table:
    """Return a table of all columns that a screen can have.

    Args:
        caption: the caption, for screen readers.
        columns: the columns; those with the lowest ranks are shown at first.
        rows: the rows.
        style: a function that returns the style of a row as on a screen.
        step: a function that returns the key of the step of a row.
        most: the number of columns that are shown at first.
        keep: keys of further columns that are shown at first.
    """
    columns = [column for column in columns if column.rank is not None]
    by_rank = sorted(range(len(columns)), key=lambda index: columns[index].rank or 0)
    first = {index for index in by_rank[:most] if len(columns) <= most or (columns[index].rank or 0) < 12}
    heads = [
        Head(
            column.key,
            column.title,
            _unit(column.key),
            index in first or column.key in keep,
            column.right,
            column.drawn,
        )
        for index, column in enumerate(columns)
    ]
    lines = [Line([_cell(column, row) for column in columns], style(row).split(" ")[0], step(row)) for row in rows]
    has_foot = any(column.total is not None for column in columns)
    return Table(caption, heads, lines, [column.foot for column in columns] if has_foot else [])


def table_panel(name: str, title: str, lead: str, table: Table, brief: bool = False, **more: Any) -> Panel:
    """Return the panel of a table."""
    return Panel(name, title, lead, "table", {"table": table, **more}, brief=brief)


def _cell(column: Column[Any], row: Any) -> Cell:
    value = column.value(row)
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
    if column.drawn:
        return Cell("", number, round(100 * (number or 0.0), 1))
    # a screen leaves out a part that is that of the row above, which sorting would separate
    text = column.words(row).strip() or (value if isinstance(value, str) else "")
    return Cell(text, float(f"{number:.{DIGITS}g}") if isinstance(number, float) else number)


def _unit(key: str) -> str:
    """Return the unit of a column by the end of its key, as in CSV."""
    if key.startswith("bytes_"):
        return "B"
    return "s" if key.endswith("_s") and not key.endswith("per_s") else ""
