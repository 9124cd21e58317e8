"""The charts and pictures of the explorer: MACs against size, and the neighbourhood of a token."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

from rich.text import Text

from attnscope.core.sizes import plural
from attnscope.render import words
from attnscope.render.chart import Axis, Mark, log_log
from attnscope.render.chart import Line as Curve
from attnscope.render.explorer.lines import Line, folded, labelled_lines, plain, table
from attnscope.render.neighbourhood import drawing_of, seen_columns
from attnscope.render.plane import side_by_side
from attnscope.render.screen import MARGIN, Screen, labelled
from attnscope.render.summary import paper_lines
from attnscope.render.windows.parts import room
from attnscope.reports.neighbourhood import NeighbourhoodReport
from attnscope.reports.report import Report

HERE, PINNED = "B", "A"
"""The letters of the current and of the pinned state in a chart."""
BELOW, FEWEST = 8, 6
"""Lines below a picture, and the fewest lines of a picture itself."""
KEPT = 16
"""Charts that are kept, for changes that do not move a curve and for those that are undone."""


def growth(
    report: Report,
    curves: Mapping[str, Sequence[tuple[float, float]]],
    marks: Mapping[str, tuple[float, float]],
    size: str,
    screen: Screen,
) -> list[Line]:
    """Return a chart of MACs against size, and the formulas below it.

    Args:
        report: the report of the current state.
        curves: points of each curve by its label.
        marks: a point by its letter.
        size: the name of the field that sets the size.
        screen: the screen.
    """
    drawn = {label: points for label, points in curves.items() if points}
    if any(not all(y > 0 for _, y in points) for points in drawn.values()):
        return folded("This attention has 0 MACs to draw.", screen)
    lines = tuple(Curve(label, tuple(points)) for label, points in drawn.items())
    chart = _chart(lines, tuple(Mark(letter, *at) for letter, at in marks.items()), size, screen)
    paper = labelled_lines(labelled("paper", paper_lines(report)), screen)
    legend = f"{HERE} is the current state" + (f", {PINNED} the pinned one" if PINNED in marks else "")
    return [*chart, plain("", screen), *folded(legend, screen, "dim"), *paper]


@lru_cache(maxsize=KEPT)
def _chart(curves: tuple[Curve, ...], marks: tuple[Mark, ...], size: str, screen: Screen) -> tuple[Line, ...]:
    """Return a chart of MACs against size; most changes of a Spec, such as its dtype, leave it as it was."""
    across = Axis(size, "{:g}".format, is_of_sizes=True)
    return tuple(map(Line, log_log(curves, across, Axis("MACs", words.rounded), screen, marks)))


def neighbourhood(report: NeighbourhoodReport, screen: Screen, height: int) -> list[Line]:
    """Return the picture of the keys of one query in this many lines if it can be, its legend and its figures."""
    drawing, legend = drawing_of(report, screen, max(height - BELOW, FEWEST))
    picture = [Line(Text(" " * MARGIN).append_text(line)) for line in side_by_side(drawing.pictures, room(screen))]
    explained = [line for words in legend for line in folded(words, screen, "dim")]
    figures = table(seen_columns(), report.seen, screen, topic=None)
    notes = labelled_lines([("note", note, "") for note in report.notes], screen)
    return [*picture, *explained, plain("", screen), *figures, *([plain("", screen), *notes] if notes else [])]


def without_picture(report: Report, why: str, screen: Screen) -> list[Line]:
    """Return the neighbourhood in words, and why it has no picture."""
    found = report.complexity.neighbourhood
    said = []
    if found is not None:
        keys = "no scores" if found.keys is None else plural(found.keys, "key")
        said = folded(f"{found.words}: {keys} for each query, {found.tokens:,} queries", screen)
    return [*said, *folded(why, screen, "dim")]
