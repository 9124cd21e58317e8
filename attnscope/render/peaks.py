"""What a machine can do at its best."""

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
    """One line of the table: what was done, on which size, how often a second."""

    kernel: str
    size: str
    per_s: float
    unit: str


def render_peaks(peaks: Peaks, trusted: bool, form: str, screen: Screen) -> str:
    """Peaks as a table, json, csv or md."""
    if form == "json":
        return json.dumps(asdict(peaks), ensure_ascii=False, allow_nan=False, indent=2) + "\n"
    rows, columns = peak_rows(peaks), peak_columns()
    if form == "csv":
        return to_csv(columns, rows)
    if form == "md":
        return f"**{_title(peaks)}**\n\n{to_markdown(columns, rows)}"
    calls = [f"{words.seconds(peaks.call_s)} for the smallest operation"]
    calls += [] if peaks.view_s is None else [f"{words.seconds(peaks.view_s)} for a view"]
    told = [
        ("caches", ", ".join(f"{name} {words.binary(size)}" for name, size in peaks.caches.items()) or "not known", ""),
        ("call", ", ".join(calls), ""),
        ("timing", f"measured in {words.seconds(peaks.seconds)}", ""),
    ]
    if not trusted:
        told.append(("warning", "other processes were busy, so this was not kept: use --threads 1, or wait", "yellow"))
    told += screen.suggestion("attnscope vit --roofline", "the steps of an attention under this roofline")
    parts: list[RenderableType] = [screen.headline(_title(peaks)), Text(""), rows_table(columns, rows, screen)]
    return screen.draw([*parts, Text(""), screen.lines(told)])


def peak_rows(peaks: Peaks) -> list[Peak]:
    """A row for each kernel and size."""
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
    """Kernel, size, rate."""
    return [
        Column[Peak]("kernel", "kernel", lambda row: row.kernel, right=False),
        Column[Peak]("size", "size", lambda row: row.size, right=False),
        Column[Peak]("per_s", "at best", lambda row: row.per_s, words.metric),
        Column[Peak]("unit", "", lambda row: row.unit, right=False),
    ]


def _title(peaks: Peaks) -> str:
    threads = f"{peaks.threads} thread{'s' if peaks.threads > 1 else ''}"
    return f"Peaks · {peaks.device} · {peaks.dtype} · {threads}"
