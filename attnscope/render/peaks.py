"""The peak rates of a machine on a screen, in CSV and in Markdown."""

import json
from dataclasses import asdict, dataclass

from rich.console import RenderableType
from rich.text import Text

from attnscope.plan.roofline import Peaks
from attnscope.render import words
from attnscope.render.columns import Column, rows_table, to_csv, to_markdown
from attnscope.render.screen import Screen


@dataclass(frozen=True)
class Peak:
    """A row of the table: a kernel, its size, and its peak rate."""

    kernel: str
    size: str
    per_s: float
    unit: str


def render_peaks(peaks: Peaks, trusted: bool, form: str, screen: Screen) -> str:
    """Return the peaks as a table, json, csv or md; an untrusted result has a warning."""
    if form == "json":
        return json.dumps(asdict(peaks), ensure_ascii=False, allow_nan=False, indent=2) + "\n"
    rows, columns = peak_rows(peaks), peak_columns()
    if form == "csv":
        return to_csv(columns, rows)
    if form == "md":
        return f"**{_title(peaks)}**\n\n{to_markdown(columns, rows)}"
    calls = [f"{words.seconds(peaks.call_s)} for the smallest operation"]
    calls += [] if peaks.view_s is None else [f"{words.seconds(peaks.view_s)} for a view"]
    lines = [
        ("caches", ", ".join(f"{name} {words.binary(size)}" for name, size in peaks.caches.items()) or "unknown", ""),
        ("call", ", ".join(calls), ""),
        ("timing", f"measured in {words.seconds(peaks.seconds)}", ""),
    ]
    if not trusted:
        lines.append(
            ("warning", "other processes were busy, so this was not cached: use --threads 1, or wait", "yellow")
        )
    lines += screen.suggestion("attnscope vit --roofline", "the steps of an attention under this roofline")
    parts: list[RenderableType] = [screen.headline(_title(peaks)), Text(""), rows_table(columns, rows, screen)]
    return screen.draw([*parts, Text(""), screen.lines(lines)])


def peak_rows(peaks: Peaks) -> list[Peak]:
    """Return a row for each kernel and size."""
    return [
        *(Peak("matmul", f"{rate.size}³", rate.per_s, "MAC/s") for rate in peaks.matmul),
        *(Peak("batched matmul", f"{rate.size} tokens", rate.per_s, "MAC/s") for rate in peaks.batched),
        *(Peak("softmax", f"rows of {rate.size}", rate.per_s, "elements/s") for rate in peaks.softmax),
        *(
            Peak(
                "copy", f"{words.binary(copy.working_set)} in {peaks.level(copy.working_set)}", copy.bytes_per_s, "B/s"
            )
            for copy in peaks.copy
        ),
    ]


def peak_columns() -> list[Column[Peak]]:
    """Return the columns: kernel, size, peak rate and its unit."""
    return [
        Column[Peak]("kernel", "kernel", lambda row: row.kernel, right=False),
        Column[Peak]("size", "size", lambda row: row.size, right=False),
        Column[Peak]("per_s", "peak", lambda row: row.per_s, words.metric),
        Column[Peak]("unit", "", lambda row: row.unit, right=False),
    ]


def _title(peaks: Peaks) -> str:
    threads = f"{peaks.threads} thread{'s' if peaks.threads > 1 else ''}"
    return f"Peaks · {peaks.device} · {peaks.dtype} · {threads}"
