"""The roofline: how far each step is from its lower bound, beside its arithmetic intensity."""

from collections.abc import Iterable, Iterator

from rich.text import Text

from attnscope.plan.roofline import Peaks
from attnscope.render import words
from attnscope.render.chart import WIDEST, Axis, Line, Mark, log_log
from attnscope.render.screen import MARGIN, Screen
from attnscope.render.steps import over_bound, seconds_of, where
from attnscope.reports.report import Report, StepRow

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
INDENT = 4


def roofline(report: Report, screen: Screen) -> list[Text]:
    """Draw the steps below their roof: FLOPs for each byte across, time over the lower bound downwards.

    The roof is the lower bound of each step, as in the table's column time/bound: its own kernel at its best, and the
    bandwidth of the memory that holds its operands. So a step at 1.10× stands that far below the roof, whatever bounds it.
    Steps without FLOPs have no place across.
    """
    timed = [row for row in report.steps if row.bound and over_bound(row)]
    drawable = [row for row in timed if row.bound and row.bound.intensity]
    longest = sorted(drawable, key=seconds_of, reverse=True)[: len(LETTERS)]  # there are no more letters
    steps = [row for row in drawable if any(row is one for one in longest)]
    if report.peaks is None or not steps:
        return []
    marks = [Mark(letter, *_point(row)) for letter, row in zip(LETTERS, steps, strict=False)]
    reach = Axis("", str).bounds(mark.x for mark in marks)
    roof = Line("the bound", [(x, 1.0) for x in reach], sign="─")
    across = Axis("arithmetic intensity (FLOP/byte)", lambda value: f"{value:g}", includes=reach)
    down = Axis("time / bound (×)", lambda value: f"{value:g}×", includes=(1.0, 10.0), is_falling=True)
    chart = log_log([roof], across, down, screen, marks)
    names = [f"{mark.letter} {where(row)} {words.times(mark.y)}" for mark, row in zip(marks, steps, strict=True)]
    names += _left_out(len(drawable) - len(steps), "shorter step")
    names += _left_out(len(timed) - len(drawable), "step without FLOPs", "steps without FLOPs")
    width = min(screen.width or WIDEST, WIDEST) - MARGIN - INDENT
    below = [*_folded(names, width), *_folded(_machine(report.peaks), width)]
    return [*chart, Text(""), *(Text(" " * (MARGIN + INDENT) + screen.text(line)) for line in below)]


def _point(row: StepRow) -> tuple[float, float]:
    """Intensity, and how many times its bound a step takes."""
    ratio = over_bound(row)
    assert row.bound
    assert row.bound.intensity
    assert ratio
    return row.bound.intensity, ratio


def _machine(peaks: Peaks) -> list[str]:
    """Say what the machine can do at its best, and at which intensities arithmetic takes as long as moving bytes."""
    flops_per_s = 2 * peaks.macs_per_s
    cache, memory = max(copy.bytes_per_s for copy in peaks.copy), peaks.copy[-1].bytes_per_s
    return [
        f"this machine: {words.metric(flops_per_s, 'FLOP/s')},",
        f"{words.metric(cache, 'B/s')} from cache,",
        f"{words.metric(memory, 'B/s')} from memory;",
        f"balanced at {flops_per_s / cache:.2g} and {flops_per_s / memory:.2g} FLOP/byte",
    ]


def _left_out(number: int, one: str, many: str = "") -> list[str]:
    if not number:
        return []
    return [f"and {number} {one if number == 1 else many or f'{one}s'}"]


def _folded(names: Iterable[str], width: int) -> Iterator[str]:
    """Yield lines of these names, as many in each as fit."""
    line = ""
    for name in names:
        if line and len(line) + 2 + len(name) > width:
            yield line
            line = ""
        line = f"{line}  {name}" if line else name
    yield line
