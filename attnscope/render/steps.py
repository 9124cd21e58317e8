"""The columns of a Report's steps."""

from itertools import pairwise

from attnscope.axes import Shape, spell
from attnscope.render import words
from attnscope.render.columns import Column, sum_of
from attnscope.report import Report, StepRow


def step_columns(report: Report) -> list[Column[StepRow]]:
    """The columns that this report can fill, in their order on the screen."""
    rows = report.steps
    totals = report.totals
    columns = [
        Column[StepRow]("step", "step", _name, rank=0, total=f"{len(rows)} steps", right=False),
        Column[StepRow]("path", "path", lambda row: row.path, rank=None, right=False),
        Column[StepRow]("letters", "letters", lambda row: row.pattern, rank=8, right=False),
        Column[StepRow]("inputs", "input shape", lambda row: shapes(row.inputs), rank=15, right=False),
        Column[StepRow]("outputs", "output shape", lambda row: shapes(row.outputs), rank=1, right=False),
        Column[StepRow]("macs", "MACs", lambda row: row.macs, words.metric, 0, totals.macs),
        Column[StepRow]("macs_share", "share", lambda row: _macs_share(row, report), words.percent, 4),
        Column[StepRow]("flops", "FLOPs", lambda row: row.flops, words.metric, 12, totals.flops),
        Column[StepRow]("other_flops", "elementwise", lambda row: row.other_flops, words.metric, 7, totals.other_flops),
        Column[StepRow]("params", "params", lambda row: row.params, words.metric, 6, totals.params),
        Column[StepRow]("bytes_read", "read", lambda row: row.bytes_read, words.binary, 10, totals.bytes_read),
        Column[StepRow](
            "bytes_written", "written", lambda row: row.bytes_written, words.binary, 11, totals.bytes_written
        ),
        Column[StepRow]("bytes_live", "live", lambda row: row.bytes_live, words.binary, 9, totals.peak_bytes),
    ]
    if report.time:
        seconds = sum_of([row.times * row.time.median_s if row.time else None for row in rows])
        longest = max(map(seconds_of, rows))
        columns += [
            Column[StepRow](
                "time_s", "time", lambda row: row.time.median_s if row.time else None, words.seconds, 0, seconds
            ),
            Column[StepRow]("time_share", "share", lambda row: _time_share(row, report), words.percent, 2),
            Column[StepRow](
                "time_bar", "", lambda row: seconds_of(row) / longest, words.bar, 3, right=False, drawn=True
            ),
            Column[StepRow]("iqr_s", "IQR", lambda row: row.time.iqr_s if row.time else None, words.seconds, 13),
            Column[StepRow]("macs_per_s", "MAC/s", _rate, words.metric, 5),
        ]
    if len({row.part for row in rows}) > 1:
        first = {id(rows[0])} | {id(row) for before, row in pairwise(rows) if before.part != row.part}
        columns.insert(0, Column[StepRow]("part", "part", lambda row: row.part, rank=None, right=False))
        columns.insert(
            0,
            Column[StepRow](
                "part_drawn", "part", lambda row: row.part if id(row) in first else "", rank=0, right=False, drawn=True
            ),
        )
    if any(row.times > 1 for row in rows):
        columns.append(Column[StepRow]("times", "times", lambda row: row.times, rank=None))
    return [*columns, Column[StepRow]("doc", "what it means", lambda row: row.doc, rank=14, right=False)]


def seconds_of(row: StepRow) -> float:
    """How long all that a row stands for takes; 0 where it was not measured."""
    return row.times * row.time.median_s if row.time else 0.0


def weight(row: StepRow) -> float:
    """What a row is ranked by: its time, or its MACs where nothing was measured."""
    return seconds_of(row) if row.time else row.times * row.macs


def _name(row: StepRow) -> str:
    return f"{row.name} ×{row.times}" if row.times > 1 else row.name


def shapes(shapes: list[Shape]) -> str:
    """`3 of 64×3×49×32` where all are alike."""
    if len(set(map(tuple, shapes))) == 1 and len(shapes) > 1:
        return f"{len(shapes)} of {spell(shapes[0])}"
    return ", ".join(map(spell, shapes))


def _macs_share(row: StepRow, report: Report) -> float:
    return row.macs * row.times / report.totals.macs if report.totals.macs else 0


def _time_share(row: StepRow, report: Report) -> float | None:
    return seconds_of(row) / report.time.steps_sum_s if row.time and report.time else None


def _rate(row: StepRow) -> float | None:
    return row.macs / row.time.median_s if row.time and row.macs and row.time.median_s else 0
