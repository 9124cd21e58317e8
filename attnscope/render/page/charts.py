"""Charts of a page as coordinates; the template `chart.html` draws them."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 92, 16, 16, 44
"""Margins for the ticks and the titles of the axes."""
TICKS = 5
LETTER = 7
"""The width of a letter of a word at a dot."""
MOST_DOTS = 60
"""The largest number of dots on a line."""
NUMBER = re.compile(r"(?<![\w.,-])\d[\d,]*(?![\w.,]*\d)")
EXACT = 2**53
"""The number from which on a script gets an integer as text, since its own numbers are not exact."""


@dataclass(frozen=True)
class Tick:
    """A tick: its place in the picture, and its text."""

    at: float
    text: str


@dataclass(frozen=True)
class Dot:
    """A point: its place in the picture, the text on hover, the key of its step, and a word next to it.

    `right`, `down` and `anchor` are the place of the word from that of the point.
    """

    x: float
    y: float
    text: str
    step: str = ""
    label: str = ""
    right: int = 8
    down: int = 4
    anchor: str = "start"


@dataclass(frozen=True)
class Hit:
    """A column of a chart over steps: its place, left end and width, the text on hover, and the key of the step."""

    place: int
    x: float
    width: float
    text: str
    step: str


@dataclass(frozen=True)
class Series:
    """A line of a chart: its name, its dots, and the path through them."""

    name: str
    dots: list[Dot]
    path: str
    area: str = ""


@dataclass(frozen=True)
class Chart:
    """A chart: titles, ticks and series in the coordinates of the picture."""

    title: str
    across: str
    up: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    series: list[Series]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM
    marks: list[Tick] = field(default_factory=list)
    """Vertical lines with a word, such as the begin of the backward."""
    joined: bool = True
    """True if lines join the points."""
    places: int = 0
    """The number of places of a chart over steps."""
    hits: list[Hit] = field(default_factory=list)


Point = tuple[float, float, str, str, str]
"""x, y, the text on hover, the key of the step, and the letter of a point."""


def log_chart(
    title: str,
    across: str,
    up: str,
    series: Sequence[tuple[str, Sequence[Point]]],
    x_words: Callable[[float], str],
    y_words: Callable[[float], str],
    *,
    includes: tuple[float, ...] = (),
    x_values: Sequence[float] = (),
    joined: bool = True,
    base: int = 10,
) -> Chart | None:
    """Return a chart on two logarithmic axes; None without two different points above 0.

    Args:
        title: what it shows, for screen readers.
        across, up: titles of the axes.
        series: the name and the points of each line.
        x_words, y_words: functions that format a tick.
        includes: values that the vertical axis always contains.
        x_values: the values of the ticks across; by default powers of ten or simple multiples.
        joined: whether lines join the points.
        base: 10, or 2 for ticks of the vertical axis at simple multiples of powers of two.
    """
    points = [point for _, of in series for point in of if point[0] > 0 and point[1] > 0]
    if not points:
        return None
    xs, ys = [point[0] for point in points], [*(point[1] for point in points), *includes]
    left, right = _spread(min(xs), max(xs), 1.25 if joined else 3)
    low, high = _spread(min(ys), max(ys), 10)

    def place_x(value: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * math.log(value / left) / math.log(right / left), 1)

    def place_y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * math.log(value / low) / math.log(high / low), 1)

    drawn = []
    for name, of in series:
        dots = [Dot(place_x(x), place_y(y), text, step, label) for x, y, text, step, label in of if x > 0 and y > 0]
        drawn.append(Series(name, _apart(dots), _path(dots) if joined else ""))
    x_ticks = _thinned(sorted({*x_values})) if x_values else _log_ticks(left, right)
    return Chart(
        title,
        across,
        up,
        [Tick(place_x(x), x_words(x)) for x in x_ticks],
        [Tick(place_y(y), y_words(y)) for y in _log_ticks(low, high, base)],
        drawn,
        joined=joined,
    )


def steps_chart(
    title: str,
    across: str,
    up: str,
    series: Sequence[tuple[str, Sequence[tuple[int, float | None, str, str]]]],
    places: int,
    y_words: Callable[[float], str],
    marks: Sequence[tuple[float, str]] = (),
    base: int = 10,
) -> Chart:
    """Return a chart over numbered places, from 0, with a linear vertical axis from 0.

    Args:
        title: what it shows, for screen readers.
        across, up: titles of the axes.
        series: the name and the points of each line: place, value or None, text on hover, key of the step.
        places: the number of places.
        y_words: a function that formats a tick.
        marks: vertical lines, each at a place with a word.
        base: 10, or 2 for ticks at simple multiples of powers of two.
    """
    most = max([value for _, of in series for _, value, _, _ in of if value is not None], default=0) or 1
    step = _nice_step(most, base)
    top = math.ceil(most / step) * step

    def place_x(place: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (place + 0.5) / max(places, 1), 1)

    def place_y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top, 1)

    drawn = []
    at_place: dict[int, list[tuple[str, str]]] = {}
    for name, of in series:
        dots = [Dot(place_x(x), place_y(y), "") for x, y, _, _ in of if y is not None]
        path = _path(dots)
        ends = f"L{dots[-1].x} {HEIGHT - BOTTOM}L{dots[0].x} {HEIGHT - BOTTOM}Z" if dots else ""
        drawn.append(Series(name, dots if len(dots) <= MOST_DOTS else [], path, path + ends))
        for x, y, text, key in of:
            if y is not None:
                at_place.setdefault(x, []).append((text, key))
    hits = [
        Hit(
            at,
            place_x(at - 0.5),
            round(place_x(at + 0.5) - place_x(at - 0.5), 1),
            "; ".join(text for text, _ in of),
            of[0][1],
        )
        for at, of in sorted(at_place.items())
    ]
    ticks = [Tick(place_y(step * count), y_words(step * count)) for count in range(round(top / step) + 1)]
    lines = [Tick(place_x(at), word) for at, word in marks]
    return Chart(title, across, up, [], ticks, drawn, marks=lines, places=places, hits=hits)


def hits_data(chart: Chart, numbers: Mapping[str, int]) -> dict[str, Any]:
    """Return the columns of a chart by their places as data for the script, in a quarter of the size of their elements.

    A column is the number of its step, the number of its words, and the integers between them: many columns have the
    same words.

    Args:
        chart: the chart.
        numbers: the number of each step.
    """
    found: dict[tuple[str, ...], int] = {}
    hits: list[list[Any] | None] = [None] * chart.places
    for hit in chart.hits:
        words, integers = _parts(hit.text)
        kind = found.setdefault(tuple(words), len(found))
        hits[hit.place] = [numbers.get(hit.step), kind, *integers]
    return {"left": chart.left, "right": chart.right, "words": list(found), "hits": hits}


def _parts(text: str) -> tuple[list[str], list[int | str]]:
    """Split a text at its integers, which have separators of thousands: the words around them, and the integers."""
    words, integers, end = [], [], 0
    for match in NUMBER.finditer(text):
        value = int(match[0].replace(",", ""))
        if f"{value:,}" == match[0]:
            words.append(text[end : match.start()])
            integers.append(value if value < EXACT else str(value))
            end = match.end()
    return [*words, text[end:]], integers


def _apart(dots: Sequence[Dot]) -> list[Dot]:
    """Return dots whose words do not cover each other, nor another dot: right of the dot, left, above or below."""
    taken = [(dot.x - 5, dot.x + 5, dot.y - 5, dot.y + 5) for dot in dots if dot.label]
    placed = []
    for dot in dots:
        if not dot.label:
            placed.append(dot)
            continue
        wide = LETTER * len(dot.label)
        sides = [
            (8, 4, "start", 8.0),
            (-8, 4, "end", -8.0 - wide),
            (0, -9, "middle", -wide / 2),
            (0, 18, "middle", -wide / 2),
        ]
        boxes = [(dot.x + left, dot.x + left + wide, dot.y + down - 10, dot.y + down + 3) for _, down, _, left in sides]
        free = (
            at
            for at, (x0, x1, y0, y1) in enumerate(boxes)
            if all(x1 < left or x0 > right or y1 < top or y0 > low for left, right, top, low in taken)
        )
        best = next(free, 0)
        taken.append(boxes[best])
        right, down, anchor, _ = sides[best]
        placed.append(replace(dot, right=right, down=down, anchor=anchor))
    return placed


def _path(dots: Sequence[Dot]) -> str:
    """Return the path through the dots, each a distance from the one before, which is shorter than its place."""
    steps = [f"l{_short(b.x - a.x)} {_short(b.y - a.y)}" for a, b in pairwise(dots)]
    return f"M{dots[0].x} {dots[0].y}{''.join(steps)}".replace(" -", "-") if dots else ""


def _short(distance: float) -> str:
    """Return a distance between places, which are tenths, without zeros that mean nothing."""
    return f"{round(distance, 1) + 0.0:g}"  # without the sign of -0.0


def _spread(low: float, high: float, least: float) -> tuple[float, float]:
    """Return bounds a little outside of the values, and at least a factor apart."""
    missing = math.sqrt(max(least * low / high, 1.0)) * (high / low) ** 0.03
    return low / missing, high * missing


MULTIPLES = {
    10: ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)),
    1024: ((1,), (1, 32), (1, 4, 16, 64, 256), tuple(2**power for power in range(10)),
           tuple(2**power * part for power in range(10) for part in (1, 1.25, 1.5, 1.75))),
}  # fmt: skip
"""The multiples of powers of a base at which ticks may be: those of the first line that has enough."""


def _log_ticks(low: float, high: float, base: int = 10) -> list[float]:
    """Return three ticks or more: powers of 10, or of 1024 for base 2, and simple multiples if these are too few."""
    found: list[float] = []
    unit = 1024 if base == 2 else base
    for digits in MULTIPLES[unit]:
        powers = range(math.floor(math.log(low, unit)), math.ceil(math.log(high, unit)) + 1)
        places = [digit * float(unit) ** power for power in powers for digit in digits]
        found = [place for place in places if low <= place <= high]
        if len(found) >= 3:
            break
    return _thinned(found)


def _thinned(ticks: list[float]) -> list[float]:
    return ticks[:: -(-len(ticks) // (2 * TICKS))]


def _nice_step(most: float, base: int) -> float:
    """Return a distance of ticks such that there are about five of them."""
    rough = most / TICKS
    if base == 2:
        return float(2 ** max(0, math.ceil(math.log2(rough))))
    power = 10.0 ** math.floor(math.log10(rough))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= rough)
