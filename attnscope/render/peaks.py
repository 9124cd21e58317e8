"""What a machine can do at its best, and the roofline that it makes."""

import json
import math
from dataclasses import asdict, dataclass

from rich.console import RenderableType
from rich.text import Text

from attnscope.plan.roofline import Peaks
from attnscope.render import words
from attnscope.render.columns import Column, rows_table, to_csv, to_markdown
from attnscope.render.screen import MARGIN, Screen
from attnscope.render.steps import seconds_of, where
from attnscope.reports.report import Report, StepRow

HEIGHT = 14
DEFAULT_WIDTH = 80
MARKS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


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
    if not screen.quiet:
        told += [("", "", ""), ("next", "attnscope vit --roofline   the steps of an attention under this roof", "cyan")]
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


def roofline(report: Report, width: int | None) -> list[str]:
    """The roof of this machine and the steps under it: FLOPs for each byte across, FLOPs a second up, both logarithmic."""
    timed = [
        row
        for row in report.steps
        if row.bound and row.bound.intensity and row.time and row.time.interquartile_mean_s > 0
    ]
    longest = sorted(timed, key=seconds_of, reverse=True)[: len(MARKS)]  # there are no more letters
    steps = [row for row in timed if any(row is one for one in longest)]
    if report.peaks is None or not steps:
        return []
    peaks = report.peaks
    lowest, highest = (
        find(float(row.bound.intensity) for row in steps if row.bound and row.bound.intensity) for find in (min, max)
    )
    left = math.floor(math.log10(lowest))
    right = max(1, left + 1, math.ceil(math.log10(highest)))
    roof = 2 * peaks.macs_per_s
    top = math.log10(roof) + 0.3
    bottom = min(math.log10(_flops_per_s(row)) for row in steps) - 0.2
    margin = 9
    columns = min(width or DEFAULT_WIDTH, 100) - margin - MARGIN
    grid = [[" "] * columns for _ in range(HEIGHT)]

    def put(intensity: float, flops_per_s: float, mark: str) -> None:
        x = round((math.log10(intensity) - left) / (right - left) * (columns - 1))
        y = round((top - math.log10(flops_per_s)) / (top - bottom) * (HEIGHT - 1))
        if mark in MARKS:  # one step does not hide another
            x = next((free for free in range(x, columns) if grid[y][free] not in MARKS), x)
        if 0 <= x < columns and 0 <= y < HEIGHT:
            grid[y][x] = mark

    slopes = {"/": max(peaks.copy, key=lambda copy: copy.bytes_per_s), ".": peaks.copy[-1]}
    for mark, copy in slopes.items():
        for column in range(columns):
            intensity = 10 ** (left + (right - left) * column / (columns - 1))
            attained = intensity * copy.bytes_per_s
            put(intensity, min(roof, attained), "─" if attained >= roof else mark)
    for mark, row in zip(MARKS, steps, strict=False):
        assert row.bound
        assert row.bound.intensity
        put(row.bound.intensity, _flops_per_s(row), mark)

    def label(line: int) -> str:
        value = 10 ** (top - (top - bottom) * line / (HEIGHT - 1))
        return words.rounded(value) if line % 4 == 1 else ""

    axis = "".join(f"{10.0**power:<{columns // (right - left)}g}" for power in range(left, right))
    names = [f"{mark} {where(row)}" for mark, row in zip(MARKS, steps, strict=False)]
    if len(timed) > len(steps):
        names.append(f"and {len(timed) - len(steps)} shorter ones")
    legend = [
        f"─ {words.metric(roof, 'FLOP/s')} at most",
        f"/ {words.metric(slopes['/'].bytes_per_s, 'B/s')} from cache",
        f". {words.metric(slopes['.'].bytes_per_s, 'B/s')} from memory",
    ]
    return [
        *(f"{label(line):>{margin - 2}} │{''.join(cells).rstrip()}" for line, cells in enumerate(grid)),
        f"{'':>{margin - 2}} └{'─' * columns}",
        f"{'FLOP/s':>{margin - 2}}  {axis.rstrip()}  FLOP/byte",
        "",
        *_folded(names, columns, " " * margin),
        *_folded(legend, columns, " " * margin),
    ]


def _flops_per_s(row: StepRow) -> float:
    assert row.time
    return max(row.flops + row.other_flops, 1) / row.time.interquartile_mean_s


def _folded(names: list[str], width: int, indent: str) -> list[str]:
    lines = [""]
    for name in names:
        if len(lines[-1]) + len(name) + 2 > width:
            lines.append("")
        lines[-1] += f"{name}  "
    return [indent + line.rstrip() for line in lines]


def _title(peaks: Peaks) -> str:
    threads = f"{peaks.threads} thread{'s' if peaks.threads > 1 else ''}"
    return f"Peaks · {peaks.device} · {peaks.dtype} · {threads}"
