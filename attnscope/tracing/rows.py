"""Build the rows and totals of a TraceReport, and the list of operators that no formula counts."""

from collections.abc import Mapping, Sequence

from attnscope.core.optional import most, sum_of
from attnscope.reports.outline import MODULE
from attnscope.reports.report import CallRow, StepBackward, Totals, Uncounted
from attnscope.tracing.backward import BackwardMacs, exactly
from attnscope.tracing.calls import Call, Watched
from attnscope.tracing.costs import COUNTS
from attnscope.tracing.folding import Row
from attnscope.tracing.source_lines import spell_line, text_of
from attnscope.tracing.times import CallTimes


def call_row(
    row: Row,
    calls: Sequence[Call],
    times: CallTimes,
    classes: Mapping[str, str],
    backward: Sequence[BackwardMacs] | None = None,
) -> CallRow:
    """Build a row of the report.

    Its costs are those of one instance, and its time is the mean over all instances. `new_params` is the sum over them.

    Args:
        row: the calls that it represents.
        calls: all calls of the forward.
        times: the times of these calls.
        classes: the class of each module, by its path.
        backward: the MACs of the backward of each call; None if they were not requested.
    """
    first = [calls[index] for index in row.instances[0]]
    together = [calls[index] for instance in row.instances for index in instance]
    live = max(call.bytes_live for call in together)
    within = _classes(row, first[0], classes)
    kind = (row.kind or within[-1]) if row.represents == MODULE else ""
    macs = _count(first, "macs")
    sources = {(call.file, call.line) for call in first}
    file, line = sources.pop() if len(sources) == 1 else (None, None)
    return CallRow(
        name=kind or row.name,
        path=row.path,
        doc="",
        pattern="",
        inputs=first[0].inputs if row.inputs is None else row.inputs,
        outputs=first[-1].outputs if row.outputs is None else row.outputs,
        macs=macs,
        flops=None if macs is None else 2 * macs,
        other_flops=_count(first, "other_flops"),
        params=sum(call.params for call in first),
        new_params=sum(call.new_params for call in together),
        bytes_read=_count(first, "bytes_read"),
        bytes_written=_count(first, "bytes_written"),
        bytes_saved=None,
        bytes_live=live if all("bytes_live" not in call.unknown for call in together) else None,
        bytes_live_at_least=live,
        time=times.of([index for instance in row.instances for index in instance], len(row.instances)),
        times=len(row.instances),
        op=row.op,
        module=kind or _module_of(first),
        source=spell_line(file, line) if file else None,
        code=text_of(file, line) if file else "",
        calls=len(first),
        represents=row.represents,
        classes=within,
        uncounted=sorted({op for call in first for op in call.uncounted}),
        backward=_backward(row, backward) if backward is not None else None,
        macs_at_least=sum(call.macs for call in first),
        flops_at_least=2 * sum(call.macs for call in first),
        other_flops_at_least=sum(call.other_flops for call in first),
        bytes_read_at_least=sum(call.bytes_read for call in first),
        bytes_written_at_least=sum(call.bytes_written for call in first),
    )


def _backward(row: Row, backward: Sequence[BackwardMacs]) -> StepBackward:
    """Return the costs of the backward of a row."""
    instances = [sum((backward[index] for index in instance), exactly(0)) for instance in row.instances]
    together = sum(instances, exactly(0))
    return StepBackward(most([each.macs for each in instances]), None, together.macs, together.at_least)


def _classes(row: Row, first: Call, classes: Mapping[str, str]) -> list[str]:
    """Return the class of each module on the path of a row, for its first call; "" if it is unknown."""
    if not row.path:
        return []
    parts = first.path.split(".")[: row.path.count(".") + 1]
    ran: dict[str, str] = {}
    visit = first.visit
    while visit is not None:
        ran[visit.path] = visit.kind
        visit = visit.caller
    paths = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
    return [ran.get(path) or classes.get(path, "") for path in paths]


def _module_of(calls: Sequence[Call]) -> str:
    """Return the class of the module that makes these calls; "" if several do."""
    classes = {call.module for call in calls}
    return classes.pop() if len(classes) == 1 else ""


def _count(calls: Sequence[Call], name: str) -> int | None:
    """Return the sum of a count over calls; None if it is unknown for one of them."""
    return sum_of([None if name in call.unknown else getattr(call, name) for call in calls])


def totals(watched: Watched, params: int) -> Totals:
    """Return the sums over all calls, without the operators that no formula counts, which `uncounted` lists.

    The sums are lower bounds if a call has unknown counts.
    """
    macs, other_flops, bytes_read, bytes_written = (
        sum(getattr(call, name) for call in watched.calls) for name in COUNTS
    )
    return Totals(
        macs=macs,
        flops=2 * macs,
        other_flops=other_flops,
        params=params,
        bytes_read=bytes_read,
        bytes_written=bytes_written,
        peak_bytes=watched.peak_bytes if watched.peak_is_known else None,
        peak_bytes_at_least=watched.peak_bytes,
    )


def uncounted(calls: Sequence[Call]) -> list[Uncounted]:
    """Return the operators without a formula, each with the number of its runs and the calls in which it ran."""
    places: dict[str, list[str]] = {}
    for call in calls:
        for op in call.uncounted:
            places.setdefault(op, []).append(f"{call.path}: {call.name}" if call.path else call.name)
    return [Uncounted(op, len(within), list(dict.fromkeys(within))) for op, within in places.items()]
