"""The chart of the roofline: where a step stands in it, beside the roof and its axes."""

import math
from dataclasses import replace

import pytest

from attnscope import ViTSpec, explore
from attnscope.plan.roofline import Bandwidth, Bound, Peaks, Rate
from attnscope.render.peaks import roofline
from attnscope.reports.report import StepTime

ROOF, CACHE, MEMORY = 2e11, 5e10, 1e10
PEAKS = Peaks(
    device="a machine", threads=1, dtype="float32", matmul=(Rate(512, 5e10), Rate(1024, ROOF / 2)),
    batched=(Rate(49, 2e10),), softmax=(Rate(49, 1e9),), copy=(Bandwidth(2**19, CACHE), Bandwidth(2**27, MEMORY)),
    call_s=5e-6, view_s=1e-6, caches={"L1": 2**15}, seconds=0.5,
)  # fmt: skip
PREFIXES = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
EDGE = "│"


class Chart:
    """The roofline of steps that are given as FLOP/byte and FLOP/s, marked A, B, C in their order."""

    def __init__(self, *steps, peaks=PEAKS, width=80):
        report = explore(ViTSpec(), time=False)
        rows = [row for row in report.steps if row.flops][: len(steps)]
        drawn = [
            replace(row, bound=Bound(1.0, "compute", intensity), time=StepTime(row.flops / per_s, 0.0, []))
            for row, (intensity, per_s) in zip([replace(row, other_flops=0) for row in rows], steps, strict=True)
        ]
        self.lines = roofline(replace(report, steps=drawn, peaks=peaks), width)
        self.left = self.lines[0].index(EDGE) + 1
        self.grid = [line[self.left :] for line in self.lines if EDGE in line]
        self.labels = {
            index: float(number) * PREFIXES["".join(prefix)]
            for index, line in enumerate(self.lines[: len(self.grid)])
            if (words := line[: self.left - 1].split())
            for number, *prefix in [words]
        }
        self.columns = self.lines[len(self.grid)].count("─")
        self.axis = self.lines[len(self.grid) + 1][self.left :]

    def place(self, mark):
        """Row from the top and column."""
        ((row, line),) = [(row, line) for row, line in enumerate(self.grid) if mark in line]
        return row, line.index(mark)

    def rows_of(self, marks, column):
        """The rows in which one of these marks stands in a column or beside it."""
        return {row for row, line in enumerate(self.grid) if set(line[max(0, column - 1) : column + 2]) & set(marks)}


def test_a_step_at_the_peak_stands_on_the_roof():
    chart = Chart((50.0, ROOF), (50.0, ROOF / 10))
    row, column = chart.place("A")
    assert chart.rows_of("─", column) == {row}
    assert chart.grid[row].endswith("─")
    assert len(chart.grid[row]) == chart.columns
    assert chart.place("B")[0] > row


def test_a_step_that_moves_its_bytes_at_a_bandwidth_stands_on_that_slope():
    chart = Chart((0.5, 0.5 * CACHE), (0.5, 0.5 * MEMORY), (90.0, ROOF))
    for mark, slope in (("A", "/"), ("B", ".")):
        row, column = chart.place(mark)
        assert row in chart.rows_of(slope, column)


def test_a_slope_meets_the_roof_where_the_machine_is_balanced():
    """At 4 FLOP/byte from cache, and at 20 from memory."""
    chart = Chart((ROOF / CACHE, ROOF), (ROOF / MEMORY, ROOF), (90.0, ROOF))
    roof, cache = chart.place("A")
    _, memory = chart.place("B")
    assert "/" in chart.grid[roof + 1][cache - 6 : cache]
    assert "/" not in "".join(line[cache + 1 :] for line in chart.grid)
    assert "." in chart.grid[roof + 1][memory - 6 : memory]
    assert "." not in "".join(line[memory + 1 :] for line in chart.grid)


def test_a_decade_is_as_wide_and_as_high_everywhere():
    chart = Chart((1.0, ROOF / 1000), (10.0, ROOF / 100), (99.0, ROOF / 10))
    (row_a, column_a), (row_b, column_b), (row_c, column_c) = map(chart.place, "ABC")
    assert row_a - row_b == pytest.approx(row_b - row_c, abs=1)
    assert column_b - column_a == pytest.approx(column_c - column_b, abs=1)
    assert min(row_a - row_b, column_b - column_a) > 2


def test_labels_and_marks_agree_on_the_height():
    """A label has one digit, and a row of this chart is a fifth of a decade."""
    rates = [ROOF, ROOF / 7, ROOF / 40, ROOF / 100]
    chart = Chart(*((10.0 + index, rate) for index, rate in enumerate(rates)))
    (top, high), *_, (bottom, low) = sorted(chart.labels.items())
    for mark, rate in zip("ABCD", rates, strict=True):
        share = (chart.place(mark)[0] - top) / (bottom - top)
        assert math.log10(high) + share * math.log10(low / high) == pytest.approx(math.log10(rate), abs=0.2)


def test_ticks_and_marks_agree_on_the_place_across():
    chart = Chart((0.1, ROOF / 100), (1.0, ROOF / 50), (10.0, ROOF / 10))
    assert chart.axis.split() == ["0.1", "1", "FLOP/byte"]
    assert chart.place("A")[1] == 0
    assert chart.place("B")[1] == pytest.approx(chart.axis.index(" 1 ") + 1, abs=1)
    assert chart.place("C")[1] == chart.columns - 1


def test_steps_of_one_intensity_have_a_chart_too():
    """Also where that is a power of ten, so that the axis would have no width."""
    chart = Chart((10.0, ROOF), (10.0, ROOF / 10))
    assert chart.place("A")[1] == chart.place("B")[1] == 0
    assert chart.axis.split()[0] == "10"


def test_the_legend_names_the_roof_and_both_slopes():
    legend = Chart((10.0, ROOF), width=100).lines[-1].strip()
    assert legend == "─ 200 GFLOP/s at most  / 50.0 GB/s from cache  . 10.0 GB/s from memory"


def test_faster_batched_matmuls_raise_the_roof():
    faster = replace(PEAKS, batched=(Rate(49, 3e11),))
    assert "─ 600 GFLOP/s at most" in "".join(Chart((10.0, ROOF), peaks=faster).lines)


def test_elementwise_operations_count_for_a_step():
    report = explore(ViTSpec(), time=False)
    rows = [
        replace(row, bound=Bound(1.0, "compute", 10.0), time=StepTime((row.flops + row.other_flops) / ROOF, 0.0, []))
        for row in report.steps
        if row.name in ("project", "softmax")
    ]
    drawn = roofline(replace(report, steps=rows, peaks=PEAKS), 80)
    ((line,),) = [[line for line in drawn if EDGE in line and "A" in line]]
    assert "AB" in line  # side by side, both on the roof
