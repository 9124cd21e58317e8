"""Parsing of ranges."""

import re

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
        ("", "window must be a list or a range of integers (got ''), such as 4,7,8 or 14:56:7 (step 7)"),
        ("4,,7", "must be a list or a range of integers (got '')"),
        ("a:b", "must be a list or a range of integers (got a:b)"),
        ("1:2:3:4", "must be a list or a range of integers (got 1:2:3:4)"),
        ("9:3", "window=9:3 must start at or below its stop (got 9 and 3); swap them: 3:9:1"),
        ("1:9:0", "window=1:9:0 must have a step of at least 1 (got 0); use 1, or a factor such as 2x"),
        ("1:9:-1", "must have a step of at least 1 (got -1)"),
        ("1:9:1x", "must have a factor above 1, such as 2x (got 1)"),
        ("1:9:x", "must have a factor above 1, such as 2x (got '')"),
        ("1:9:1e9x", "must have a factor above 1, such as 2x (got 1e9)"),
        ("0:9", "window=0:9 must have values of at least 1 (got 0)"),
        ("-3", "window=-3 must have values of at least 1 (got -3)"),
        ("1:99999999999999", f"must have at most {MOST_VALUES} values; use a larger step"),
    ],
)
def test_an_invalid_range_is_a_one_line_error(text, message):
    with pytest.raises(UsageError, match=re.escape(message)) as error:
        read_range("window", text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["window", "=4", "4=4,7", "win dow=3"])
def test_a_range_needs_a_field(text):
    with pytest.raises(UsageError, match="over must be FIELD=RANGE"):
        read_over(text)
