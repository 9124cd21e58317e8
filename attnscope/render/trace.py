"""A traced third-party module on a screen: its calls as a tree of modules, its attentions, and the warnings."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from textwrap import wrap
from typing import Any, TypeVar

from rich.console import RenderableType
from rich.text import Text

from attnscope.core.axes import Shape
from attnscope.core.optional import sum_of
from attnscope.core.sizes import plural
from attnscope.render import words
from attnscope.render.columns import SHARE_OF_MACS, SHARE_OF_TIME, Column, Value, adding_up, fit, rows_table
from attnscope.render.details import cost_lines, environment_lines, timing_lines
from attnscope.render.explanation import column_lines
from attnscope.render.figure import figure_lines
from attnscope.render.held import lower_bounds
from attnscope.render.screen import LABELS, Labelled, Screen, labelled
from attnscope.render.steps import seconds_of, shapes
from attnscope.render.summary import backward_lines, held_words, quality_lines
from attnscope.reports.outline import outline
from attnscope.reports.report import AttentionFound, CallRow, StepBackward, StepTime, TraceReport, formula_values

INDENT = "  "
SUMMED = (
    *("macs", "flops", "other_flops", "bytes_read", "bytes_written"),
    *("macs_at_least", "flops_at_least", "other_flops_at_least", "bytes_read_at_least", "bytes_written_at_least"),
)
"""Counts of a row that a heading adds up."""
TOGETHER = frozenset({"params", "backward_macs"})
"""Columns whose values are the sums over all instances of a row."""
SHAPES = 2
"""Number of different output shapes on the screen; CSV has all."""
OUTSIDE = "outside your code"
MOST_LINES = 60
"""The largest number of lines on a terminal that describe all attentions with their costs."""
UNKNOWN = "attention of a kind that attnscope does not know: "
ROTATED = "q and k rotated (RoPE)"
CODE = 34
"""Columns of a source line on the screen; CSV has the whole line."""


Shown = TypeVar("Shown")


@dataclass(frozen=True)
class Line:
    """A line of the table: a row, or the heading of a module, which has no row.

    `counts` has what its columns show. `level` is the number of headings above it.
    """

    label: str
    row: CallRow | None
    counts: CallRow
    level: int = 0


def call_columns(report: TraceReport) -> list[Column[CallRow]]:
    """Return the columns of the CSV; each row has the sums over its identical calls."""
    totals = report.totals
    columns: list[Column[CallRow]] = [
        Column("call", "call", lambda row: row.name, total=plural(report.calls, "call"), right=False),
        Column("times", "count", lambda row: row.times),
        Column("calls", "calls", lambda row: row.calls, rank=None),
        Column("path", "module path", lambda row: row.path, rank=2, right=False),
        Column("module", "module", lambda row: row.module, rank=None, right=False),
        Column("source", "source", lambda row: row.source, _known, rank=3, right=False),
        Column("inputs", "input shape", lambda row: shapes(row.inputs), rank=None, right=False),
        Column("outputs", "output shape", lambda row: shapes(row.outputs), right=False),
        Column("macs", "MACs", lambda row: row.macs, words.metric, 0, totals.macs),
        Column("flops", "FLOPs", lambda row: row.flops, words.metric, 12, totals.flops),
        Column("other_flops", "elementwise", lambda row: row.other_flops, words.metric, 7, totals.other_flops),
        Column("params", "params", lambda row: row.new_params, words.metric, 6, _used_params(report)),
        Column("bytes_read", "read", lambda row: row.bytes_read, words.binary, 10, totals.bytes_read),
        Column("bytes_written", "written", lambda row: row.bytes_written, words.binary, 11, totals.bytes_written),
        Column("bytes_live", "live", lambda row: row.bytes_live, words.binary, 9, totals.peak_bytes),
    ]
    if report.time:
        columns += [
            Column(
                "time_s",
                "time",
                lambda row: row.time.interquartile_mean_s if row.time else None,
                words.seconds,
                0,
                report.time.steps_sum_s,
            ),
            Column("iqr_s", "IQR", lambda row: row.time.iqr_s if row.time else None, words.seconds, 13),
        ]
    if report.backward:
        columns.append(
            Column("backward_macs", "bwd MACs", lambda row: row.backward_macs, words.metric, 1, _back(report))
        )
    columns = _summed(_bounded(columns, report, lambda row: row), lambda row: row.times)
    return [
        *columns,
        *lower_bounds(columns),
        Column("code", "code", lambda row: row.code, rank=None, right=False),
        Column("uncounted", "uncounted", lambda row: " ".join(row.uncounted), rank=None, right=False),
    ]


def trace_parts(report: TraceReport, screen: Screen) -> list[RenderableType]:
    """Return headline, table, hidden columns, and the lines below."""
    table_lines = list(lines_of(report))
    columns, dropped = fit(line_columns(report), table_lines, screen)
    heaviest = max(report.steps, key=_weight, default=None)

    def style(line: Line) -> str:
        if line.row is None:
            return "bold"
        return "bold cyan" if line.row is heaviest else "" if line.row.macs or line.row.macs is None else "dim"

    parts: list[RenderableType] = [screen.headline(report.title), Text("")]
    parts.append(rows_table(columns, table_lines, screen, style))
    parts += screen.hidden(dropped)
    if "explain" in report.focus:
        parts += [Text(""), screen.headline("Columns"), screen.lines(column_lines(columns))]
    return [*parts, Text(""), screen.lines(lines_below(report, screen))]


def line_columns(report: TraceReport) -> list[Column[Line]]:
    """Return the columns of the screen; the heading of a module has the sums of the rows below it."""
    totals, by_line = report.totals, report.group == "line"

    def of(key: str) -> Callable[[Line], Value]:
        return lambda line: getattr(line.counts, key)

    def share(line: Line) -> float | None:
        return _macs_share(line.counts, report)

    def time(line: Line) -> float | None:
        return line.counts.time.interquartile_mean_s if line.counts.time else None

    def time_share(line: Line) -> float | None:
        return report.time.share_of_steps(seconds_of(line.counts)) if report.time and line.counts.time else None

    def params_share(line: Line) -> float:
        return line.counts.new_params / totals.params if totals.params else 0.0

    columns: list[Column[Line]] = [
        Column("call", "call", lambda line: line.label, total=plural(report.calls, "call"), right=False, is_long=True),
        Column(
            "outputs",
            "output shape",
            lambda line: _few_shapes(line.counts.outputs),
            rank=6 if by_line else 1,
            right=False,
        ),
        Column("macs", "MACs", of("macs"), words.metric, 0, totals.macs),
        Column("macs_share", SHARE_OF_MACS, share, words.percent, 3),
    ]
    if report.time:
        longest = max(map(seconds_of, report.steps), default=0.0) or 1.0
        columns += [
            Column("time_s", "time", time, words.seconds, 0, report.time.steps_sum_s),
            Column("time_share", SHARE_OF_TIME, time_share, words.percent, 2),
            Column(
                "time_bar",
                "",
                lambda line: seconds_of(line.row) / longest if line.row else 0.0,
                words.bar,
                4,
                right=False,
                drawn=True,
            ),
        ]
    if report.backward:
        columns.append(Column("backward_macs", "bwd MACs", of("backward_macs"), words.metric, 1, _back(report)))
    columns += [
        Column("source", "source", of("source"), _known, 15 if by_line else 4, right=False),
        Column("params", "params", of("new_params"), words.metric, 3.5, _used_params(report)),
        Column("params_share", "% params", params_share, words.percent, 9.5),
        Column("other_flops", "elementwise", of("other_flops"), words.metric, 7, totals.other_flops),
        Column("bytes_live", "live", of("bytes_live"), words.binary, 9, totals.peak_bytes),
        Column("bytes_read", "read", of("bytes_read"), words.binary, 10, totals.bytes_read),
        Column("bytes_written", "written", of("bytes_written"), words.binary, 11, totals.bytes_written),
        Column("flops", "FLOPs", of("flops"), words.metric, 12, totals.flops),
        Column("code", "code", of("code"), _clipped, 2 if by_line else 14, right=False),
    ]
    columns = _bounded(columns, report, lambda line: line.counts)
    return _summed(columns, lambda line: line.counts.times)


def _summed(columns: Sequence[Column[Shown]], times: Callable[[Shown], int]) -> list[Column[Shown]]:
    """Return columns that add up to their foots. Some are sums over all instances already."""
    summed = adding_up(columns, times)
    return [column if column.key in TOGETHER else sums for column, sums in zip(columns, summed, strict=True)]


def _back(report: TraceReport) -> int | None:
    return report.backward.macs_at_least if report.backward else None


def _used_params(report: TraceReport) -> int:
    return report.totals.params - report.unused_params


def _bounded(
    columns: Sequence[Column[Shown]], report: TraceReport, row_of: Callable[[Shown], CallRow]
) -> list[Column[Shown]]:
    """Add lower bounds to the columns of counts; the total of a column with an unknown count is a lower bound too."""

    def bounded(column: Column[Shown]) -> Column[Shown]:
        key = f"{column.key}_at_least"
        if not hasattr(CallRow, key):
            return column
        is_known = column.total is not None and all(getattr(row, column.key) is not None for row in report.steps)
        total = report.totals.peak_bytes_at_least if column.key == "bytes_live" else column.total
        return replace(
            column,
            at_least=lambda shown: getattr(row_of(shown), key),
            total=column.total if is_known else None,
            total_at_least=None if is_known else total,
        )

    return [bounded(column) for column in columns]


def lines_of(report: TraceReport) -> Iterator[Line]:
    """Yield the rows below the headings of their modules; a module with a single row shares its line."""
    if report.group != "module":
        for row in report.steps:
            yield Line(_flat_label(row, report.group), row, row)
        return
    if report.sort:
        for row in report.steps:
            repeats = f" ×{row.times}" if row.times > 1 else ""
            yield Line(f"{_label(row, row.path)}{repeats}{_calls(row)}", row, row)
        return
    times: dict[tuple[str, ...], int] = {(): 1}
    for entry in outline(report.steps):
        here = min(row.times for row in entry.rows)
        around = times[entry.above]
        repeats = f" ×{here // around}" if here > around else ""
        indent = INDENT * entry.level
        if entry.is_heading:
            times[(*entry.above, *entry.path)] = here
            counts = _sum(entry.rows)
            kind = entry.rows[0].classes[len(entry.above) + len(entry.path) - 1 :][:1]
            yield Line(
                f"{indent}{' '.join(['.'.join(entry.path), *filter(None, kind)])}{repeats}", None, counts, entry.level
            )
        else:
            (row,) = entry.rows
            yield Line(f"{indent}{_label(row, '.'.join(entry.path))}{repeats}{_calls(row)}", row, row, entry.level)


def _flat_label(row: CallRow, group: str) -> str:
    """Return the name of a row by function, or by source line with its functions."""
    if row.name.startswith("…"):  # such a name has the number of calls
        return row.name
    line = [(row.source or OUTSIDE).split("/")[-1]] if group == "line" else []
    return " ".join([*line, row.name]) + (f" ×{row.calls}" if row.calls > 1 else "")


def _label(row: CallRow, path: str) -> str:
    """Return the path of a row below its heading, and its name: `fc linear`, `0–11 Block`."""
    return row.name if row.name == path else " ".join([*filter(None, [path]), row.name])


def _calls(row: CallRow) -> str:
    if row.calls == 1 or row.name.startswith("…"):  # such a name has the number of calls
        return ""
    return f" ({plural(row.calls, 'call')}{' each' if row.times > 1 else ''})"


def _sum(rows: Sequence[CallRow]) -> CallRow:
    """Return the counts of several rows together, as one row without shapes and source."""

    def total(key: str) -> int | None:
        return sum_of([None if (count := getattr(row, key)) is None else row.times * count for row in rows])

    sums: dict[str, Any] = {key: total(key) for key in SUMMED}
    times = [row.time.interquartile_mean_s * row.times for row in rows if row.time]
    live = max(row.bytes_live_at_least or 0 for row in rows)
    return replace(
        rows[0],
        **sums,
        new_params=sum(row.new_params for row in rows),
        bytes_live=None if any(row.bytes_live is None for row in rows) else live,
        bytes_live_at_least=live,
        outputs=[],
        source="",
        code="",
        times=1,
        time=StepTime(sum(times), 0.0, []) if times else None,
        backward=_backward(rows),
    )


def _backward(rows: Sequence[CallRow]) -> StepBackward | None:
    """Return the costs of the backward of several rows together; None if they were not requested."""
    backward = [row.backward for row in rows if row.backward]
    if not backward:
        return None
    macs = sum_of([each.macs_together for each in backward])
    return StepBackward(macs, None, macs, sum_of([each.macs_together_at_least for each in backward]))


def lines_below(report: TraceReport, screen: Screen) -> list[Labelled]:
    """Return label, text and style of each line below the table."""
    totals = report.totals
    at_least = "at least " if any(row.macs is None for row in report.steps) else ""
    macs = (
        f"{at_least}{totals.macs:,} MACs ({words.metric(totals.flops, 'FLOPs')}), by a formula for each torch operator"
    )
    lines: list[Labelled] = [("counts", macs, ""), *labelled("figure", figure_lines(report.figure))]
    for entry in report.uncounted:
        more = f" and {len(entry.within) - 2} more" if len(entry.within) > 2 else ""
        lines.append(("unknown", f"{entry.op}, {entry.calls}×, in {', '.join(entry.within[:2])}{more}", "yellow"))
    lines += labelled("backward", backward_lines(report))
    lines += _attention_lines(report, screen)
    others = len(report.other_softmaxes) - len(report.unused_softmaxes)
    if others:
        count = plural(others, "softmax")
        lines.append(("" if report.attentions else "attention", f"{count} not recognized as attention", ""))
    if report.comments.checked:
        right = report.comments.checked - len(report.comments.wrong)
        mark = "✓" if not report.comments.wrong else "✗"
        lines.append(("comments", f"{right} of {report.comments.checked} shape comments are right {mark}", ""))
    lines.append(("params", params_line(report), ""))
    peak = held_words(totals.peak_bytes, totals.peak_bytes_at_least)
    lines.append(("memory", f"{peak} peak activation memory, without workspaces of kernels", ""))
    if not report.time:
        lines.append(("run on", _where(report), ""))
    lines += [*labelled("note", [*_unused(report), *report.notes]), *quality_lines(report)]
    if "details" in report.focus:
        lines += [*labelled("work", cost_lines(report)), *labelled("runs", timing_lines(report))]
        lines += labelled("machine", environment_lines(report))
    return lines + screen.suggestion(*report.next)


def params_line(report: TraceReport) -> str:
    """Return the number of parameters and its split into trainable and frozen ones."""
    params, trainable = report.totals.params, report.trainable_params
    if trainable is None or not params:
        return f"{params:,} parameters"
    frozen = params - trainable
    share = f" ({words.rough_percent(frozen / params)})" if frozen else ""
    return f"{params:,} parameters: {trainable:,} trainable, {frozen:,} frozen{share}"


def _unused(report: TraceReport) -> list[str]:
    unused, params = report.unused_params, report.totals.params
    return [f"the forward does not use {unused:,} of the {params:,} parameters"] if unused else []


def _attention_lines(report: TraceReport, screen: Screen) -> list[Labelled]:
    """Return the lines of all attentions with their costs; on a terminal, a line for each if these are too many."""
    entries = [[attention_line(each), *(INDENT + line for line in attention_costs(each))] for each in report.attentions]
    lines = [line for entry in entries for line in entry]
    if screen.pages and screen.width is not None and "details" not in report.focus:
        room = max(screen.width - LABELS, 1)
        if sum(len(wrap(line, room)) for line in lines) > MOST_LINES:
            lines = [*_short_lines(report.attentions), "costs and formulas of each: --details"]
    return [("" if index else "attention", line, "") for index, line in enumerate(lines)]


def _short_lines(attentions: Iterable[AttentionFound]) -> list[str]:
    """Return a line for each attention, below what it shares with others: the path before a number, and its kind."""
    groups: dict[str, list[str]] = {}
    for found in attentions:
        above, below = _split_path(found.path)
        kind = ", ".join([found.kind, *([ROTATED] if found.is_rotated else [])])
        times = f" ×{found.times}" if found.times > 1 else ""
        spent = "" if found.core_s is None else f", {words.share_range(found.core_time_shares)} of the time"
        costs = f"{words.percent(found.core_macs_share)} of all MACs{spent}"
        line = f"{below}{times}: {', '.join(_sizes(found))}; {costs}"
        groups.setdefault(f"{above or 'here'}: {kind}", []).append(INDENT + line)
    return [line for heading, entries in groups.items() for line in (heading, *entries)]


def _split_path(path: str) -> tuple[str, str]:
    """Return the path before its first number, and the rest: `blocks` and `0.attn`."""
    names = path.split(".")
    place = next((place for place, name in enumerate(names) if name.isdigit()), len(names) - 1)
    return ".".join(names[:place]), ".".join(names[place:])


def attention_line(found: AttentionFound) -> str:
    """Return `blocks.0.attn and 11 more alike: global attention, N = 197, 12 heads of 64, fused`."""
    where = f"{found.path or 'here'} and {found.times - 1} more alike" if found.times > 1 else found.path or "here"
    rotated = [ROTATED] if found.is_rotated else []
    return f"{where}: {', '.join([*_sizes(found), *rotated, found.kind])}"


def _sizes(found: AttentionFound) -> list[str]:
    """Return the neighbourhood, the tokens and the heads of an attention."""
    heads = "heads unknown" if found.heads is None else f"{plural(found.heads, 'head')} of {found.head_dim}"
    unknown = UNKNOWN if found.scope == "predicted" else ""
    mask = [found.mask] if found.mask else []
    return [f"{unknown}{found.neighbourhood.words}", *mask, _tokens(found), heads]


def _tokens(found: AttentionFound) -> str:
    if found.scope == "channel":
        return f"{found.head_dim}×{found.head_dim} scores over N = {found.tokens}"
    if found.keys is None or (found.keys == found.tokens and found.scope != "cross"):
        return f"N = {found.tokens}"
    queries = "1 query" if found.tokens == 1 else f"{found.tokens} queries"
    return f"{queries}, {plural(found.keys or 0, 'key')}"


def attention_costs(found: AttentionFound) -> list[str]:
    """Return the shares of MACs and time, then the paper's formulas for one layer."""
    costs = []
    for name, macs, share, spent, shares in (
        ("q·kᵀ to weighted sum", found.core_macs, found.core_macs_share, found.core_s, found.core_time_shares),
        ("with its module", found.module_macs, found.module_macs_share, found.module_s, found.module_time_shares),
    ):
        time = f", {words.seconds(spent)}, {words.share_range(shares)} of the time" if spent is not None else ""
        costs.append(f"{name}: {words.metric(macs)} MACs, {words.percent(share)} of all{time}")
    if found.family:
        costs.append(f"the same as {found.family.command}: {found.family.words}")
    formulas = found.complexity
    costs += [f"{each.name} = {each.formula} = {each.macs:,} MACs" for each in formulas]
    if formulas:
        costs.append(f"with {formula_values(formulas)}")
    if len(formulas) == 2:
        ratio = formulas[0].macs / formulas[1].macs
        costs[-1] += f": {words.times(ratio)} fewer" if ratio >= 1 else f": {words.times(1 / ratio)} more"
    return costs


def _where(report: TraceReport) -> str:
    device = str(report.environment["device"])
    return "meta: shapes and costs, nothing was computed" if device == "meta" else device


def _macs_share(row: CallRow, report: TraceReport) -> float | None:
    if row.macs is None:
        return None
    return row.macs * row.times / report.totals.macs if report.totals.macs else 0


def _weight(row: CallRow) -> float:
    return seconds_of(row) if row.time else row.times * (row.macs or 0)


def _few_shapes(outputs: list[Shape]) -> str:
    kinds = shapes(outputs).split(", ")
    return ", ".join([*kinds[:SHAPES], *["…"] * (len(kinds) > SHAPES)])


def _clipped(code: str) -> str:
    return code if len(code) <= CODE else f"{code[: CODE - 1]}…"


def _known(value: str | None) -> str:
    return words.NONE if value is None else value
