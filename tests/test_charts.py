"""The chart engine: positions of values, and labels of axes."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from attnscope.analyses.comparison import compare
from attnscope.analyses.quantities import COUNTED, QUANTITIES
from attnscope.render.chart import HEIGHT, Axis, Line, Mark, log_log
from attnscope.render.compare import AXES, QUANTITY_TITLES, charts
from attnscope.render.page.charts import Dot, _path
from attnscope.render.screen import Screen

ACROSS, UP = Axis("side (px)", lambda x: f"{x:g}", is_of_sizes=True), Axis("cost (MACs)", lambda y: f"{y:g}")
EDGE = re.compile("[│┤└]")


def drawn(lines, marks=(), width=80, across=ACROSS, up=UP):
    return [row.plain for row in log_log(lines, across, up, Screen(width=width), marks)]


def ticks_up(rows):
    """Map the row of each tick of the vertical axis, from the top, to its label."""
    return {row: line.split("┤")[0].strip() for row, line in enumerate(rows[1 : HEIGHT - 1]) if "┤" in line}


def ticks_across(rows):
    return rows[HEIGHT].split()


SIZES = st.integers(1, 10_000)
POINTS = st.lists(st.tuples(SIZES, st.floats(1e-6, 1e13)), min_size=2, max_size=9, unique_by=lambda point: point[0])


def test_labels_have_the_order_of_the_ends_of_their_lines():
    ends = {"one": 580.0, "two": 414.0, "three": 600.0, "four": 822.0}
    rows = drawn([Line(name, [(14, 1.0), (112, end)]) for name, end in ends.items()])
    places = {name: next(index for index, row in enumerate(rows) if row.rstrip().endswith(f" {name}")) for name in ends}
    assert sorted(places, key=places.get) == ["four", "three", "one", "two"]


@given(st.lists(POINTS, min_size=1, max_size=3), st.sampled_from([60, 80, 120]))
def test_axes_have_names_units_and_three_ticks(series, width):
    rows = drawn([Line(f"line {index}", sorted(points)) for index, points in enumerate(series)], width=width)
    assert rows[0].strip() == "cost (MACs)"
    assert rows[-1].strip() == "side (px)"
    assert len(ticks_up(rows)) >= 3
    assert len(ticks_across(rows)) >= 3
    assert max(map(cell_len, rows)) <= width


@given(POINTS, st.sampled_from([60, 80, 120]))
def test_the_position_of_a_mark_agrees_with_the_ticks(points, width):
    top, bottom = (find(y for _, y in points) for find in (max, min))
    rows = drawn([Line("line", sorted(points))], [Mark("A", points[0][0], points[0][1])], width)
    ((row, line),) = [(row, line) for row, line in enumerate(rows[1 : HEIGHT - 1]) if "A" in line]
    low, high = UP.bounds([bottom, top])
    expected = math.log(high / points[0][1]) / math.log(high / low) * (HEIGHT - 3)
    assert row == pytest.approx(expected, abs=0.51)
    left = EDGE.search(rows[1]).start() + 1
    columns = len(rows[HEIGHT - 1].rstrip()) - left
    start, end = ACROSS.bounds([x for x, _ in points])
    place = math.log(points[0][0] / start) / math.log(end / start) * (columns - 1)
    assert line.index("A") - left == pytest.approx(place, abs=1.01)


@given(st.floats(1e-6, 1e13), st.floats(1, 1.2))
def test_a_nearly_constant_line_is_drawn_flat(cost, factor):
    rows = drawn([Line("flat", [(7, cost), (14, cost * factor), (28, cost)])])
    used = [row for row, line in enumerate(rows[1 : HEIGHT - 1]) if re.search("[⠁-⣿]", line)]
    assert max(used) - min(used) <= 2


def test_values_that_differ_by_a_decade_fill_the_height():
    rows = drawn([Line("steep", [(7, 1.0), (70, 1000.0)])])
    used = [row for row, line in enumerate(rows[1 : HEIGHT - 1]) if re.search("[⠁-⣿]", line)]
    assert max(used) - min(used) == HEIGHT - 3


@pytest.mark.parametrize(
    ("low", "high", "base", "ticks"),
    [
        (1, 1000, 10, [1, 10, 100, 1000]),
        (1, 10, 10, [1, 3, 10]),
        (2, 20, 10, [2, 5, 10, 20]),
        (15, 1500, 10, [30, 100, 300, 1000]),
        (1, 1e8, 10, [1, 100, 1e4, 1e6, 1e8]),
        (100, 800, 2, [128, 256, 512]),
        (1, 2**20, 2, [1, 32, 1024, 2**15, 2**20]),
    ],
)
def test_ticks_are_powers_or_simple_multiples(low, high, base, ticks):
    assert Axis("", str, base).ticks(low, high) == pytest.approx(ticks)


@given(st.floats(1e-9, 1e15), st.floats(1, 1e12), st.sampled_from([2, 10]))
def test_any_range_has_three_to_six_ticks(low, factor, base):
    axis = Axis("", str, base)
    assert 3 <= len(axis.ticks(*axis.bounds([low, low * factor]))) <= 6


def test_ticks_of_the_horizontal_axis_are_the_measured_values():
    assert ticks_across(drawn([Line("line", [(x, 1.0) for x in (56, 112, 224, 448)])])) == ["56", "112", "224", "448"]
    assert ticks_across(drawn([Line("line", [(7, 1.0), (8, 1.0)])])) == ["7", "8", "10"]


def test_a_falling_axis_has_its_smallest_value_at_the_top():
    rows = drawn([Line("line", [(1, 1.0), (10, 100.0)])], up=Axis("", lambda y: f"{y:g}", is_falling=True))
    assert list(ticks_up(rows).values()) == ["1", "10", "100"]


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("quantity", COUNTED)
@pytest.mark.parametrize("over", [{}, {"window": [7, 8]}, {"heads": [3, 6]}, {"dim": [96, 192]}, {"batch": [1, 2]}])
def test_a_chart_of_a_comparison_has_named_axes(quantity, over, width):
    compared = compare(over=over, quantity=quantity, **({"resolution": 28} if over else {}))
    rows = [row.plain for row in charts(compared, Screen(width=width))]
    assert rows[0].strip() == QUANTITY_TITLES[quantity].format(part="layer")
    assert rows[-1].strip() == AXES[next(iter(over), "image")]
    assert len(ticks_up(rows)) >= 3
    assert len(ticks_across(rows)) >= 3


def test_every_quantity_has_a_title():
    assert QUANTITY_TITLES.keys() == QUANTITIES.keys()


PLACES = st.builds(lambda tenths: tenths / 10, st.integers(0, 9_999))


@given(st.lists(st.tuples(PLACES, PLACES), min_size=1, max_size=60))
def test_a_path_of_distances_leads_through_every_dot(places):
    found = []
    for kind, x, y in re.findall(r"([Ml])(-?[\d.]+) ?(-?[\d.]+)", _path([Dot(x, y, "") for x, y in places])):
        at = (0, 0) if kind == "M" else found[-1]
        found.append((round(at[0] + float(x), 1), round(at[1] + float(y), 1)))
    assert found == places
