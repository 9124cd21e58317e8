"""The peak rates of a machine on a screen, in CSV and in Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import RenderableType
from rich.text import Text

from attnscope.core.text import in_json, in_markdown
from attnscope.plan.peaks import Peaks
from attnscope.render import words
from attnscope.render.columns import Column, rows_table, to_csv, to_markdown
from attnscope.render.screen import Labelled, Screen

UNITS = {"matmul": "MAC/s", "softmax": "elements/s", "memory": "B/s", "call": "calls/s"}
"""The unit of each limit of a bound."""
UNTRUSTED = "other processes were busy, so this was not cached: use --threads 1, or wait"


@dataclass(frozen=True)
class Peak:
    """A row of the table: a kernel, its size or the step that raised it, and its peak rate with its date.

    `share` is the share of the highest rate in this unit.
    """

    kernel: str
    size: str
    per_s: float
    unit: str
    date: str
    share: float


def render_peaks(peaks: Peaks, trusted: bool, form: str, screen: Screen) -> str:
    """Return the peaks as a table, json, csv or md; an untrusted result has a warning."""
    if form == "json":
        return in_json(peaks.to_dict()) + "\n"
    warnings = [] if trusted else [UNTRUSTED]
    rows, columns = peak_rows(peaks), peak_columns()
    if form == "csv":
        return to_csv(columns, rows)
    if form == "md":
        return f"**{in_markdown(peaks.title)}**\n\n{to_markdown(columns, rows)}"
    lines = [*peak_lines(peaks), *(("warning", warning, "yellow") for warning in warnings)]
    lines += screen.suggestion("attnscope vit --roofline", "the steps of an attention under this roofline")
    return screen.draw(peak_parts(peaks, lines, screen))


def peak_parts(peaks: Peaks, lines: Sequence[Labelled], screen: Screen) -> list[RenderableType]:
    """Return the headline, the table, and lines below it."""
    table = rows_table(peak_columns(), peak_rows(peaks), screen)
    return [screen.headline(peaks.title), Text(""), table, Text(""), screen.lines(lines)]


def peak_lines(peaks: Peaks) -> list[Labelled]:
    """Return label, text and style of the lines: the caches, the cost of a call, and how long measuring took."""
    calls = [f"{words.seconds(peaks.call_s)} for the smallest operation"]
    calls += [] if peaks.view_s is None else [f"{words.seconds(peaks.view_s)} for a view"]
    return [
        ("caches", ", ".join(f"{name} {words.binary(size)}" for name, size in peaks.caches.items()) or "unknown", ""),
        ("call", ", ".join(calls), ""),
        ("timing", f"measured in {words.seconds(peaks.seconds)}", ""),
    ]


def peak_rows(peaks: Peaks) -> list[Peak]:
    """Return a row for each kernel and size, then for each peak that a step raised."""
    rates = [
        *(("matmul", f"{rate.size}³", rate.per_s, "MAC/s", rate.date) for rate in peaks.matmul),
        *(("batched matmul", f"{rate.size} tokens", rate.per_s, "MAC/s", rate.date) for rate in peaks.batched),
        *(("softmax", f"rows of {rate.size}", rate.per_s, "elements/s", rate.date) for rate in peaks.softmax),
        *(("copy", _working_set(copy.working_set, peaks), copy.bytes_per_s, "B/s", copy.date) for copy in peaks.copy),
        *((one.limit, one.by, one.per_s, UNITS[one.limit], one.date) for one in peaks.raised),
    ]
    highest: dict[str, float] = {}
    for _, _, per_s, unit, _ in rates:
        highest[unit] = max(per_s, highest.get(unit, per_s))
    return [Peak(*rate, share=rate[2] / highest[rate[3]]) for rate in rates]


def peak_columns() -> list[Column[Peak]]:
    """Return the columns: kernel, size, peak rate with a bar, its unit, and its date."""
    return [
        Column[Peak]("kernel", "kernel", lambda row: row.kernel, right=False),
        Column[Peak]("size", "size", lambda row: row.size, right=False),
        Column[Peak]("per_s", "peak", lambda row: row.per_s, words.metric),
        Column[Peak]("unit", "unit", lambda row: row.unit, right=False),
        Column[Peak]("date", "date", lambda row: row.date or words.UNKNOWN, right=False),
        Column[Peak]("bar", "", lambda row: row.share, words.bar, right=False, drawn=True),
    ]


def _working_set(working_set: int, peaks: Peaks) -> str:
    return f"{words.binary(working_set)} in {peaks.level(working_set)}"
