"""The roofline chart: its marks agree with the time/bound column of the table."""

import math
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnscope import ViTSpec, explore
from attnscope.plan.peaks import Bandwidth, Peaks, Rate
from attnscope.plan.roofline import Roofline
from attnscope.render import render
from attnscope.render.roofline import LETTERS, roofline
from attnscope.render.screen import Screen
from attnscope.render.words import times
from attnscope.reports.report import StepTime

PEAKS = Peaks(
    device="a machine", threads=1, dtype="float32", matmul=(Rate(512, 5e10), Rate(1024, 1e11)),
    batched=(Rate(49, 2e10),), softmax=(Rate(49, 1e9),), copy=(Bandwidth(2**19, 5e10), Bandwidth(2**27, 1e10)),
    call_s=5e-6, view_s=1e-6, caches={"L1": 2**15}, seconds=0.5,
)  # fmt: skip
REPORT = explore(ViTSpec(), time=False)
EDGE = re.compile("[│┤]")


def with_steps(*steps):
    """Return a report whose steps have these pairs of intensity and time/bound."""
    rows = [
        replace(row, roofline=Roofline(1e-3, "compute", intensity, 1e-3), time=StepTime(1e-3 * ratio, 0.0, []))
        for row, (intensity, ratio) in zip(REPORT.steps * 3, steps, strict=False)
    ]
    return replace(REPORT, steps=rows, peaks=PEAKS, focus=["roofline"])


class Chart:
    """A roofline chart of steps given as pairs of FLOP/byte and time/bound, marked A, B, C in this order."""

    def __init__(self, *steps, width=80):
        self.lines = [line.plain for line in roofline(with_steps(*steps), Screen(width=width))]
        rows = [line for line in self.lines if EDGE.search(line)]
        self.left = EDGE.search(rows[0]).start() + 1
        self.grid = [line[self.left :].split(" the bound")[0] for line in rows]
        self.down = {row: float(words[0].rstrip("×")) for row, line in enumerate(rows) if (words := _tick(line))}
        axis, numbers = self.lines[1 + len(rows)], self.lines[2 + len(rows)]
        self.across = {
            axis.index("┬", at.start() - 2 if at.start() > 1 else 0) - self.left: float(at[0])
            for at in re.finditer(r"[\d.]+", numbers)
        }
        self.columns = axis.count("─") + axis.count("┬")

    def place(self, letter):
        """Return the row of a mark, from the top, and its column."""
        ((row, line),) = [(row, line) for row, line in enumerate(self.grid) if letter in line]
        return row, line.index(letter)

    def ratio(self, row):
        """Return time/bound of a row, interpolated between the ticks."""
        (top, low), *_, (bottom, high) = sorted(self.down.items())
        return low * (high / low) ** ((row - top) / (bottom - top))

    @property
    def roof(self):
        ((row, _),) = [(row, line) for row, line in enumerate(self.grid) if "──" in line]
        return row


def _tick(line):
    return re.findall(r"([\d.]+×)┤", line)


RATIOS = st.floats(0.5, 500)


@given(st.lists(st.tuples(st.floats(0.01, 1000), RATIOS), min_size=1, max_size=8), st.sampled_from([60, 80, 120]))
def test_the_distance_of_a_step_from_the_roof_is_that_of_the_table(steps, width):
    chart = Chart(*steps, width=width)
    (top, low), *_, (bottom, high) = sorted(chart.down.items())
    row = math.log(high / low) / (bottom - top)  # log(time/bound) per row of the chart
    for letter, (_, ratio) in zip(LETTERS, steps, strict=False):
        below = chart.place(letter)[0] - chart.roof
        assert below == pytest.approx(math.log(ratio) / row, abs=1.3)


@pytest.mark.parametrize("ratio", [1.0, 1.1])
def test_softmax_at_its_bound_is_at_the_roof(ratio):
    """Its bound is the rate of softmax on this machine, which is far below that of a matmul."""
    chart = Chart((0.6, ratio), (40.0, 8.0))
    assert abs(chart.place("A")[0] - chart.roof) <= 1
    assert chart.place("B")[0] > chart.roof + 5


def test_the_roof_is_at_one():
    chart = Chart((1.0, 3.0))
    assert chart.down[chart.roof] == 1
    assert chart.lines[1 + chart.roof].endswith("lower bound")


def test_a_step_faster_than_its_bound_is_above_the_roof():
    chart = Chart((1.0, 0.5), (1.0, 2.0))
    assert chart.place("A")[0] < chart.roof < chart.place("B")[0]


def test_both_axes_are_logarithmic():
    chart = Chart((1.0, 1.0), (10.0, 10.0), (100.0, 100.0))
    (row_a, column_a), (row_b, column_b), (row_c, column_c) = map(chart.place, "ABC")
    assert row_b - row_a == pytest.approx(row_c - row_b, abs=1)
    assert column_b - column_a == pytest.approx(column_c - column_b, abs=1)
    assert min(row_b - row_a, column_b - column_a) > 2


@given(st.lists(st.tuples(st.floats(0.01, 1000), RATIOS), min_size=1, max_size=8), st.sampled_from([60, 80, 120]))
def test_roofline_axes_have_names_and_three_ticks(steps, width):
    chart = Chart(*steps, width=width)
    assert chart.lines[0].strip() == "time / bound (×)"
    assert "arithmetic intensity (FLOP/byte)" in chart.lines[len(chart.grid) + 3]
    assert len(chart.down) >= 3
    assert len(chart.across) >= 3
    assert max(map(len, chart.lines)) <= width


def test_the_column_of_a_mark_agrees_with_the_ticks():
    chart = Chart((0.1, 2.0), (1.0, 2.0), (10.0, 5.0))
    where = {value: column for column, value in chart.across.items()}
    for letter, intensity in zip("ABC", (0.1, 1.0, 10.0), strict=True):
        assert chart.place(letter)[1] == pytest.approx(where[intensity], abs=1)


def test_steps_at_the_same_point_are_drawn_side_by_side():
    chart = Chart(*[(5.0, 2.0)] * 5)
    places = [chart.place(letter) for letter in "ABCDE"]
    assert len({row for row, _ in places}) == 1
    columns = sorted(column for _, column in places)
    assert columns == list(range(columns[0], columns[0] + 5))


def test_the_legend_has_the_numbers_of_the_table():
    report = with_steps((5.0, 1.1), (2.0, 22.2))
    screen = render(report, "table", Screen())
    for letter, row in zip("AB", report.steps, strict=True):
        assert f"{letter} {row.name} {times(row.time.interquartile_mean_s / row.roofline.seconds)}" in screen


def test_the_legend_counts_steps_without_flops():
    steps = [(1.0, 2.0)] * 28
    lines = Chart(*steps[:19]).lines
    report = with_steps((1.0, 2.0), (None, 2.0), (0.0, 2.0))
    view = replace(report.steps[0], roofline=None)
    report = replace(report, steps=[*report.steps, view])
    text = " ".join(line.plain for line in roofline(report, Screen(width=80)))
    assert "and 3 steps without FLOPs" in text
    assert "shorter" not in " ".join(lines)


def test_the_legend_has_the_peaks_of_the_machine():
    text = " ".join(" ".join(Chart((10.0, 2.0)).lines).split())
    assert (
        "this machine at its best: 200 GFLOP/s, 50.0 GB/s from cache, 10.0 GB/s from memory; "
        "ridge points at 4 and 20 FLOP/byte" in text
    )


def test_a_report_without_peaks_or_flops_has_no_roofline():
    assert roofline(replace(with_steps((1.0, 2.0)), peaks=None), Screen()) == []
    assert roofline(with_steps((None, 2.0)), Screen()) == []
