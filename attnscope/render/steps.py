"""Columns of a Report's steps."""

from dataclasses import replace
from itertools import pairwise

from attnscope.core.axes import Shape, spell
from attnscope.render import words
from attnscope.render.columns import SHARE_OF_MACS, SHARE_OF_TIME, Column, adding_up
from attnscope.render.held import LAST_TO_GO, held_column, lower_bounds
from attnscope.reports.report import Report, StepRow

Of = Column[StepRow]


def step_columns(report: Report) -> list[Of]:
    """Return the columns for which this report has values, in their order on the screen."""
    groups = (_places(report), _work(report), _memory(report), _times(report), _bounds(report), _backward(report))
    columns = adding_up([column for group in groups for column in group], lambda row: row.times)
    doc = Of("doc", "what it means", lambda row: row.doc, rank=14, right=False)
    return [*columns, doc, *lower_bounds(columns)]


def _places(report: Report) -> list[Of]:
    """Return the columns of a step and its place; if a network has several parts, the part is first."""
    rows = report.steps
    first = {id(rows[0])} | {id(row) for before, row in pairwise(rows) if before.part != row.part}
    several = len(first) > 1
    step = [
        Of("step", "step", lambda row: row.name, rank=0, total=f"{len(rows)} steps", right=False, text=_name),
        Of("times", "times", lambda row: row.times, rank=None),
    ]
    part = [
        Of(
            "stage",
            "stage",
            lambda row: row.stage,
            rank=2 if len({row.stage for row in rows} - {None}) > 1 else None,
            text=lambda row: str(row.stage or "") if id(row) in first else "",
        ),
        Of(
            "part",
            "part",
            lambda row: row.part,
            rank=0 if several else None,
            right=False,
            text=lambda row: row.part if id(row) in first else "",
        ),
    ]
    return [
        *([*part, *step] if several else [*step, *part]),
        Of("path", "path", lambda row: row.path, rank=None, right=False),
    ]


def _work(report: Report) -> list[Of]:
    """Return the columns of shapes and of their costs."""
    totals = report.totals
    most = max(row.times * row.macs for row in report.steps) or 1
    bar = Of("macs_bar", "", lambda row: row.times * row.macs / most, words.bar, 5, right=False, drawn=True)
    return [
        Of("letters", "letters", lambda row: row.pattern, rank=8, right=False),
        Of("inputs", "input shape", lambda row: shapes(row.inputs), rank=15, right=False),
        Of("outputs", "output shape", lambda row: shapes(row.outputs), rank=1, right=False),
        Of("macs", "MACs", lambda row: row.macs, words.metric, 0, totals.macs),
        Of("macs_share", SHARE_OF_MACS, lambda row: _macs_share(row, report), words.percent, 4),
        *([] if report.time else [bar]),
        Of("flops", "FLOPs", lambda row: row.flops, words.metric, 12, totals.flops),
        Of("other_flops", "elementwise", lambda row: row.other_flops, words.metric, 7, totals.other_flops),
        Of("params", "params", lambda row: row.params, words.metric, 6, totals.params),
    ]


def _memory(report: Report) -> list[Of]:
    """Return the columns of memory traffic and of memory; without --memory, some are in CSV only."""
    rows, totals, in_focus = report.steps, report.totals, "memory" in report.focus
    saved = 3 if report.backward else None
    ranks = LAST_TO_GO if in_focus else {"bytes_live": 9, "bytes_saved": saved}
    columns = [
        Of("bytes_read", "read", lambda row: row.bytes_read, words.binary, 10, totals.bytes_read),
        Of("bytes_written", "written", lambda row: row.bytes_written, words.binary, 11, totals.bytes_written),
        held_column("bytes_live", "live", ranks["bytes_live"], totals, "peak_bytes"),
        held_column("bytes_training", "training", ranks.get("bytes_training"), totals, "training_peak_bytes"),
        held_column("bytes_backward", "bwd live", ranks.get("bytes_backward"), totals, "backward_peak_bytes"),
        held_column("bytes_saved", "saved", ranks["bytes_saved"], totals, "kept_bytes", "bytes_saved_together"),
    ]
    if any(row.bytes_allocated is not None for row in rows):
        columns.append(
            Of("bytes_allocated", "allocator", lambda row: row.bytes_allocated, words.binary, 2 if in_focus else 9)
        )
    return columns


def _times(report: Report) -> list[Of]:
    """Return the columns of measured times."""
    if not report.time:
        return []
    longest = max(map(seconds_of, report.steps)) or 1.0
    return [
        Of(
            "time_s",
            "time",
            lambda row: row.time.interquartile_mean_s if row.time else None,
            words.seconds,
            0,
            report.time.steps_sum_s,
            text=lambda row: _if_view_on_gpu("view", row, report),
        ),
        Of(
            "time_share",
            SHARE_OF_TIME,
            lambda row: _time_share(row, report),
            words.percent,
            2,
            text=lambda row: _if_view_on_gpu(words.NONE, row, report),
        ),
        Of(
            "time_bar",
            "",
            lambda row: seconds_of(row) / longest,
            words.bar,
            3,
            right=False,
            drawn=True,
            text=lambda row: _if_view_on_gpu("", row, report),
        ),
        Of("iqr_s", "IQR", lambda row: row.time.iqr_s if row.time else None, words.seconds, 13),
        Of("macs_per_s", "MAC/s", _rate, words.metric, 5),
    ]


def _bounds(report: Report) -> list[Of]:
    """Return the columns of the roofline lower bound and of the best time of the kernels alone."""
    if not report.peaks:
        return []
    in_focus = "roofline" in report.focus
    intensity, ratio, limit, warm, cold = (1, 0, 1, 1, 1) if in_focus else (17, 8, 9, 16, 16)
    columns = [
        Of("intensity", "FLOP/B", lambda row: row.roofline.intensity if row.roofline else None, _intensity, intensity),
        Of("bound_s", "bound", lambda row: row.roofline.seconds if row.roofline else None, words.seconds, 16),
        Of("over_bound", "time/bound", over_bound, words.times, ratio),
        Of("bound_by", "bound by", lambda row: row.roofline.binds if row.roofline else None, _word, limit, right=False),
        Of("alone_s", "alone", lambda row: row.alone.warm_s if row.alone else None, words.seconds, warm),
    ]
    if any(row.alone and row.alone.cold_s for row in report.steps):
        columns.append(
            Of("alone_cold_s", "cold", lambda row: row.alone.cold_s if row.alone else None, words.seconds, cold)
        )
    bounded = [replace(column, text=lambda row: words.NONE if row.roofline is None else None) for column in columns[:4]]
    kernels = [replace(column, text=lambda row: words.NONE if row.alone is None else None) for column in columns[4:]]
    return [*bounded, *kernels]


def _backward(report: Report) -> list[Of]:
    """Return the columns of the backward."""
    back = report.backward
    if not back:
        return []
    columns = [Of("backward_macs", "bwd MACs", _backward_macs, words.metric, 1, back.macs)]
    if back.time:
        columns.append(Of("backward_s", "bwd time", _backward_s, words.seconds, 1, back.time.steps_sum_s))
    return columns


def _if_view_on_gpu(word: str, row: StepRow, report: Report) -> str | None:
    """Return the word for a view on a GPU, which launches no kernel, so that its measured time is meaningless."""
    on_gpu = report.environment.get("device", "cpu") != "cpu"
    return word if on_gpu and row.time and not row.bytes_read + row.bytes_written else None


def over_bound(row: StepRow) -> float | None:
    """Return the time of a step over its roofline lower bound; None if one of them is unknown."""
    return row.time.interquartile_mean_s / row.roofline.seconds if row.time and row.roofline else None


def _intensity(flops_per_byte: float | None) -> str:
    return words.NONE if flops_per_byte is None else f"{flops_per_byte:.1f}"


def _word(word: str | None) -> str:
    return word or words.UNKNOWN


def _backward_macs(row: StepRow) -> int | None:
    return row.backward.macs_together if row.backward else None


def _backward_s(row: StepRow) -> float | None:
    """Return the time of a step's backward; 0 for a step without a backward."""
    return row.backward.time.interquartile_mean_s if row.backward and row.backward.time else 0.0


def seconds_of(row: StepRow) -> float:
    """Return the time of a row, all of its identical steps together; 0 if it was not measured."""
    return row.times * row.time.interquartile_mean_s if row.time else 0.0


def weight(row: StepRow) -> float:
    """Return the weight of a row in a ranking: its time, or its MACs if it was not measured."""
    return seconds_of(row) if row.time else row.times * row.macs


def where(row: StepRow) -> str:
    """Return a step and its place in a network: `gelu (SW-MSA block of stage 3)`."""
    stage = "" if row.stage is None else f" of stage {row.stage}"
    return f"{row.name} ({row.part}{stage})" if row.part else row.name


def _name(row: StepRow) -> str:
    return f"{row.name} ×{row.times}" if row.times > 1 else row.name


def shapes(shapes: list[Shape]) -> str:
    """Return the shapes, separated by commas, or `3 of 64×3×49×32` if all are equal."""
    if len(set(map(tuple, shapes))) == 1 and len(shapes) > 1:
        return f"{len(shapes)} of {spell(shapes[0])}"
    return ", ".join(map(spell, shapes))


def _macs_share(row: StepRow, report: Report) -> float:
    return row.macs * row.times / report.totals.macs if report.totals.macs else 0


def _time_share(row: StepRow, report: Report) -> float | None:
    return report.time.share_of_steps(seconds_of(row)) if row.time and report.time else None


def _rate(row: StepRow) -> float | None:
    return row.macs / row.time.interquartile_mean_s if row.time and row.macs and row.time.interquartile_mean_s else 0
