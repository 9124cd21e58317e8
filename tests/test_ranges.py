"""Parsing of ranges."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnscope.core.errors import UsageError
from attnscope.core.ranges import MOST_VALUES, read_over, read_range


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("4,7,8,14,16", [4, 7, 8, 14, 16]),
        ("14:56:14", [14, 28, 42, 56]),
        ("14:224:2x", [14, 28, 56, 112, 224]),
        ("14:223:2X", [14, 28, 56, 112]),
        ("3:5", [3, 4, 5]),
        ("5:5", [5]),
        ("10:40:1.5x", [10, 15, 23, 34]),
        ("1:5:1.1x", [1, 2, 3, 4, 5]),
        ("7, 14:28:7, 7", [7, 14, 21, 28]),
    ],
)
def test_a_range_has_the_expected_values(text, values):
    assert read_range("resolution", text) == values


def test_over_has_a_field_and_its_range():
    assert read_over(" shift-size = 1:3") == ("shift_size", [1, 2, 3])


@given(start=st.integers(1, 50), steps=st.integers(0, 20), step=st.integers(1, 9))
def test_an_additive_range_includes_its_stop(start, steps, step):
    values = read_range("dim", f"{start}:{start + steps * step}:{step}")
    assert values == [start + step * index for index in range(steps + 1)]


@given(start=st.integers(1, 50), stop=st.integers(50, 5000), percent=st.integers(101, 900))
def test_a_geometric_range_increases_and_does_not_exceed_its_stop(start, stop, percent):
    values = read_range("dim", f"{start}:{stop}:{percent / 100}x")
    assert values[0] == start
    assert values == sorted(set(values))
    assert values[-1] <= stop


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no range of whole numbers"),
        ("4,,7", "no range of whole numbers"),
        ("a:b", "no range of whole numbers"),
        ("1:2:3:4", "is no range"),
        ("9:3", "turn them round: 3:9:1"),
        ("1:9:0", "never ends: the step is 0"),
        ("1:9:-1", "never ends: the step is -1"),
        ("1:9:1x", "never ends: the factor is 1"),
        ("1:9:x", "the factor is missing"),
        ("1:9:1e9x", "more than 1, such as 2x"),
        ("0:9", "the smallest is 1"),
        ("-3", "the smallest is 1"),
        ("1:99999999999999", f"{MOST_VALUES} values are the most"),
    ],
)
def test_an_invalid_range_is_a_one_line_error(text, message):
    with pytest.raises(UsageError, match=message.replace("(", r"\(")) as error:
        read_range("window", text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["window", "=4", "4=4,7", "win dow=3"])
def test_a_range_needs_a_field(text):
    with pytest.raises(UsageError, match="says no field"):
        read_over(text)
