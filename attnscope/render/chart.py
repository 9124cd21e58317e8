"""A chart in letters: lines on logarithmic axes, drawn by plotext behind `log_log`, the only place that knows it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from attnscope.render.screen import MARGIN, Screen

COLORS = ("cyan", "magenta", "yellow", "green", "blue", "red")
MARKERS = "o+x*#@"
"""What lines are drawn with where there is no braille, one mark for each."""
FRAME = str.maketrans({"│": "|", "┤": "|", "├": "|", "└": "+", "┘": "+", "┬": "+", "┴": "+", "┼": "+", "─": "-"})
WIDEST = 100
NARROWEST = 20
HEIGHT = 14


@dataclass(frozen=True)
class Line:
    """One line of a chart: what stands at its end, and its points, all above 0."""

    label: str
    points: Sequence[tuple[float, float]]


def log_log(
    lines: Sequence[Line],
    across: Callable[[float], str],
    up: Callable[[float], str],
    unit: str,
    screen: Screen,
    base: int = 10,
) -> list[Text]:
    """Lines on two logarithmic axes, one row of text each.

    Args:
        lines: what is drawn; lines that lie on one another share their label.
        across, up: a value in words, for the ticks of either axis.
        unit: what the values across are.
        screen: its width, and whether it has braille.
        base: ticks on the upright axis are powers of it.
    """
    import plotext

    lines = _merged(lines)
    marks = _cycle(MARKERS, lines)
    labels = [f"{mark} {line.label}" if screen.ascii else line.label for line, mark in zip(lines, marks, strict=True)]
    right = max(map(cell_len, labels)) + 2
    xs, ys = ([point[axis] for line in lines for point in line.points] for axis in (0, 1))
    marks_up = {math.log(y): up(y) for y in _ticks_up(min(ys), max(ys), base)}
    left = max(map(cell_len, marks_up.values())) + 1
    width = max(NARROWEST, min(screen.width or WIDEST - 20, WIDEST) - MARGIN - right)
    bounds_across, bounds_up = _bounds(xs), _bounds(ys)

    plotext.clear_figure()
    plotext.limit_size(False, False)
    plotext.plot_size(width, HEIGHT)
    plotext.theme("clear")
    plotext.xaxes(True, False)
    plotext.yaxes(True, False)
    plotext.xlim(*bounds_across)
    plotext.ylim(*bounds_up)
    ticks = _ticks_across(sorted(set(xs)), across, bounds_across, width - left)
    plotext.xticks([math.log(x) for x in ticks], [across(x) for x in ticks])
    plotext.yticks(list(marks_up), [screen.text(words) for words in marks_up.values()])
    for line, color, mark in zip(lines, _cycle(COLORS, lines), marks, strict=True):
        logs = [[math.log(point[axis]) for point in line.points] for axis in (0, 1)]
        plotext.plot(*logs, marker=mark if screen.ascii else "braille", color=f"{color}+")
    drawn = [Text.from_ansi(row) for row in plotext.build().splitlines()]
    if screen.ascii:
        for row in drawn:
            row.plain = row.plain.translate(FRAME)
    ends = _rows_of_ends(lines, bounds_up, rows=len(drawn) - 2)
    for index, label in enumerate(labels):
        row = drawn[ends[index]]
        row.pad_right(max(0, width - row.cell_len))
        row.append(f" {screen.text(label)}", style=f"bright_{COLORS[index % len(COLORS)]}")
    drawn[-1].rstrip()
    drawn[-1].append(f" {unit}")
    return [Text(" " * MARGIN).append_text(row) for row in drawn]


def _merged(lines: Sequence[Line]) -> list[Line]:
    """Lines that lie on one another are one, with both labels."""
    labels: dict[tuple[tuple[float, float], ...], list[str]] = {}
    for line in lines:
        labels.setdefault(tuple(line.points), []).append(line.label)
    return [Line(", ".join(names), points) for points, names in labels.items()]


def _cycle(marks: Sequence[str], lines: Sequence[Line]) -> list[str]:
    return [marks[index % len(marks)] for index in range(len(lines))]


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    """The logarithms of the smallest and the largest value, apart even where these are one."""
    low, high = math.log(min(values)), math.log(max(values))
    return (low, high) if high > low else (low - 1, high + 1)


def _ticks_up(low: float, high: float, base: int) -> list[float]:
    """Some five powers of the base between the bounds, or the bounds where there are not two."""
    first, last = math.ceil(math.log(low, base) - 1e-9), math.floor(math.log(high, base) + 1e-9)
    stride = max(1, -(-(last - first) // 5))
    powers = [float(base) ** power for power in range(first, last + 1, stride)]
    return powers if len(powers) > 1 else sorted({low, high})


def _ticks_across(
    xs: Sequence[float], words: Callable[[float], str], bounds: tuple[float, float], width: int
) -> list[float]:
    """As many of the points' own values as have room for their words."""
    kept: list[float] = []
    free = -math.inf
    for x in xs:
        middle = (math.log(x) - bounds[0]) / (bounds[1] - bounds[0]) * (width - 1)
        half = cell_len(words(x)) / 2
        if middle - half > free:
            kept.append(x)
            free = middle + half + 1
    return kept


def _rows_of_ends(lines: Sequence[Line], bounds: tuple[float, float], rows: int) -> list[int]:
    """The row, from the top, in which each line ends; no two in the same one while there is another."""
    taken: list[int] = []
    for line in lines:
        height = (math.log(line.points[-1][1]) - bounds[0]) / (bounds[1] - bounds[0])
        wanted = round((1 - height) * (rows - 1))
        free = [row for row in range(rows) if row not in taken] or [wanted]
        taken.append(min(free, key=lambda row: abs(row - wanted)))
    return taken
