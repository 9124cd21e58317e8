"""Pictures of a plane in letters: an axis is a list of runs of equal tokens, and the plane is the product of two axes."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from textwrap import wrap
from typing import Any

from rich.text import Text

from attnscope.core.sizes import Pair
from attnscope.render.screen import Screen

MOST_LINES = 36
MOST_LINES_SCALED = 26
GAP = 4
"""Columns between pictures if they fit."""
NARROWEST_TITLE = 15
MOST_ODD_RUNS = 6
"""Number of runs that may be drawn larger than to scale: two parts of a window at the edge, padding, a query."""
COLORS = ("cyan", "magenta", "yellow", "green", "bright_red", "bright_blue", "white", "bright_cyan", "bright_magenta")
"""Colors of the letters, repeated; they add no information to the letters."""
PADDING = "+"
"""The mark of a padding token."""
LINES = {"window": "│─", "group": "┊┈"}

Label = tuple[Hashable, bool]
"""What a run's letter depends on, and whether the run is padding."""

Mark = tuple[str, str]
"""A letter and its style."""


@dataclass(frozen=True)
class Run:
    """Consecutive tokens of an axis with the same label, and the line before them: "window", "group" or none."""

    label: Label
    tokens: int
    line: str = ""

    def cells(self, scale: int) -> int:
        """Return the number of letters of the run if each letter represents `scale` tokens; at least one."""
        return max(1, (self.tokens + scale // 2) // scale)


@dataclass(frozen=True)
class Plane:
    """A plane: its runs down and across, and a function that returns the letter of a cell by the labels of its runs."""

    title: str
    down: list[Run]
    across: list[Run]
    mark: Callable[[Any, Any], Mark]


@dataclass(frozen=True)
class Picture:
    """The lines of text of one picture."""

    lines: list[Text]

    @property
    def width(self) -> int:
        """Return the width in columns."""
        return max(line.cell_len for line in self.lines)


def runs(tokens: Sequence[tuple[Label, int]], window: int = 0) -> list[Run]:
    """Return the runs of an axis by the label and the group of each token.

    A line separates tokens of different groups. It is the line of a window at multiples of `window`, and of a group
    elsewhere. If `window` is 0, all lines are those of windows.
    """
    found, place = [], 0
    group_before = None
    for (label, group), same in groupby(tokens, key=lambda token: token):
        line = "" if group_before in (None, group) else "group" if window and place % window else "window"
        length = sum(1 for _ in same)
        found.append(Run(label, length, line))
        place, group_before = place + length, group
    return found


@dataclass(frozen=True)
class Drawing:
    """Planes drawn in one scale.

    Args:
        pictures: one for each plane.
        letter: the largest number of tokens, down and across, that a letter represents.
        complete: whether every line between runs is drawn; False if the drawing is coarser than the windows.
    """

    pictures: list[Picture]
    letter: Pair
    complete: bool


def draw(planes: Sequence[Plane], room: int, screen: Screen, most: int = MOST_LINES) -> Drawing:
    """Draw planes in one scale that fits in `room` columns and `most` lines.

    It is the first scale in which every line between runs is drawn, preferably in a few lines of text. If no scale has
    room for all lines, adjacent runs with the same label are merged.
    """
    for lines in dict.fromkeys((min(most, MOST_LINES_SCALED), most)):
        for scale in _complete_scales(planes, most):
            pitch = _pitch(planes, scale, room, most if scale == 1 else lines)
            if pitch:
                return _drawing(planes, scale, pitch, screen, complete=True)
    longest = max(sum(run.tokens for run in axis) for plane in planes for axis in (plane.down, plane.across))
    for scale in _scales(longest, most):
        shrunk = [Plane(p.title, _merged(p.down, scale), _merged(p.across, scale), p.mark) for p in planes]
        pitch = _pitch(shrunk, scale, room, min(most, MOST_LINES_SCALED))
        if pitch or scale > longest:
            return _drawing(shrunk, scale, pitch or 1, screen, complete=False)
    raise AssertionError("scales have no end")


def _drawing(planes: Sequence[Plane], scale: int, pitch: int, screen: Screen, complete: bool) -> Drawing:
    down, across = (
        max(-(-run.tokens // run.cells(scale)) for axis in axes for run in axis)
        for axes in ([plane.down for plane in planes], [plane.across for plane in planes])
    )
    return Drawing(_pictures(planes, scale, pitch, screen), (down, across), complete)


def _complete_scales(planes: Sequence[Plane], most: int) -> Iterator[int]:
    """Yield the scales that can show every line: up to the scale in which each run is one letter."""
    axes = [axis for plane in planes for axis in (plane.down, plane.across)]
    widest = max(run.tokens for axis in axes for run in axis)
    for scale in _scales(max(sum(run.tokens for run in axis) for axis in axes), most):
        yield min(scale, widest)
        if scale >= widest:
            return


def _pitch(planes: Sequence[Plane], scale: int, room: int, most: int) -> int | None:
    """Return the columns from letter to letter: 2, which looks square, or 1; None if the planes do not fit."""
    if max(_length(plane.down, scale, 1) for plane in planes) > most:
        return None
    widths = {pitch: [_length(plane.across, scale, pitch) for plane in planes] for pitch in (2, 1)}
    fitting = [pitch for pitch in widths if max(widths[pitch]) <= room]
    # a scaled or small drawing is clearer with all pictures in one row than with square cells
    compact = scale > 1 or most < MOST_LINES
    in_a_row = [pitch for pitch in fitting if compact and sum(widths[pitch]) + 2 * (len(planes) - 1) <= room]
    return next(iter(in_a_row + fitting), None)


def _pictures(planes: Sequence[Plane], scale: int, pitch: int, screen: Screen) -> list[Picture]:
    """Return the planes below their titles, which are wrapped to their widths and have equal numbers of lines."""
    folded = [wrap(plane.title, max(_length(plane.across, scale, pitch), NARROWEST_TITLE)) for plane in planes]
    most = max(map(len, folded))
    titles = [[*[""] * (most - len(lines)), *lines] for lines in folded]
    return [
        Picture([*(Text(screen.text(line), style="bold") for line in title), *_draw(plane, scale, pitch, screen)])
        for title, plane in zip(titles, planes, strict=True)
    ]


def _scales(longest: int, most: int) -> Iterator[int]:
    """Yield scales to try: 1, then others, each about an eighth larger."""
    yield 1
    scale = max(2, longest // most)
    while True:
        yield scale
        scale += max(1, scale // 8)


def side_by_side(pictures: Sequence[Picture], room: int) -> Iterator[Text]:
    """Yield the lines of the pictures in rows, as many in each as fit in `room` columns, with an empty line between rows.

    The gaps are smaller if all pictures then fit in one row.
    """
    free = room - sum(picture.width for picture in pictures)
    gap = min(GAP, max(free // (len(pictures) - 1), 0)) if len(pictures) > 1 else 0
    gap = gap or GAP
    row: list[Picture] = []
    first = True
    for picture in [*pictures, None]:
        if picture is not None and (not row or sum(one.width + gap for one in row) + picture.width <= room):
            row.append(picture)
            continue
        if not first:
            yield Text("")
        yield from _joined(row, gap)
        row, first = [picture] if picture is not None else [], False


def _joined(row: Sequence[Picture], gap: int) -> Iterator[Text]:
    empty = min(sum(1 for _ in takewhile(lambda line: not line, picture.lines)) for picture in row)
    for number in range(empty, max(len(picture.lines) for picture in row)):
        line, column = Text(), 0
        for picture in row:
            if number < len(picture.lines):
                line.append(" " * (column - line.cell_len))
                line.append_text(picture.lines[number])
            column += picture.width + gap
        yield line


def _merged(axis: Sequence[Run], scale: int) -> list[Run]:
    """Merge adjacent runs with the same label if the lines between them would leave fewer than two letters for a run.

    If too many runs remain, every `scale` tokens become one run with the smallest of their labels.
    """
    if scale == 1:
        return list(axis)
    merged = [axis[0]]
    for run in axis[1:]:
        last = merged[-1]
        if run.label == last.label and run.tokens < 2 * scale:
            merged[-1] = Run(last.label, last.tokens + run.tokens, last.line)
        else:
            merged.append(run)
    if len(merged) * scale <= sum(run.tokens for run in axis) + MOST_ODD_RUNS * scale:
        return merged
    labels = [run.label for run in axis for _ in range(run.tokens)]
    return [Run(min(labels[start : start + scale]), scale) for start in range(0, len(labels), scale)]


def _length(axis: Sequence[Run], scale: int, pitch: int) -> int:
    """Return the columns of an axis or, with a pitch of 1, its lines."""
    return sum(run.cells(scale) + bool(run.line) for run in axis) * pitch - (pitch - 1)


def _draw(plane: Plane, scale: int, pitch: int, screen: Screen) -> list[Text]:
    lines = []
    for row in plane.down:
        if row.line:
            lines.append(Text(screen.text(_rule(row.line, plane.across, scale, pitch)), style="dim"))
        lines += [_letters(row, plane, scale, pitch, screen)] * row.cells(scale)
    return lines


def _letters(row: Run, plane: Plane, scale: int, pitch: int, screen: Screen) -> Text:
    gap, text = " " * (pitch - 1), Text()
    for column in plane.across:
        if column.line:
            text.append(gap + screen.text(LINES[column.line][0]) + gap, style="dim")
        elif text:
            text.append(gap)
        padded = row.label[1] or column.label[1]
        letter, style = (PADDING, "dim") if padded else plane.mark(row.label[0], column.label[0])
        text.append(gap.join(letter * column.cells(scale)), style=style)
    return text


def _rule(line: str, across: Sequence[Run], scale: int, pitch: int) -> str:
    dash, rule = LINES[line][1], ""
    gap = dash * (pitch - 1)
    for column in across:
        if column.line:
            crossing = {line, column.line} == {"window"}
            rule += gap + ("┼" if crossing else LINES[column.line][0] if column.line == "window" else dash) + gap
        elif rule:
            rule += gap
        rule += gap.join(dash * column.cells(scale))
    return rule
