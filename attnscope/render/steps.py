"""The columns of a Report's steps."""

from itertools import pairwise

from attnscope.axes import Shape, spell
from attnscope.known import sum_of
from attnscope.render import words
from attnscope.render.columns import Column, adding_up
from attnscope.report import Report, StepRow


def step_columns(report: Report) -> list[Column[StepRow]]:
    """The columns that this report can fill, in their order on the screen."""
    rows = report.steps
    totals = report.totals
    memory, roof = "memory" in report.focus, "roofline" in report.focus
    columns = [
        Column[StepRow](
            "step", "step", lambda row: row.name, rank=0, total=f"{len(rows)} steps", right=False, text=_name
        ),
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
        Column[StepRow](
            "bytes_live", "live", lambda row: row.bytes_live, words.binary, 1 if memory else 9, totals.peak_bytes
        ),
    ]
    held = 1 if memory else None  # what is not asked for is in CSV alone
    columns += [
        Column[StepRow](
            "bytes_training",
            "training",
            lambda row: row.bytes_training,
            words.binary,
            held,
            totals.training_peak_bytes,
        ),
        Column[StepRow](
            "bytes_backward",
            "bwd live",
            lambda row: row.bytes_backward,
            words.binary,
            held,
            totals.backward_peak_bytes,
        ),
        Column[StepRow](
            "bytes_saved",
            "kept",
            lambda row: row.bytes_saved_together,
            words.binary,
            held or (3 if report.backward else None),
            totals.kept_bytes,
        ),
    ]
    if any(row.bytes_allocated is not None for row in rows):
        columns.append(
            Column[StepRow](
                "bytes_allocated", "allocator", lambda row: row.bytes_allocated, words.binary, 9 - 7 * memory
            )
        )
    if report.time:
        seconds = sum_of([row.times * row.time.median_s if row.time else None for row in rows])
        longest = max(map(seconds_of, rows))
        columns += [
            Column[StepRow](
                "time_s",
                "time",
                lambda row: row.time.median_s if row.time else None,
                words.seconds,
                0,
                seconds,
                text=lambda row: _view_on_gpu(row, report),
            ),
            Column[StepRow]("time_share", "share", lambda row: _time_share(row, report), words.percent, 2),
            Column[StepRow](
                "time_bar", "", lambda row: seconds_of(row) / longest, words.bar, 3, right=False, drawn=True
            ),
            Column[StepRow]("iqr_s", "IQR", lambda row: row.time.iqr_s if row.time else None, words.seconds, 13),
            Column[StepRow]("macs_per_s", "MAC/s", _rate, words.metric, 5),
        ]
    first = {id(rows[0])} | {id(row) for before, row in pairwise(rows) if before.part != row.part}
    told = [
        Column[StepRow]("stage", "stage", lambda row: row.stage, rank=None),
        Column[StepRow](
            "part",
            "part",
            lambda row: row.part,
            rank=0 if len(first) > 1 else None,
            right=False,
            text=lambda row: row.part if id(row) in first else "",
        ),
    ]
    step, *others = columns
    columns = [*told, step, *others] if len(first) > 1 else [step, *told, *others]
    if report.peaks:
        columns += [
            Column[StepRow](
                "intensity",
                "FLOP/B",
                lambda row: row.bound.intensity if row.bound else None,
                _intensity,
                1 if roof else 17,
            ),
            Column[StepRow](
                "bound_s", "bound", lambda row: row.bound.seconds if row.bound else None, words.seconds, 16
            ),
            Column[StepRow]("over_bound", "time/bound", _over_bound, _times, 1 if roof else 8),
            Column[StepRow](
                "bound_by",
                "bound by",
                lambda row: row.bound.binds if row.bound else None,
                _word,
                2 if roof else 9,
                right=False,
            ),
        ]
    if report.backward:
        back = report.backward
        columns.append(Column[StepRow]("backward_macs", "bwd MACs", _backward_macs, words.metric, 1, back.macs))
        if back.time:
            seconds_back = sum(
                row.times * row.backward.time.median_s for row in rows if row.backward and row.backward.time
            )
            columns.append(Column[StepRow]("backward_s", "bwd time", _backward_s, words.seconds, 1, seconds_back))
    columns = adding_up(columns, lambda row: row.times)
    name = next(index for index, column in enumerate(columns) if column.key == "step")
    columns.insert(name + 1, Column[StepRow]("times", "times", lambda row: row.times, rank=None))
    return [*columns, Column[StepRow]("doc", "what it means", lambda row: row.doc, rank=14, right=False)]


def _view_on_gpu(row: StepRow, report: Report) -> str | None:
    """On a GPU a view launches nothing: what stands between its stamps is no time of its own."""
    on_gpu = report.environment.get("device", "cpu") != "cpu"
    return "view" if on_gpu and row.time and not row.bytes_read + row.bytes_written else None


def _over_bound(row: StepRow) -> float | None:
    return row.time.median_s / row.bound.seconds if row.time and row.bound else None


def _times(ratio: float | None) -> str:
    return words.UNKNOWN if ratio is None else words.times(ratio)


def _intensity(flops_per_byte: float | None) -> str:
    return words.NONE if flops_per_byte is None else f"{flops_per_byte:.1f}"


def _word(word: str | None) -> str:
    return word or words.UNKNOWN


def _backward_macs(row: StepRow) -> int | None:
    return row.backward.macs_together if row.backward else None


def _backward_s(row: StepRow) -> float | None:
    """0 for a step through which nothing goes back."""
    return row.backward.time.median_s if row.backward and row.backward.time else 0.0


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
