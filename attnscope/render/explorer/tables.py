"""The tables of the explorer: steps, parts of a network, memory over the steps, and operands of the roofline."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from attnscope.core.axes import spell
from attnscope.render import words
from attnscope.render.columns import Column, fit
from attnscope.render.explorer.changes import AFTER, marked, only_in, with_differences
from attnscope.render.explorer.kept import kept
from attnscope.render.explorer.lines import Line, folded, labelled_lines, plain, table
from attnscope.render.held import LAST_TO_GO
from attnscope.render.parts import part_columns, part_style
from attnscope.render.roofline import roofline
from attnscope.render.screen import Screen
from attnscope.render.sheet import lines as lines_below
from attnscope.render.steps import shapes, step_columns, weight
from attnscope.reports.report import PartRow, Report, StepRow

Columns = Sequence[Column[Any]]

KEPT = 4
"""Reports whose columns are kept: the current one, the one before it, the pinned one, and one that may be undone."""
MEMORY = ("part", "step", "bytes_live", "bytes_training", "bytes_backward", "bytes_saved")
"""Columns of the memory over the steps."""
MOST_NAME = 28
"""Columns of the name of a part; its explanation has the whole name."""


@dataclass(frozen=True)
class Shown:
    """The reports of one screen.

    Args:
        report: the report of the current state, B.
        before: the report of the state before; cells that changed since then are marked.
        pinned: the report of the pinned state, A.
    """

    report: Report
    before: Report | None = None
    pinned: Report | None = None


def steps(shown: Shown, screen: Screen) -> list[Line]:
    """Return the table of the steps with their shapes and costs, and the lines below it."""
    report = shown.report
    heaviest = max(report.steps, key=weight)

    def style(row: StepRow) -> str:
        return "bold" if row is heaviest else "" if row.macs else "dim"

    below = replace(screen, quiet=True)
    return [
        *_compared(shown, screen, _of_steps, style),
        plain("", screen),
        *labelled_lines(lines_below(report, below), below),
    ]


def parts(shown: Shown, screen: Screen) -> list[Line]:
    """Return the table of the parts of a whole network, with its stages."""
    if not shown.report.parts:
        why = "This is a part of a network. Set scope to model, without a stage or a block, to see the stages."
        if "attention" in shown.report.spec:
            why = "This is a single attention. Set scope to model to see the stages of a network built from it."
        return folded(why, screen)

    return _compared(shown, screen, _of_parts, part_style, lambda report: report.parts)


@kept(KEPT)
def _of_steps(report: Report) -> Columns:
    return _without_backward(step_columns(report))


@kept(KEPT)
def _of_parts(report: Report) -> Columns:
    found = _without_backward(part_columns(report))
    return [replace(column, most=MOST_NAME) if column.key == "part" else column for column in found]


def _without_backward(columns: Columns) -> list[Column[Any]]:
    """Return the columns without the memory of the backward, which only the pane of the memory has computed."""
    return [column for column in columns if column.key != "bytes_backward"]


def memory(shown: Shown, screen: Screen) -> list[Line]:
    """Return the memory over the steps: a bar of the live memory in inference, then the figures of training."""
    peak = [line for line in lines_below(shown.report, screen) if line[0] == "memory"]
    columns = _of_memory_alone if shown.pinned is None else _of_memory_compared
    return [*_compared(shown, screen, columns), plain("", screen), *labelled_lines(peak, screen)]


def _of_memory(report: Report, rank: float) -> Columns:
    """Return the columns of the memory; `rank` is that of the bar."""
    found = {column.key: column for column in step_columns(replace(report, focus=["memory"]))}
    chosen = [found[key] for key in MEMORY if found[key].rank is not None]
    most = max(map(_live, report.steps)) or 1
    bar = Column[Any](
        "live_bar", "live over the steps", lambda row: _live(row) / most, words.bar, rank, right=False, drawn=True
    )
    place = 1 + next(index for index, column in enumerate(chosen) if column.key == "step")
    return [*chosen[:place], bar, *chosen[place:]]


_of_memory_alone = kept(KEPT)(partial(_of_memory, rank=0))
_of_memory_compared = kept(KEPT)(partial(_of_memory, rank=LAST_TO_GO["bytes_live"] + 2 * AFTER))
"""Without and with the difference from A, which has its place before the bar."""


def operands(shown: Shown, screen: Screen) -> list[Line]:
    """Return the roofline of a timed report; without times, the FLOPs for each byte of every step."""
    if shown.report.time:
        above = [Line(line) for line in roofline(shown.report, screen)]
    else:
        above = folded("t measures the steps and draws them against the roofline of this machine.", screen)
    return [*above, plain("", screen), *_compared(shown, screen, _of_operands)]


@kept(KEPT)
def _of_operands(report: Report) -> Columns:
    found = [column for column in step_columns(replace(report, focus=["roofline"])) if column.key in OPERANDS]
    chosen = [replace(column, rank=min(column.rank, MOST_RANK)) for column in found if column.rank is not None]
    intensity = Column[Any]("intensity", "FLOP/B", _intensity, _decimals, 0)
    return chosen if report.peaks else [*chosen, intensity]


OPERANDS = (
    *("part", "step", "flops", "other_flops", "bytes_read", "bytes_written"),
    *("time_s", "intensity", "bound_s", "over_bound", "bound_by"),
)
"""Columns of the roofline; those of the second line only in a timed report."""
MOST_RANK = 2
"""The highest rank of these columns."""


def _compared(
    shown: Shown,
    screen: Screen,
    columns_of: Callable[[Report], Columns],
    style: Callable[[Any], str] = lambda row: "",
    rows_of: Callable[[Report], Sequence[Any]] = lambda report: report.steps,
) -> list[Line]:
    """Return a table with the differences from A, and with marks of what changed since the state before."""
    report, rows = shown.report, rows_of(shown.report)
    columns = columns_of(report)
    notes: list[Line] = []
    pinned, before = shown.pinned, shown.before
    if pinned is not None and rows_of(pinned):
        columns = with_differences(columns, rows, columns_of(pinned), rows_of(pinned))
        gone = only_in(rows, rows_of(pinned))
        notes = folded(f"Δ is B − A; A is {pinned.command}", screen, "dim")
        notes += folded(f"only in A: {', '.join(gone)}", screen, "dim") if gone else []
    columns, _ = fit(columns, rows, screen)  # before marks are looked for in them
    if before is not None and rows_of(before):
        columns = marked(columns, rows, columns_of(before), rows_of(before))
    return [*table(columns, rows, screen, topic_of, style), *notes]


def topic_of(row: StepRow | PartRow) -> str:
    """Return what explains a row: its meaning, its reason, its shapes and its exact counts."""
    if isinstance(row, PartRow):
        said = [row.name, f"output {', '.join(map(spell, row.outputs))}", f"in the module {row.path or 'itself'}"]
    else:
        said = [
            f"{row.name}: {row.doc}",
            row.why,
            row.pattern,
            f"input {shapes(row.inputs)}",
            f"output {shapes(row.outputs)}",
        ]
    counts = {"MACs": row.macs, "FLOPs": row.flops, "elementwise FLOPs": row.other_flops, "parameters": row.params}
    said += [f"{count:,} {name}" for name, count in counts.items()]
    if row.times > 1 and isinstance(row, StepRow):
        said.append(f"{row.times} identical steps; the counts are those of one")
    return "\n".join(filled(said))


def filled(said: Iterable[str]) -> list[str]:
    """Return the texts that are not empty."""
    return [words for words in said if words]


def _live(row: StepRow) -> int:
    return row.bytes_live_at_least or 0


def _intensity(row: StepRow) -> float | None:
    moved = row.bytes_read + row.bytes_written
    return (row.flops + row.other_flops) / moved if moved else None


def _decimals(value: float | None) -> str:
    return words.NONE if value is None else f"{value:.1f}"
