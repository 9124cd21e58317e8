"""Charts in characters: lines and marks on two logarithmic axes, drawn by plotext.

An axis has a title, a unit, and three ticks or more. It spans at least a decade, or a factor of eight if its ticks are
powers of two. So nearly equal values do not look different.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from rich.cells import cell_len
from rich.text import Text

from attnscope.render.screen import MARGIN, Screen

COLORS = ("cyan", "magenta", "yellow", "green", "blue", "red")
MARKERS = "o+x*#@"
"""The characters of lines on screens without braille, one for each line."""
FRAME = str.maketrans({"│": "|", "┤": "|", "├": "|", "└": "+", "┘": "+", "┬": "+", "┴": "+", "┼": "+", "─": "-"})
WIDEST = 100
NARROWEST = 20
HEIGHT = 14
ROWS = HEIGHT - 2
"""Rows for values: the last two are the axis and its ticks."""
FEWEST_TICKS, MOST_TICKS = 3, 5

SERIES = {10: ((1,), (1, 3), (1, 2, 5)), 2: ((1,),)}
"""First digits of the ticks on an axis, by its base; each series has more ticks than the one before."""
FINE = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)
"""First digits of additional ticks if the measured values are too few."""
LEAST_SPAN = {10: 10.0, 2: 8.0}
LEAST_SPANS_OF_SIZES = 2.0, 5.0
"""Smallest spans of an axis of sizes: any range of the second span contains three integers."""


@dataclass(frozen=True)
class Axis:
    """One logarithmic axis.

    Args:
        title: the name and, in parentheses, the unit.
        words: a function that formats the value of a tick.
        base: 10 or 2; ticks are powers of the base, and for 10 also simple multiples of them.
        includes: values that the axis always contains.
        is_falling: whether values grow downwards.
        is_of_sizes: whether the values are integers that the user chose; the ticks are at these values.
    """

    title: str
    words: Callable[[float], str]
    base: int = 10
    includes: tuple[float, ...] = ()
    is_falling: bool = False
    is_of_sizes: bool = False

    def bounds(self, values: Iterable[float]) -> tuple[float, float]:
        """Return the smallest and the largest value of the axis, which are at least its smallest span apart."""
        reached = [*values, *self.includes]
        for span in LEAST_SPANS_OF_SIZES if self.is_of_sizes else (LEAST_SPAN[self.base],):
            low, high = min(reached), max(reached)
            missing = math.sqrt(max(span * low / high, 1.0))
            low, high = low / missing, high * missing
            if math.floor(high) - math.ceil(low) + 1 >= FEWEST_TICKS:
                break
        return low, high

    def ticks(self, low: float, high: float) -> list[float]:
        """Return three ticks or more between two bounds: powers of the base, and multiples if powers are too few."""
        ticks: list[float] = []
        for digits in SERIES[self.base]:
            ticks = [*_multiples(digits, self.base, low, high)]
            if len(ticks) >= FEWEST_TICKS:
                break
        return ticks[:: -(-len(ticks) // MOST_TICKS)] if len(ticks) > MOST_TICKS + 1 else ticks


@dataclass(frozen=True)
class Line:
    """A line of a chart: the label at its end, its points (all above 0), and the character of its dots."""

    label: str
    points: Sequence[tuple[float, float]]
    sign: str = ""


@dataclass(frozen=True)
class Mark:
    """A letter at a point."""

    letter: str
    x: float
    y: float


def log_log(lines: Sequence[Line], across: Axis, up: Axis, screen: Screen, marks: Sequence[Mark] = ()) -> list[Text]:
    """Draw lines and marks on two logarithmic axes, one row of text each.

    Args:
        lines: the lines; identical lines share a label.
        across, up: the horizontal and the vertical axis.
        screen: the screen, whose width limits the chart and whose characters draw it.
        marks: letters on top of the lines; a mark on an occupied cell moves aside.
    """
    import plotext

    lines = _merged(lines)
    signs = _cycle(MARKERS, lines)
    labels = [f"{sign} {line.label}" if screen.ascii else line.label for line, sign in zip(lines, signs, strict=True)]
    right = max(map(cell_len, labels)) + 2
    points = [*(point for line in lines for point in line.points), *((mark.x, mark.y) for mark in marks)]
    xs, ys = ([point[axis] for point in points] for axis in (0, 1))
    bounds_across, bounds_up = across.bounds(xs), up.bounds(ys)
    rising = -1 if up.is_falling else 1
    marks_up = {rising * math.log(y): screen.text(up.words(y)) for y in up.ticks(*bounds_up)}
    left = max(map(cell_len, marks_up.values())) + 1
    width = max(NARROWEST + left, min(screen.width or WIDEST - 20, WIDEST) - MARGIN - right)
    grid = _Grid(_logs(bounds_across), _logs(bounds_up), width - left, up.is_falling)
    marks_across = _ticks_across(sorted(set(xs)) if across.is_of_sizes else [], across, grid)

    plotext.clear_figure()
    plotext.limit_size(False, False)
    plotext.plot_size(width, HEIGHT)
    plotext.theme("clear")
    plotext.xaxes(True, False)
    plotext.yaxes(True, False)
    plotext.xlim(*grid.across)
    plotext.ylim(*sorted(rising * bound for bound in grid.up))
    plotext.xticks([math.log(x) for x in marks_across], "." * len(marks_across))
    plotext.yticks(list(marks_up), list(marks_up.values()))
    for line, color, sign in zip(lines, _cycle(COLORS, lines), signs, strict=True):
        dots = screen.text(line.sign) if line.sign else sign if screen.ascii else "braille"
        logs = [[math.log(x) for x, _ in line.points], [rising * math.log(y) for _, y in line.points]]
        plotext.plot(*logs, marker=dots, color=f"{color}+")
    for mark, (column, row) in zip(marks, grid.places(marks), strict=True):
        plotext.scatter(*([value] for value in grid.at(column, row)), marker=mark.letter, color="yellow+")
    drawn = [Text.from_ansi(row) for row in plotext.build().splitlines()[:-1]]
    drawn.append(Text(screen.text(_numbers(marks_across, across, grid, left))))
    if screen.ascii:
        for row_of_text in drawn:
            row_of_text.plain = row_of_text.plain.translate(FRAME)
    for index, (label, at) in enumerate(zip(labels, _rows_of_ends(lines, grid), strict=True)):
        drawn[at].pad_right(max(0, width - drawn[at].cell_len))
        drawn[at].append(f" {screen.text(label)}", style=f"bright_{COLORS[index % len(COLORS)]}")
    title = screen.text(across.title)
    below = " " * max(0, left + (width - left - cell_len(title)) // 2) + title
    named = [Text(screen.text(up.title), style="dim"), *drawn, Text(below, style="dim")]
    for row_of_text in named:
        row_of_text.rstrip()
    return [Text(" " * MARGIN).append_text(row_of_text) for row_of_text in named]


@dataclass(frozen=True)
class _Grid:
    """The cells of a chart: logarithms at its edges, columns, and whether values grow downwards."""

    across: tuple[float, float]
    up: tuple[float, float]
    columns: int
    is_falling: bool

    def column(self, x: float) -> int:
        """Return the column of a value, from the left."""
        return round(_share(math.log(x), self.across) * (self.columns - 1))

    def row(self, y: float) -> int:
        """Return the row of a value, from the top."""
        share = _share(math.log(y), self.up)
        return round((share if self.is_falling else 1 - share) * (ROWS - 1))

    def at(self, column: int, row: int) -> tuple[float, float]:
        """Return the coordinates of the middle of a cell in plotext."""
        low, high = sorted(-bound for bound in self.up) if self.is_falling else self.up
        x = self.across[0] + column / (self.columns - 1) * (self.across[1] - self.across[0])
        return x, high - row / (ROWS - 1) * (high - low)

    def places(self, marks: Sequence[Mark]) -> Iterator[tuple[int, int]]:
        """Yield a cell for each mark: its own, or the nearest free one in its row."""
        taken: set[tuple[int, int]] = set()
        for mark in marks:
            column, row = self.column(mark.x), self.row(mark.y)
            beside = (near for step in count() for near in (column + step, column - step) if 0 <= near < self.columns)
            place = next(((near, row) for near in beside if (near, row) not in taken), (column, row))
            taken.add(place)
            yield place


def _logs(bounds: tuple[float, float]) -> tuple[float, float]:
    return math.log(bounds[0]), math.log(bounds[1])


def _share(value: float, bounds: tuple[float, float]) -> float:
    return (value - bounds[0]) / (bounds[1] - bounds[0])


def _merged(lines: Sequence[Line]) -> list[Line]:
    """Merge identical lines into one with all of their labels."""
    labels: dict[tuple[str, tuple[tuple[float, float], ...]], list[str]] = {}
    for line in lines:
        labels.setdefault((line.sign, tuple(line.points)), []).append(line.label)
    return [Line(", ".join(names), points, sign) for (sign, points), names in labels.items()]


def _cycle(marks: Sequence[str], lines: Sequence[Line]) -> list[str]:
    return [marks[index % len(marks)] for index in range(len(lines))]


def _multiples(digits: Sequence[float], base: int, low: float, high: float) -> Iterator[float]:
    """Yield the products of these digits and powers of the base between two bounds."""
    for power in range(math.floor(math.log(low, base)) - 1, math.ceil(math.log(high, base)) + 1):
        for digit in digits:
            value = digit * float(base) ** power
            if low * (1 - 1e-9) <= value <= high * (1 + 1e-9):
                yield value


def _ticks_across(own: Sequence[float], axis: Axis, grid: _Grid) -> list[float]:
    """Return the values whose labels fit, and simple numbers between them if they are too few."""
    low, high = map(math.exp, grid.across)
    kept = _with_room(own, axis, grid)
    for digits in (*SERIES[axis.base], FINE):
        if len(kept) >= FEWEST_TICKS:
            break
        simple = [x for x in _multiples(digits, axis.base, low, high) if not axis.is_of_sizes or x == round(x)]
        kept = sorted(_with_room([*kept, *simple], axis, grid))
    return kept


def _with_room(values: Iterable[float], axis: Axis, grid: _Grid) -> list[float]:
    """Return the values whose labels fit with a space between them; earlier values have priority."""
    kept: dict[float, tuple[int, int]] = {}
    for value in values:
        start, end = _span(value, axis, grid)
        if all(end < first or last < start for first, last in kept.values()):
            kept[value] = start, end
    return list(kept)


def _span(value: float, axis: Axis, grid: _Grid) -> tuple[int, int]:
    """Return the first and last column of a tick's label: centered below the tick, inside the chart."""
    length = cell_len(axis.words(value))
    start = max(0, min(grid.column(value) - length // 2, grid.columns - length))
    return start, start + length


def _numbers(values: Iterable[float], axis: Axis, grid: _Grid, left: int) -> str:
    """Return the row of tick labels; plotext would move labels and omit some in no fixed order."""
    row = " " * left
    for value in sorted(values):
        row = row.ljust(left + _span(value, axis, grid)[0]) + axis.words(value)
    return row


def _rows_of_ends(lines: Sequence[Line], grid: _Grid) -> list[int]:
    """Return the row, from the top, of each line's label: where the line ends, or near it, in the order of the ends."""
    ends = [line.points[-1][1] for line in lines]
    order = sorted(range(len(lines)), key=lambda index: (grid.row(ends[index]), -ends[index]))
    rows, lowest = [0] * len(lines), -1
    for index in order:
        rows[index] = lowest = max(grid.row(ends[index]), lowest + 1)
    highest = ROWS
    for index in reversed(order):
        rows[index] = highest = max(0, min(rows[index], highest - 1))
    return rows
