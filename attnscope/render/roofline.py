"""The roofline chart: the time of each step over its lower bound, by arithmetic intensity."""

from collections.abc import Iterable, Iterator, Sequence

from rich.text import Text

from attnscope.plan.peaks import Peaks
from attnscope.render import words
from attnscope.render.chart import WIDEST, Axis, Line, Mark, log_log
from attnscope.render.screen import MARGIN, Screen
from attnscope.render.steps import over_bound, seconds_of, where
from attnscope.reports.report import Report, StepRow

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
INDENT = 4
UNCACHED = 2**40
"""Bytes of a working set that no cache holds."""


def roofline(report: Report, screen: Screen) -> list[Text]:
    """Draw the steps below the roof: FLOPs per byte across, time over the lower bound downwards.

    The roof is the roofline lower bound of each step, as in the column time/bound. So a step at 1.10× is at 1.10 below the
    roof, regardless of which limit applies. Steps without FLOPs have no arithmetic intensity. They are counted below the
    chart.
    """
    timed = [row for row in report.steps if row.time]
    drawable = [row for row in timed if over_bound(row) and row.roofline and row.roofline.intensity]
    longest = sorted(drawable, key=seconds_of, reverse=True)[: len(LETTERS)]  # one letter for each
    steps = [row for row in drawable if any(row is one for one in longest)]
    if report.peaks is None or not steps:
        return []
    marks = [Mark(letter, *_point(row)) for letter, row in zip(LETTERS, steps, strict=False)]
    reach = Axis("", str).bounds(mark.x for mark in marks)
    roof = Line("lower bound", [(x, 1.0) for x in reach], sign="─")
    across = Axis("arithmetic intensity (FLOP/byte)", lambda value: f"{value:g}", includes=reach)
    down = Axis("time / bound (×)", lambda value: f"{value:g}×", includes=(1.0, 10.0), is_falling=True)
    chart = log_log([roof], across, down, screen, marks)
    names = [f"{mark.letter} {where(row)} {words.times(mark.y)}" for mark, row in zip(marks, steps, strict=True)]
    names += _left_out(len(drawable) - len(steps), "shorter step")
    names += _left_out(len(timed) - len(drawable), "step without FLOPs", "steps without FLOPs")
    width = min(screen.width or WIDEST, WIDEST) - MARGIN - INDENT
    below = [*_folded(names, width), *_folded(_machine([report.peaks, *report.wider_peaks]), width)]
    return [*chart, Text(""), *(Text(" " * (MARGIN + INDENT) + screen.text(line)) for line in below)]


def _point(row: StepRow) -> tuple[float, float]:
    """Return the arithmetic intensity of a step, and its time over its lower bound."""
    ratio = over_bound(row)
    assert row.roofline
    assert row.roofline.intensity
    assert ratio
    return row.roofline.intensity, ratio


def _machine(machine: Sequence[Peaks]) -> list[str]:
    """Return the best rates of the machine, and its ridge points for the cache and for memory."""
    flops_per_s = 2 * max(peaks.macs_per_s for peaks in machine)
    cache, memory = (max(peaks.bandwidth(size) for peaks in machine) for size in (0, UNCACHED))
    return [
        f"this machine at its best: {words.metric(flops_per_s, 'FLOP/s')},",
        f"{words.metric(cache, 'B/s')} from cache,",
        f"{words.metric(memory, 'B/s')} from memory;",
        f"ridge points at {flops_per_s / cache:.2g} and {flops_per_s / memory:.2g} FLOP/byte",
    ]


def _left_out(number: int, one: str, many: str = "") -> list[str]:
    if not number:
        return []
    return [f"and {number} {one if number == 1 else many or f'{one}s'}"]


def _folded(names: Iterable[str], width: int) -> Iterator[str]:
    """Yield lines with as many of these names as fit."""
    line = ""
    for name in names:
        if line and len(line) + 2 + len(name) > width:
            yield line
            line = ""
        line = f"{line}  {name}" if line else name
    yield line
