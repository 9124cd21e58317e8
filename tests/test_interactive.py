"""Results in Python: printed, in a notebook, as a data frame."""

import csv
import io
import json
import subprocess
import sys

import pandas
import pytest
import torch

import attnscope
from attnscope import SwinNetworkSpec, SwinSpec, ViTSpec
from attnscope.analyses.diff import compare as compare_runs
from attnscope.profiling.peak_files import from_plain
from attnscope.render import render
from attnscope.render.columns import to_csv
from attnscope.render.screen import Screen
from attnscope.reports.report import Report
from tests.golden import diffs, timed
from tests.markup import Balance
from tests.test_peaks import PEAKS


def swin_with(**fields):
    """Return a run without times."""
    return attnscope.explore(SwinSpec(**fields), time=False)


def results():
    """Return a result of each class, by its name."""
    swin = timed(attnscope.explore(SwinSpec(shift=True), time=False))
    return {
        "report": swin,
        "network": attnscope.explore(SwinNetworkSpec(), time=False),
        "trace": attnscope.trace(torch.nn.MultiheadAttention(8, 2), *[torch.zeros(5, 1, 8)] * 3),
        "comparison": attnscope.compare(over={"resolution": [7, 14, 28]}),
        "windows": attnscope.look_at_windows(SwinSpec(resolution=14, shift=True)),
        "diff": diffs()["diff"],
        "diff of counts": compare_runs(swin_with(window=7), swin_with(window=8)),
        "peaks": PEAKS,
    }


RESULTS = results()


@pytest.mark.parametrize("name", RESULTS)
def test_print_shows_the_table(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = str(RESULTS[name])
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert " next " not in text
    if isinstance(RESULTS[name], Report):
        assert text + "\n" == render(RESULTS[name], "table", Screen(width=80, quiet=True))


@pytest.mark.parametrize("name", RESULTS)
def test_a_notebook_has_headline_and_table(name):
    result = RESULTS[name]
    html = result._repr_html_()
    parser = Balance()
    parser.feed(html)
    assert parser.open == []
    assert {"strong", "h2", "style"} <= {*parser.seen}
    assert "script" not in parser.seen
    assert "table" in parser.seen
    assert html.index("<strong>") < html.index("<h2")
    assert result._repr_mimebundle_() == {"text/plain": str(result), "text/html": html}
    assert "http" not in html


def test_a_notebook_has_bars_and_pictures():
    html = {name: result._repr_html_() for name, result in RESULTS.items()}
    bars = 2 * len(RESULTS["report"].steps)  # of each step in the table, and in the timing
    assert html["report"].count('<svg class="bar">') == bars
    assert '<rect width="100.0%"' in html["report"]
    assert 'title="86,704,128"' in html["report"]
    for name in ("report", "windows"):
        assert "attention groups" in html[name]
    assert "grid side (tokens)</text>" in html["comparison"]  # the axis of the chart
    assert "<table class=" in html["comparison"]


@pytest.mark.parametrize("name", ["report", "network", "trace"])
def test_a_data_frame_is_the_csv(name):
    result = RESULTS[name]
    frame = result.to_dataframe()
    heads, *rows, _ = csv.reader(io.StringIO(render(result, "csv", Screen())))
    assert list(frame.columns) == heads
    assert len(frame) == len(rows) == len(result.steps)
    assert [str(value) for value in frame["macs"]] == [row[heads.index("macs")] for row in rows]
    assert frame["macs"].sum() == result.totals.macs


def test_a_data_frame_of_each_other_result():
    comparison = RESULTS["comparison"].to_dataframe()
    assert list(comparison["resolution"]) == [7, 14, 28]
    assert list(comparison["vit_macs"]) == [point.costs["vit"] for point in RESULTS["comparison"].points]
    assert len(RESULTS["windows"].to_dataframe()) == len(RESULTS["windows"].grid.masks)
    diff = RESULTS["diff"].to_dataframe()
    ratios = [row.ratio for row in RESULTS["diff"].timed]
    assert [None if pandas.isna(ratio) else ratio for ratio in diff["ratio"]] == ratios
    assert isinstance(diff, pandas.DataFrame)


def test_a_data_frame_of_two_runs_without_times_has_the_costs_that_differ():
    found = RESULTS["diff of counts"]
    frame = found.to_dataframe()
    assert list(frame["cost"]) == [change.name for change in found.costs]
    macs = frame.set_index("cost").loc["macs"]
    before, after = (swin_with(window=window).totals.macs for window in (7, 8))
    assert (macs["before"], macs["after"], macs["ratio"]) == (before, after, after / before)
    assert compare_runs(swin_with(), swin_with()).to_dataframe().empty  # all costs are equal


def test_peaks_have_a_row_for_each_kernel_and_size():
    frame = PEAKS.to_dataframe()
    assert list(frame["per_s"]) == [1e11, 1e11, 2e10, 8e10, 1e9, 2e9, 64e9, 32e9, 8e9]
    assert list(frame.columns) == ["kernel", "size", "per_s", "unit", "date"]
    assert repr(PEAKS) == "<Peaks: Peaks · a machine · float32 · 1 thread>"
    widths = [
        f'width="{width}%"' for width in (100.0, 20.0, 80.0, 50.0, 12.5)
    ]  # shares of the highest rate of its unit
    assert all(width in PEAKS._repr_html_() for width in widths)
    assert from_plain(json.loads(json.dumps(PEAKS.to_dict()))) == PEAKS


@pytest.mark.parametrize("name", RESULTS)
def test_every_result_converts_to_plain_data(name):
    plain = RESULTS[name].to_dict()
    assert plain
    assert all(isinstance(key, str) for key in plain)


def test_two_runs_that_are_the_same_can_be_shown():
    run = timed(attnscope.explore(ViTSpec(), time=False))
    same = compare_runs(run, run)
    assert "both files contain the same run" in str(same)
    assert "forward" not in str(same)  # its times are not compared with themselves
    assert "first run → second run" in same._repr_html_()


def test_without_pandas_the_error_says_what_to_install():
    program = (
        "import sys; sys.modules['pandas'] = None\n"
        "import attnscope\n"
        "report = attnscope.explore(attnscope.ViTSpec(), time=False)\n"
        "print(report)\n"
        "report.to_dataframe()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "ViT attention" in done.stdout
    assert done.stderr.splitlines()[-1] == (
        "ImportError: to_dataframe needs pandas; install it with: python -m pip install pandas"
    )


def test_to_csv_is_not_changed_by_bars():
    """A bar is drawn from another column, so that a file does not have it."""
    from attnscope.render.steps import step_columns

    report = RESULTS["report"]
    assert "bar" not in to_csv(step_columns(report), report.steps)
