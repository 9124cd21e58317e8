"""Pictures of a plane in letters: an axis falls into runs of like tokens, and the plane is the product of two axes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from textwrap import wrap

from rich.text import Text

from attnscope.core.sizes import Pair
from attnscope.render.screen import Screen

MOST_LINES = 36
MOST_LINES_SCALED = 26
GAP = 4
"""Columns between pictures, where there is room."""
NARROWEST_TITLE = 15
MOST_ODD_RUNS = 6
"""Runs that may be drawn larger than they are: the two parts of a window at the edge, the padding, a query."""
COLORS = ("cyan", "magenta", "yellow", "green", "bright_red", "bright_blue", "white", "bright_cyan", "bright_magenta")
"""Of letters, in turn; the letters alone say all."""
LINES = {"window": "│─", "group": "┊┈"}

Label = tuple[int, bool]
"""What a run shows, and whether it is padding."""

Mark = tuple[str, str]
"""A letter and its style."""


@dataclass(frozen=True)
class Run:
    """Neighbouring tokens of an axis that look alike, and the line before them: "window", "group" or none."""

    label: Label
    tokens: int
    line: str = ""

    def cells(self, scale: int) -> int:
        """Letters that stand for the run where one stands for `scale` tokens; at least one."""
        return max(1, (self.tokens + scale // 2) // scale)


@dataclass(frozen=True)
class Plane:
    """What to draw: the runs down and across, and the letter of a cell from the labels of its two runs."""

    title: str
    down: list[Run]
    across: list[Run]
    mark: Callable[[int, int], Mark]


@dataclass(frozen=True)
class Picture:
    """Lines of text that stand together."""

    lines: list[Text]

    @property
    def width(self) -> int:
        """Columns."""
        return max(line.cell_len for line in self.lines)


def runs(tokens: Sequence[tuple[Label, int]], window: int = 0) -> list[Run]:
    """The runs of an axis from the label and the group of each token.

    A line stands where the group changes: of a window each `window` tokens, of a group elsewhere; of a window everywhere
    where `window` is 0.
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
        letter: tokens, down and across, that a letter stands for at most.
        complete: whether every line between runs is drawn; False where the planes are coarser than their windows.
    """

    pictures: list[Picture]
    letter: Pair
    complete: bool


def draw(planes: Sequence[Plane], room: int, screen: Screen, most: int = MOST_LINES) -> Drawing:
    """Draw planes in one scale that fits in `room` columns and `most` lines.

    It is the largest scale in which every line between runs is drawn, preferably in a few lines of text. Where no scale has
    room for all lines, neighbours that look alike become one run.
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
    """Yield the scales in which planes may have all their lines: up to the one in which a letter stands for each run."""
    axes = [axis for plane in planes for axis in (plane.down, plane.across)]
    widest = max(run.tokens for axis in axes for run in axis)
    for scale in _scales(max(sum(run.tokens for run in axis) for axis in axes), most):
        yield min(scale, widest)
        if scale >= widest:
            return


def _pitch(planes: Sequence[Plane], scale: int, room: int, most: int) -> int | None:
    """Columns from letter to letter: 2, which looks square, or 1; None where the planes do not fit in this scale."""
    if max(_length(plane.down, scale, 1) for plane in planes) > most:
        return None
    widths = {pitch: [_length(plane.across, scale, pitch) for plane in planes] for pitch in (2, 1)}
    fitting = [pitch for pitch in widths if max(widths[pitch]) <= room]
    # what is scaled or small need not look square: pictures in one row say more
    compact = scale > 1 or most < MOST_LINES
    in_a_row = [pitch for pitch in fitting if compact and sum(widths[pitch]) + 2 * (len(planes) - 1) <= room]
    return next(iter(in_a_row + fitting), None)


def _pictures(planes: Sequence[Plane], scale: int, pitch: int, screen: Screen) -> list[Picture]:
    """The planes under their titles, which are folded to the width of each and take the same number of lines."""
    folded = [wrap(plane.title, max(_length(plane.across, scale, pitch), NARROWEST_TITLE)) for plane in planes]
    most = max(map(len, folded))
    titles = [[*[""] * (most - len(lines)), *lines] for lines in folded]
    return [
        Picture([*(Text(screen.text(line), style="bold") for line in title), *_draw(plane, scale, pitch, screen)])
        for title, plane in zip(titles, planes, strict=True)
    ]


def _scales(longest: int, most: int) -> Iterator[int]:
    """Scales to try, from 1 on; the large ones by an eighth each."""
    yield 1
    scale = max(2, longest // most)
    while True:
        yield scale
        scale += max(1, scale // 8)


def side_by_side(pictures: Sequence[Picture], room: int) -> Iterator[Text]:
    """The pictures in rows, as many in each as fit in `room` columns, with an empty line between the rows.

    They stand closer where that brings all into one row.
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
    """Like neighbours as one where the lines between them would not leave two letters to each.

    Where too many are left that differ, each `scale` tokens become one run, with the least of their labels.
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
    """Columns (or, with a pitch of 1, lines) that an axis takes."""
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
        letter, style = ("+", "dim") if padded else plane.mark(row.label[0], column.label[0])
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
