"""Golden screens: the expected output, stored as files. `python -m tests.golden` rewrites them."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from attnscope import SwinNetworkSpec, SwinSpec, ViTNetworkSpec, ViTSpec, attentions, explore, trace
from attnscope.analyses.comparison import compare
from attnscope.analyses.diff import compare as compare_runs
from attnscope.analyses.timed_comparison import measured_ratios
from attnscope.analyses.windows import look_at_windows
from attnscope.core.interval import Interval
from attnscope.networks.presets import presets, read_stages
from attnscope.render import render
from attnscope.render.compare import render_comparison
from attnscope.render.diff import render_diff
from attnscope.render.page import render_page
from attnscope.render.screen import Screen
from attnscope.render.windows import render_windows
from attnscope.reports.comparison import Comparison, LeftOut, Measured, TimeCrossover
from attnscope.reports.diff import Diff
from attnscope.reports.report import KernelRow, Report, StepRow, StepTime, Time
from tests import notebook, reference, schema
from tests.blocks import Block
from tests.test_readme import PAGES, PICTURE, ROOT, SESSION, arguments

FOLDER = Path(__file__).parent / "screens"
WIDTHS = {"60": 60, "80": 80, "120": 120, "wide": None}

MANY = ("vit", "swin", "nat", "pvt:reduction=4", "cswin", "hiera")
"""Contenders of which one cannot take a shared setting, and one not all sizes."""
NEXT = {
    "compare": (
        "attnscope compare --over resolution=7:56:7 --time",
        "the sizes at which windows are faster on this machine",
    ),
    "compare-stages": ("attnscope compare --stages --time", "measure it on this machine"),
    "compare-windows": (
        "attnscope compare vit swin --over window=4,7,8,14,16,64 --time",
        "measure it on this machine",
    ),
    "compare-heat": (
        "attnscope compare vit swin --over resolution=14:56:2x --over dim=96:384:2x --quantity peak --time",
        "measure it on this machine",
    ),
    "compare-many": (
        f"attnscope compare {' '.join(MANY)} --over resolution=14:112:2x --time",
        "measure it on this machine",
    ),
    "compare-time": ("attnscope compare --over resolution=7,14,28,56,60 --time", "measure it on this machine"),
}
"""The command that the command line suggests after each of these comparisons, and its reason."""


def timed(report: Report) -> Report:
    """Return the report with fixed times, which are the same on every machine."""
    steps = []
    for index, row in enumerate(report.steps):
        seconds = 1e-9 * (index + 1) * 7_919 + row.macs * 2e-11
        back = row.backward and replace(row.backward, time=_samples(2.5 * seconds))
        steps.append(replace(row, time=_samples(seconds), backward=back))
    time = _whole(sum(row.times * row.time.interquartile_mean_s for row in steps if row.time))
    environment = {"torch": "2.15.0", "device": "cpu", "device_name": "a processor", "cpu_capability": "AVX512"}
    environment |= {"threads": 1, "cores": 2, "allocator": "pinned", "seed": 0, "load": 0.1}
    whole_s = time.whole_interquartile_mean_s
    complexity = report.complexity.timed(whole_s, 12.1 * whole_s, reference_over_own=Interval(11.8, 12.5))
    warnings = ["the interquartile range of the runs is 12% of their mean; use a longer --budget"]
    back = report.backward and replace(
        report.backward, time=_whole(2.5 * time.steps_sum_s), over_forward=Interval(2.45, 2.55)
    )
    measured = replace(report, steps=steps, time=time, backward=back, complexity=complexity)
    return replace(measured, environment=environment, warnings=warnings, noise=warnings)


def _samples(seconds: float) -> StepTime:
    return StepTime(seconds, seconds / 50, [seconds] * 8)


def _whole(total: float) -> Time:
    return Time(total * 1.001, total * 0.02, [total] * 8, total, total * 0.001, 60, 58, 2e-7)


def slowed(report: Report, *, forward: float = 1.0, backward: float = 1.0, steps: Sequence[str] = ()) -> Report:
    """Return the report with a slower forward and backward by these factors, and slower `steps`."""

    def step(row: StepRow) -> StepRow:
        if row.name not in steps or row.time is None:
            return row
        back = row.backward and row.backward.time
        slower = row.backward and back and replace(row.backward, time=_samples(backward * back.interquartile_mean_s))
        return replace(row, time=_samples(forward * row.time.interquartile_mean_s), backward=slower)

    back = report.backward and report.backward.time
    return replace(
        report,
        steps=list(map(step, report.steps)),
        time=report.time and _whole(forward * report.time.steps_sum_s),
        backward=report.backward and replace(report.backward, time=back and _whole(backward * back.steps_sum_s)),
    )


def reports() -> dict[str, Report]:
    """Return the reports of the screens, by name."""
    padded = SwinSpec(resolution=(50, 60), window=(7, 8), shift=True, batch=2)
    return {
        "vit": explore(ViTSpec(), time=False),
        "swin-shift": timed(explore(SwinSpec(shift=True), time=False)),
        "swin-padded": timed(explore(padded, time=False)),
        "vit-sdpa": explore(ViTSpec(kernel="sdpa"), time=False),
        "swin-model": explore(SwinNetworkSpec(), time=False, figures=[{"figure": "4.5", "source": "the Swin paper"}]),
        "swin-stage": timed(explore(SwinNetworkSpec(stage=3), time=False)),
        "vit-block": explore(ViTNetworkSpec(scope="block"), time=False),
        "vit-huge": explore(ViTSpec(tokens=10**12, dim=10**12, heads=10**6), time=False),
    }


SPREADS = (0.92, 1.08), (0.92, 1.08), (0.1, 9.0)
"""Quartiles of the contenders' times over their medians; the ranges of the last contender overlap those of the others."""


def comparisons() -> dict[str, Comparison]:
    """Return the comparisons of the screens; the last one is timed and interrupted."""
    measured = compare(over={"resolution": [7, 14, 28, 56, 60]})
    for point in measured.points[:-1]:
        point.times = {
            label: Measured(s := 2e-4 + cost * 2e-11 * (1 + index), s * low, s * high, [s] * 3)
            for index, ((label, cost), (low, high)) in enumerate(zip(point.costs.items(), SPREADS, strict=True))
        }
        point.measured_ratio = measured_ratios(point.times, "vit")
        point.measured_interval = {
            label: (ratio * low, ratio * high)
            for (label, ratio), (low, high) in zip(point.measured_ratio.items(), SPREADS[1:], strict=True)
        }
    measured.time_crossovers = [
        TimeCrossover("vit", "swin", "resolution", 7, 28, "swin", [14], [21]),
        TimeCrossover("vit", "swin:shift", "resolution", None, None, None, [7, 14, 28, 56], []),
    ]
    measured.not_timed = [LeftOut({"resolution": 60}, "global attention needs 1.5 TiB, but cpu has 21.7 GiB free")]
    measured.environment |= {"torch": "2.15.0", "device": "cpu", "cpu_capability": "AVX512", "threads": 1, "cores": 2}
    measured.environment |= {"allocator": "pinned"}
    measured.interrupted = True
    drawn = {
        "compare": compare(),
        "compare-stages": compare(stages=read_stages()),
        "compare-windows": compare(("vit", "swin"), {"window": [4, 7, 8, 14, 16, 64]}),
        "compare-heat": compare(("vit", "swin"), {"resolution": [14, 28, 56], "dim": [96, 192, 384]}, quantity="peak"),
        "compare-time": measured,
        "compare-many": compare(MANY, {"resolution": [14, 28, 56, 112]}),
    }
    for name, comparison in drawn.items():
        comparison.next = NEXT[name]
    return drawn


def diffs() -> dict[str, Diff]:
    """Return the diffs of the screens: of an attention, and of a network for which only one run has a backward."""
    kernels = [KernelRow(name, 2e-3, 1e-5, 1e-7, None) for name in ("eager", "sdpa", "flash")]
    before = replace(timed(explore(ViTSpec(), time=False, backward=True)), kernels=kernels)
    slow = slowed(before, forward=1.01, backward=1.9, steps=("project", "mix"))
    after = replace(
        slow,
        kernels=[replace(kernel, time_s=1.5e-3) for kernel in kernels[:2]],
        steps=[
            replace(row, bytes_live=2 * row.bytes_live) if row.name == "mix" and row.bytes_live else row
            for row in slow.steps
        ],
        environment={**before.environment, "threads": 2},
        time=slow.time and replace(slow.time, clock="thread"),
        warnings=[],
    )
    network = SwinNetworkSpec(stage=3)
    both = (timed(explore(network, time=False, backward=backward)) for backward in (True, False))
    return {
        "diff": compare_runs(before, after),
        "diff-network": compare_runs(*(slowed(run, forward=1 + i, steps=("score",)) for i, run in enumerate(both))),
    }


def screens() -> dict[str, str]:
    """Return all screens, by file name."""
    drawn = {
        f"{name}-{width}.txt": render(report, "table", Screen(width=columns))
        for name, report in reports().items()
        for width, columns in WIDTHS.items()
    }
    drawn |= {
        f"{name}-{width}.txt": render_comparison(comparison, "table", Screen(width=columns))
        for name, comparison in comparisons().items()
        for width, columns in WIDTHS.items()
    }
    drawn |= {
        f"{name}-{width}.txt": render_diff(diff, ("a.json", "b.json"), "table", Screen(width=columns))
        for name, diff in diffs().items()
        for width, columns in WIDTHS.items()
    }
    drawn |= {
        f"diff.{form}": render_diff(diffs()["diff"], ("a.json", "b.json"), form, Screen()) for form in ("csv", "md")
    }
    drawn["compare-80-ascii.txt"] = render_comparison(comparisons()["compare"], "table", Screen(width=80, ascii=True))
    drawn["compare-80-color.txt"] = render_comparison(comparisons()["compare"], "table", Screen(width=80, color=True))
    drawn["compare-time.csv"] = render_comparison(comparisons()["compare-time"], "csv", Screen())
    drawn["compare-time.md"] = render_comparison(comparisons()["compare-time"], "md", Screen())
    swin = reports()["swin-shift"]
    steady = replace(swin, warnings=[], noise=[])
    details, explained = (replace(steady, focus=[focus]) for focus in ("details", "explain"))
    network = replace(reports()["swin-model"], focus=["details"])
    drawn["swin-shift-steady-80.txt"] = render(steady, "table", Screen(width=80))
    drawn |= {f"swin-shift-details-{width}.txt": render(details, "table", Screen(width=width)) for width in (60, 80)}
    drawn |= {f"swin-shift-explain-{width}.txt": render(explained, "table", Screen(width=width)) for width in (60, 120)}
    drawn["swin-model-details-80.txt"] = render(network, "table", Screen(width=80))
    drawn["swin-shift-80-ascii.txt"] = render(swin, "table", Screen(width=80, ascii=True))
    drawn["swin-shift-80-color.txt"] = render(swin, "table", Screen(width=80, color=True))
    drawn["swin-shift-quiet.txt"] = render(swin, "table", Screen(width=80, quiet=True))
    drawn["swin-shift.csv"] = render(swin, "csv", Screen())
    drawn["swin-shift.md"] = render(swin, "md", Screen())
    drawn["swin-model.csv"] = render(reports()["swin-model"], "csv", Screen())
    drawn["swin-model.md"] = render(reports()["swin-model"], "md", Screen())
    return drawn | windows_screens()


def windows_screens() -> dict[str, str]:
    """Return the screens of windows, by file name."""
    small, swin = SwinSpec(resolution=14, shift=True), SwinSpec(shift=True)
    padded = SwinSpec(resolution=(12, 9), window=(5, 4), shift=True, batch=2)
    wide = SwinSpec(resolution=(448, 320), window=12, shift=True)
    looks = {
        "windows-shift": look_at_windows(small),
        "windows-swin": look_at_windows(swin),
        "windows-wide": look_at_windows(wide),
        "windows-padded": look_at_windows(padded),
        "windows-plain": look_at_windows(SwinSpec(resolution=(3, 5))),
        "windows-token": look_at_windows(small, token=(5, 9), layers=4),
        "windows-far": look_at_windows(swin, token=(20, 41), layers=6),
        "windows-positions": look_at_windows(SwinSpec(resolution=14, window=(3, 4)), positions=True),
        "windows-order": look_at_windows(padded, order=True),
    }
    drawn = {
        f"{name}-{width}.txt": render_windows(look, "table", Screen(width=columns))
        for name, look in looks.items()
        for width, columns in WIDTHS.items()
    }
    drawn["windows-shift-80-ascii.txt"] = render_windows(looks["windows-shift"], "table", Screen(width=80, ascii=True))
    drawn["windows-shift-80-color.txt"] = render_windows(looks["windows-shift"], "table", Screen(width=80, color=True))
    drawn["windows-shift.csv"] = render_windows(looks["windows-shift"], "csv", Screen())
    drawn["windows-token.md"] = render_windows(looks["windows-token"], "md", Screen())
    report = explore(swin, time=False)
    drawn["windows-of-swin-80.txt"] = render(report, "table", Screen(width=80), swin.windows)
    return drawn


def explorer_screen() -> str:
    """Return the SVG of the explorer with a pinned state and a changed one."""
    from attnscope.attentions.draft import Draft
    from attnscope.tui.explorer import Explorer

    async def drawn() -> str:
        app = Explorer(Draft(SwinSpec, {"shift": True}))
        async with app.run_test(size=(100, 30)) as pilot:
            await pilot.press("p", "down", "down", "right")
            await pilot.pause()
            svg = app.export_screenshot(title="attnscope explore swin --shift")
            return re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # an SVG loads nothing from another host

    return asyncio.run(drawn())


PAGE = """\
# The attentions

This page answers: which attentions does attnscope know, what does each look at, and what does it cost?

Each attention is a command with the same flags, verification, timing, memory and comparison, and an ordinary module.
`attnscope NAME --explain` gives its steps, and `attnscope windows NAME` draws the keys of one query.
`python -m tests.golden` writes this page.

| command | a query looks at | MACs of a layer for one image | gives up | paper |
|---|---|---|---|---|
"""
"""The beginning of docs/attentions.md."""
DRAWN = (
    ("windows", "maxvit", "--grid", "-q"),
    ("windows", "nat", "--token", "5,9", "--dilation", "2", "--neighborhood", "5", "-q"),
    ("windows", "hiera", "-q"),
)
"""The commands whose pictures docs/attentions.md shows."""


def attentions_page() -> str:
    """Return docs/attentions.md: a row for each attention of the package, and pictures of some neighbourhoods."""
    rows = []
    for name in attentions.names():
        spec = attentions.spec_class(name)()
        about, own = spec.about(), spec.complexity().own
        cells = (f"`{name}`", about["looks at"], f"{own.name} = {own.formula}", about["gives up"], about["paper"])
        rows.append(f"| {' | '.join(cells)} |\n")
    parts = [PAGE, *rows, "\n## Pictures\n"]
    for words in DRAWN:
        run = [sys.executable, "-m", "attnscope", *words]
        env = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1"}
        done = subprocess.run(run, env=env, capture_output=True, text=True, encoding="utf-8", check=True)
        parts.append(f"\n```console\n$ attnscope {' '.join(words)}\n{done.stdout}```\n")
    return "".join(parts)


WINDOWS = "attnscope windows --resolution 28 --shift --token 5,9 --layers 4"
GALLERY = ROOT / "docs" / "pages"
SAME = {"attnscope": "this version", "device": "meta"}
"""The environment of the gallery's pages, which are the same on every machine."""


def gallery() -> dict[str, str]:
    """Return the pages of the gallery, by file name."""
    swin = SwinSpec(shift=True)
    token = {"resolution": 28, "shift": True}
    blocks = torch.nn.Sequential(Block(), Block())
    results: dict[str, Any] = {
        "attention": (explore(swin, time=False), "attnscope swin --shift --no-time"),
        "network": (explore(SwinNetworkSpec(), time=False), "attnscope swin --scope model --no-time"),
        "comparison": (compare(), "attnscope compare"),
        "windows": (look_at_windows(SwinSpec(**token), token=(5, 9), layers=4), WINDOWS),
        "trace": (trace(blocks, torch.zeros(1, 49, 64)), None),
        "presets": (presets(), None),
    }
    pages = {}
    for name, (result, command) in results.items():
        same = {"command": command} if hasattr(result, "command") else {}
        same |= {"environment": SAME} if hasattr(result, "environment") else {}
        pages[f"{name}.html"] = render_page(replace(result, **same) if same else result)
    return pages


def write_sessions() -> None:
    """Write the output of the commands in console blocks below them, in all pages."""

    def session(found: re.Match[str]) -> str:
        words, env = arguments(found[1])
        run = [sys.executable, "-m", "attnscope", *words]
        done = subprocess.run(run, env=os.environ | env, capture_output=True, text=True, encoding="utf-8", check=True)
        return f"$ {found[1]}\n{done.stdout}"

    for page in PAGES:
        page.write_text(SESSION.sub(session, page.read_text(encoding="utf-8")), encoding="utf-8")


def main() -> None:
    """Write all screens, the sessions of the README, its picture, the notebook and the reference pages."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in screens().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    (FOLDER / "explorer.svg").write_text(explorer_screen(), encoding="utf-8")
    write_sessions()
    (ROOT / "docs" / "attentions.md").write_text(attentions_page(), encoding="utf-8")
    for name, page in reference.PAGES.items():
        (reference.FOLDER / name).write_text(page(), encoding="utf-8")
    notebook.write()
    schema.FILE.write_text(schema.text(), encoding="utf-8")
    GALLERY.mkdir(exist_ok=True)
    for name, page in gallery().items():
        (GALLERY / name).write_text(page, encoding="utf-8")
    subprocess.run([sys.executable, "-m", "attnscope", *PICTURE], cwd=ROOT, check=True)
    print(f"{len(list(FOLDER.iterdir()))} screens in {FOLDER}", file=sys.stderr)


if __name__ == "__main__":
    main()
