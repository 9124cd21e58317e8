"""The columns of a table of steps, each declared once, for every form: screen, CSV and Markdown."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from attnscope.axes import Shape, spell
from attnscope.render import words
from attnscope.report import Report, StepRow

Value = int | float | str | None


@dataclass(frozen=True)
class Column:
    """One column.

    Args:
        key: its name in CSV, with the unit where it is not a count.
        title: its head on the screen.
        value: what stands in a row, in base units.
        show: that value in words.
        rank: what is dropped first where the screen is narrow: the highest. None: not on the screen.
        total: what stands under it; "sum" is the sum over the rows, each as often as it stands in the network.
        right: whether it is flush right.
        of_run: whether it is there only where something was measured.
    """

    key: str
    title: str
    value: Callable[[StepRow, Report], Value]
    show: Callable[[Any], str]
    rank: int | None
    total: str | Callable[[Report], Value] | None = None
    right: bool = True
    of_run: bool = False

    def total_value(self, report: Report) -> Value:
        """What stands under the column, in base units; None where nothing does."""
        if self.total != "sum":
            return self.total(report) if callable(self.total) else None
        values = [(self.value(row, report), row.times) for row in report.steps]
        known = [value * times for value, times in values if isinstance(value, int | float)]
        return sum(known) if len(known) == len(values) else None


def _shapes(shapes: list[Shape]) -> str:
    """`3 of 64×3×49×32` where all are alike."""
    if len(set(map(tuple, shapes))) == 1 and len(shapes) > 1:
        return f"{len(shapes)} of {spell(shapes[0])}"
    return ", ".join(map(spell, shapes))


def _seconds(row: StepRow) -> float | None:
    return row.time.median_s if row.time else None


def _time_share(row: StepRow, report: Report) -> float | None:
    return row.times * row.time.median_s / report.time.steps_sum_s if row.time and report.time else None


def _of_longest(row: StepRow, report: Report) -> float | None:
    longest = max(step.times * step.time.median_s for step in report.steps if step.time)
    return row.times * row.time.median_s / longest if row.time else None


def _rate(row: StepRow) -> float | None:
    return row.macs / row.time.median_s if row.time and row.macs and row.time.median_s else 0


COLUMNS = [
    Column("step", "step", lambda row, report: row.name, str, 0, lambda report: f"{len(report.steps)} steps", right=False),
    Column("path", "path", lambda row, report: row.path, str, None, right=False),
    Column("letters", "letters", lambda row, report: row.pattern, str, 8, right=False),
    Column("inputs", "input shape", lambda row, report: _shapes(row.inputs), str, 15, right=False),
    Column("outputs", "output shape", lambda row, report: _shapes(row.outputs), str, 1, right=False),
    Column("macs", "MACs", lambda row, report: row.macs, words.metric, 0, "sum"),
    Column(
        "macs_share",
        "share",
        lambda row, report: row.macs * row.times / report.totals.macs if report.totals.macs else 0,
        words.percent,
        4,
    ),
    Column("flops", "FLOPs", lambda row, report: row.flops, words.metric, 12, "sum"),
    Column("other_flops", "elementwise", lambda row, report: row.other_flops, words.metric, 7, "sum"),
    Column("params", "params", lambda row, report: row.params, words.metric, 6, "sum"),
    Column("bytes_read", "read", lambda row, report: row.bytes_read, words.binary, 10, "sum"),
    Column("bytes_written", "written", lambda row, report: row.bytes_written, words.binary, 11, "sum"),
    Column("bytes_live", "live", lambda row, report: row.bytes_live, words.binary, 9, lambda report: report.totals.peak_bytes),
    Column("time_s", "time", lambda row, report: _seconds(row), lambda s: words.metric(s, "s"), 0, "sum", of_run=True),
    Column("time_share", "share", _time_share, words.percent, 2, of_run=True),
    Column("time_bar", "", _of_longest, lambda share: words.bar(share or 0), 3, right=False, of_run=True),
    Column(
        "iqr_s",
        "IQR",
        lambda row, report: row.time.iqr_s if row.time else None,
        lambda s: words.metric(s, "s"),
        13,
        of_run=True,
    ),
    Column("macs_per_s", "MAC/s", lambda row, report: _rate(row), words.metric, 5, of_run=True),
    Column("doc", "what it means", lambda row, report: row.doc, str, 14, right=False),
]


def columns_of(report: Report) -> list[Column]:
    """The columns that this report can fill."""
    return [column for column in COLUMNS if report.time or not column.of_run]
