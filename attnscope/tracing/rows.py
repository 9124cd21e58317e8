"""Build the rows and totals of a TraceReport, and the list of operators that no formula counts."""

from collections.abc import Mapping, Sequence

from attnscope.core.optional import sum_of
from attnscope.reports.report import CallRow, Totals, Uncounted
from attnscope.tracing.calls import Call, Watched
from attnscope.tracing.folding import Row
from attnscope.tracing.source_lines import spell_line, text_of
from attnscope.tracing.times import CallTimes


def call_row(row: Row, calls: Sequence[Call], times: CallTimes, classes: Mapping[str, str]) -> CallRow:
    """Build a row of the report. Its costs are those of one instance, and its time is the mean over all instances.

    Args:
        row: the calls that it represents.
        calls: all calls of the forward.
        times: the times of these calls.
        classes: the class of each module, by its path.
    """
    first = [calls[index] for index in row.instances[0]]
    one = first[0] if len(first) == 1 else None
    macs = sum_of([call.macs for call in first])
    sources = {(call.file, call.line) for call in first}
    file, line = sources.pop() if len(sources) == 1 else (None, None)
    return CallRow(
        name=one.name if one else classes.get(row.visited(calls)) or row.name,
        path=row.path,
        doc="",
        pattern="",
        inputs=first[0].inputs,
        outputs=first[-1].outputs,
        macs=macs,
        flops=None if macs is None else 2 * macs,
        other_flops=sum_of([call.other_flops for call in first]),
        params=sum(call.params for call in first),
        bytes_read=sum(call.bytes_read for call in first),
        bytes_written=sum(call.bytes_written for call in first),
        bytes_saved=None,
        bytes_live=max(calls[index].bytes_live for instance in row.instances for index in instance),
        time=times.of([index for instance in row.instances for index in instance], len(row.instances)),
        times=len(row.instances),
        op=one.name if one else "",
        module=row.module(calls) if one else classes.get(row.visited(calls), ""),
        source=spell_line(file, line) if file else None,
        code=text_of(file, line) if file else "",
        calls=len(first),
        uncounted=sorted({op for call in first for op in call.uncounted}),
    )


def totals(watched: Watched, params: int) -> Totals:
    """Return the sums over all calls, without the operators that no formula counts, which `uncounted` lists."""
    calls = watched.calls
    macs = sum(call.macs or 0 for call in calls)
    return Totals(
        macs=macs,
        flops=2 * macs,
        other_flops=sum(call.other_flops or 0 for call in calls),
        params=params,
        bytes_read=sum(call.bytes_read for call in calls),
        bytes_written=sum(call.bytes_written for call in calls),
        peak_bytes=watched.peak_bytes,
    )


def uncounted(calls: Sequence[Call]) -> list[Uncounted]:
    """Return the operators without a formula, each with the number of its runs and the calls in which it ran."""
    places: dict[str, list[str]] = {}
    for call in calls:
        for op in call.uncounted:
            places.setdefault(op, []).append(f"{call.path}: {call.name}" if call.path else call.name)
    return [Uncounted(op, len(within), list(dict.fromkeys(within))) for op, within in places.items()]
