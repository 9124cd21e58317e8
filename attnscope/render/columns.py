"""A column, declared once for the screen, CSV, Markdown and pages, and the tables of columns as text."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from rich.box import Box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from attnscope.core.text import in_csv, in_markdown
from attnscope.render.screen import MARGIN, Screen

RULES = Box("    \n    \n ── \n    \n    \n ── \n    \n    \n")
RULES_ASCII = Box("    \n    \n -- \n    \n    \n -- \n    \n    \n", ascii=True)
GAP = 2
LEAST, COMFORTABLE = 16, 40
"""Width of a shortened column: the smallest one, and the smallest one that only makes room for columns above rank 0."""
FIRST_RANKS = 3
"""The highest rank of a column that a long one makes room for."""
SHARE_OF_MACS, SHARE_OF_TIME = "% MACs", "% time"
"""Titles of columns that several tables have; within a table, titles are unique."""

Value = int | float | str | None
Row = TypeVar("Row")


@dataclass(frozen=True)
class Column(Generic[Row]):
    """One column of a table of rows.

    Args:
        key: the name in CSV, which ends in the unit unless the value is a count.
        title: the heading on the screen.
        value: a function that returns the value of a row in base units; None if it is unknown.
        show: a function that formats the value.
        text: a function that formats the row; None to format the value alone.
        rank: the priority; a narrow screen drops the highest rank first and never rank 0. None: in CSV only.
        total: the total in base units; None for a column without a total.
        at_least, total_at_least: lower bounds of the value and of the total, shown if these are unknown.
        right: whether the column is right-aligned.
        drawn: whether the column is a bar of another column; CSV and Markdown omit it.
        tint: a function that returns the style of a cell if it differs from that of its row.
        most: the largest width on the screen; longer cells are shortened. None for no limit.
        is_long: whether its cells may be shortened, so that other columns fit.
        breaks: separator after which a cell of the screen continues on a new line; empty for cells of one line.
    """

    key: str
    title: str
    value: Callable[[Row], Value]
    show: Callable[[Any], str] = str
    rank: float | None = 0
    total: Value = None
    right: bool = True
    drawn: bool = False
    tint: Callable[[Row], str] = lambda row: ""
    text: Callable[[Row], str | None] = lambda row: None
    at_least: Callable[[Row], Value] | None = None
    total_at_least: Value = None
    most: int | None = None
    is_long: bool = False
    breaks: str = ""
    _texts: dict[int, tuple[Sequence[Row], list[str]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _cells: dict[tuple[int, Screen], tuple[Sequence[Row], list[str], int]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def words(self, row: Row) -> str:
        """Return the formatted value of a row."""
        text = self.text(row)
        return self.spell(self.value(row), self.at_least and self.at_least(row)) if text is None else text

    def spell(self, value: Value, at_least: Value) -> str:
        """Return the formatted value, or `≥ 1.7 MiB` if only a lower bound is known."""
        return f"≥ {self.show(at_least)}" if value is None and at_least else self.show(value)

    @property
    def foot(self) -> str:
        """Return the formatted total."""
        return "" if self.total is self.total_at_least is None else self.spell(self.total, self.total_at_least)

    def texts(self, rows: Sequence[Row]) -> list[str]:
        """Return the formatted value of each row, made once for these rows, and once for equal values."""
        if id(rows) not in self._texts:
            spelled: dict[tuple[type, Value, Value], str] = {}
            found = []
            for row in rows:
                text = self.text(row)
                if text is None:
                    value, at_least = self.value(row), self.at_least and self.at_least(row)
                    key = type(value), value, at_least
                    text = spelled.get(key)
                    if text is None:
                        text = spelled[key] = self.spell(value, at_least)
                found.append(text)
            # with the rows, whose id stays theirs as long as they exist
            self._texts[id(rows)] = rows, found
        return self._texts[id(rows)][1]

    def cells(self, rows: Sequence[Row], screen: Screen) -> list[str]:
        """Return the heading, a cell for each row, and the total."""
        return self._once(rows, screen)[1]

    def is_empty(self, rows: Sequence[Row]) -> bool:
        """Return whether it has nothing but its heading."""
        return not self.foot and not any(self.texts(rows))

    def width(self, rows: Sequence[Row], screen: Screen) -> int:
        """Return the width of the widest cell."""
        return self._once(rows, screen)[2]

    def _once(self, rows: Sequence[Row], screen: Screen) -> tuple[Sequence[Row], list[str], int]:
        """Return the cells and their width, made once for these rows."""
        key = id(rows), screen
        if key not in self._cells:
            texts = [self.title, *self.texts(rows), self.foot]
            shown = {text: screen.text(text) for text in set(texts)}
            if self.most is not None and screen.width is not None:
                shown = {text: shortened(cell, self.most) for text, cell in shown.items()}
            if self.breaks:
                shown = {text: cell.replace(self.breaks, f"{self.breaks.rstrip()}\n") for text, cell in shown.items()}
            lines = [line for cell in shown.values() for line in cell.split("\n")]
            self._cells[key] = rows, [shown[text] for text in texts], max(map(cell_len, lines))
        return self._cells[key]


def shortened(text: str, most: int) -> str:
    """Return a text without its middle if it has more than `most` columns: `layers.0.…linear ×2`."""
    if cell_len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


ADD_UP = (
    *("macs", "flops", "other_flops", "params", "bytes_read", "bytes_written", "calls"),
    *("time_s", "iqr_s", "bound_s", "backward_s"),
)
"""Keys of columns whose values add up to the total, each multiplied by the number of identical rows."""


def adding_up(columns: Sequence[Column[Row]], times: Callable[[Row], int]) -> list[Column[Row]]:
    """Multiply the values of each row by `times`, its number of identical rows, so that a column adds up to its total."""

    def of_all(value: Callable[[Row], Value]) -> Callable[[Row], Value]:
        def together(row: Row) -> Value:
            one = value(row)
            return times(row) * one if isinstance(one, int | float) else one

        return together

    def of_all_parts(column: Column[Row]) -> Column[Row]:
        return replace(column, value=of_all(column.value), at_least=column.at_least and of_all(column.at_least))

    return [of_all_parts(column) if column.key in ADD_UP else column for column in columns]


def fit(columns: Sequence[Column[Row]], rows: Sequence[Row], screen: Screen) -> tuple[list[Column[Row]], list[str]]:
    """Return the columns that fit on the screen and the titles of the dropped ones.

    The lowest rank is placed first, and of equal ranks the last column. A column that is too wide leaves its room to those
    of higher ranks. Columns above rank 0 without content come last.
    """
    shown = [column for column in columns if column.rank is not None]
    if screen.width is None:
        return shown, []
    room = screen.width - MARGIN + GAP
    shown = _narrowed(shown, rows, screen, room)
    kept: set[str] = set()
    last_first = shown[::-1]
    for column in sorted(last_first, key=lambda column: _order(column, rows)):
        width = column.width(rows, screen) + GAP
        if width <= room or not column.rank:
            kept.add(column.key)
            room -= width
        elif column.rank < 1:
            break  # this column is the focus, which others do not replace
    return (
        [column for column in shown if column.key in kept],
        [column.title for column in shown if column.key not in kept and column.title],
    )


def _order(column: Column[Row], rows: Sequence[Row]) -> tuple[bool, float]:
    """Return the place of a column among those that a screen has room for."""
    return bool(column.rank and column.is_empty(rows)), column.rank or 0


def _narrowed(columns: list[Column[Row]], rows: Sequence[Row], screen: Screen, room: int) -> list[Column[Row]]:
    """Return columns whose long one leaves room for those of rank 0, and if it can for those of the first ranks."""
    if not any(column.is_long for column in columns):
        return columns
    widths = {column.key: column.width(rows, screen) + GAP for column in columns}

    def left(rank: int) -> int:
        others = [column for column in columns if not column.is_long and (column.rank or 0) <= rank]
        return room - GAP - sum(widths[column.key] for column in others)

    most = max(min(left(0), max(left(FIRST_RANKS), COMFORTABLE)), LEAST)
    return [replace(column, most=most) if column.is_long else column for column in columns]


def rows_table(
    columns: Sequence[Column[Row]], rows: Sequence[Row], screen: Screen, style: Callable[[Row], str] = lambda row: ""
) -> Table:
    """Return a table with a rule below the headings and, if there are totals, another one above them."""
    totals = any(column.total is not None for column in columns)
    table = Table(
        box=RULES_ASCII if screen.ascii else RULES,
        show_footer=totals,
        pad_edge=False,
        padding=(0, GAP - 1, 0, 0),  # the box adds one more column
        show_edge=False,
    )
    cells = [column.cells(rows, screen) for column in columns]
    if cells:
        cells[0] = [" " * MARGIN + cell for cell in cells[0]]
    for column, (head, *_, foot) in zip(columns, cells, strict=True):
        table.add_column(head, foot, justify="right" if column.right else "left", no_wrap=True, overflow="crop")
    for index, row in enumerate(rows):
        texts = [Text(of[index + 1], style=column.tint(row)) for column, of in zip(columns, cells, strict=True)]
        table.add_row(*texts, style=style(row))
    return table


def to_csv(columns: Sequence[Column[Row]], rows: Sequence[Row]) -> str:
    """Return all columns as CSV in base units (seconds, bytes, counts), with a last row `total` if there are totals.

    The word `total` is in the column that counts the rows, or in the first one. An unknown value is an empty cell.
    Measured values have twelve digits.
    """
    columns = [column for column in columns if not column.drawn]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column.key for column in columns])
    writer.writerows([_plain(column.value(row)) for column in columns] for row in rows)
    name = next((column for column in columns if isinstance(column.total, str)), columns[0])
    if any(column.total is not None for column in columns if column is not name):
        writer.writerow(["total" if column is name else _plain(column.total) for column in columns])
    return out.getvalue()


def _plain(value: Value) -> Value:
    """Return the value of a cell; a float with twelve digits, which do not depend on the rounding of a sum."""
    if isinstance(value, str):
        return in_csv(value)
    return float(f"{value:.12g}") if isinstance(value, float) else value


def to_markdown(
    columns: Sequence[Column[Row]], rows: Sequence[Row], style: Callable[[Row], str] = lambda row: ""
) -> str:
    """Return a Markdown table with exact counts and all other values formatted; bold rows stay bold."""
    columns = [column for column in columns if column.rank is not None and not column.drawn]
    lines = [[column.title for column in columns], ["---:" if column.right else "---" for column in columns]]
    for row in rows:
        cells = [_exact(column, row) for column in columns]
        lines.append([f"**{cell.strip()}**" for cell in cells] if style(row) == "bold" else cells)
    if any(column.total is not None for column in columns):
        lines.append(_totals(columns))
    return "".join("| " + " | ".join(map(in_markdown, line)) + " |\n" for line in lines)


def _exact(column: Column[Row], row: Row) -> str:
    value = column.value(row)
    return _count(column, value) if isinstance(value, int) else column.words(row)


def _count(column: Column[Any], value: int) -> str:
    """Return a count with all digits, and with the unit if it is in bytes."""
    return f"{value:,} B" if column.key.startswith("bytes_") else f"{value:,}"


def _totals(columns: Sequence[Column[Any]]) -> list[str]:
    return [_count(column, column.total) if isinstance(column.total, int) else column.foot for column in columns]
