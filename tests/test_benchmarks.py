"""Verdicts of the benchmarks, and pages whose parts fail."""

import re

import pytest

from benchmarks import figures, gpu
from benchmarks.ratios import HEAD, Ratio


@pytest.mark.parametrize(
    ("ratios", "bars", "row"),
    [
        ([1.0, 1.02, 1.0], {"bar": 1.01}, "| x | 1.000 | 1.000 to 1.020 | at most 1.01 | ok |"),
        ([1.0, 1.02, 1.02], {"bar": 1.01}, "| x | 1.020 | 1.000 to 1.020 | at most 1.01 | MISSED |"),
        ([0.9, 0.9, 2.0], {"least": 0.95}, "| x | 0.900 | 0.900 to 2.000 | at least 0.95 | MISSED |"),
        ([1.0, 1.0, 1.0], {}, "| x | 1.000 | 1.000 to 1.000 |  |  |"),
        ([1.0, 1.0, 1.04], {"each": (0.97, 1.03)}, "| x | 1.000 | 1.000 to 1.040 | each 0.97 to 1.03 | MISSED |"),
        (
            [0.98, 1.0, 1.03],
            {"bar": 1.01, "least": 0.99, "each": (0.97, 1.03)},
            "| x | 1.000 | 0.980 to 1.030 | 0.99 to 1.01, each 0.97 to 1.03 | ok |",
        ),
    ],
)
def test_a_ratio_has_a_limit_for_the_median_and_for_each_run(ratios, bars, row):
    ratio = Ratio("x", ratios, **bars)
    assert str(ratio) == row
    assert ratio.ok is ("MISSED" not in row)


def good():
    """Yield rows without a miss."""
    yield HEAD
    yield Ratio("x", [1.0, 1.0, 1.0], 1.01)
    yield gpu.Figure("y", "0", "0", ok=True)


def bad():
    """Yield a row that missed its limit, then raise."""
    yield gpu.Figure("z", "1", "0", ok=False)
    raise RuntimeError("out of luck")


def test_a_part_that_raises_counts_as_missed_and_keeps_the_other_parts(tmp_path):
    path = tmp_path / "page.md"
    assert gpu.write_page(path, "here", [bad, good]) == 2
    page = path.read_text(encoding="utf-8")
    assert "| z | 1 | | 0 | MISSED |" in page
    assert "RuntimeError: out of luck" in page
    assert "| y | 0 | | 0 | ok |" in page
    assert page.endswith("\n2 missed\n")
    assert gpu.write_page(path, "here", [good]) == 0
    assert path.read_text(encoding="utf-8").endswith("\nnothing was missed\n")


def test_a_row_of_the_page_of_figures_has_its_anchor():
    rows = [["MACs: `trace` over fvcore", "0.998", "0.998 to 0.999", "at most 0.5", "MISSED"], ["a figure", "1.000"]]
    shown = figures.section("startup", "here", rows)
    assert "| MACs: `trace` | fvcore | 0.998 | 0.998 to 0.999 | at most 0.5 | MISSED |\n" in shown
    assert "| a figure |  | 1.000 |  |  |  |\n" in shown


def test_the_page_of_figures_keeps_the_sections_that_are_not_measured_again():
    sections = figures.written()
    assert sections
    assert set(sections) <= set(figures.SCRIPTS)
    page = figures.PAGE.read_text(encoding="utf-8")
    assert page == figures.HEAD + "".join(sections[script] for script in figures.SCRIPTS if script in sections)
    assert all(re.search(r"\d{4}-\d\d-\d\d: .* cores", each) for each in sections.values())
