"""Conditions on rows and their order: parsing, unknown values, and the rows of a comparison and of the presets."""

import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnscope import UsageError
from attnscope.analyses.comparison import compare
from attnscope.analyses.contenders import arrange
from attnscope.analyses.entries import Order, entries_of_specs, set_entries, value_of
from attnscope.analyses.paper_comparison import on_paper
from attnscope.core.conditions import Condition, read_sort, read_where, select
from attnscope.core.units import read_quantity, read_size
from attnscope.networks.presets import conditions, presets
from attnscope.networks.presets import value_of as value_of_preset

FIELDS = ("macs", "latency-per-mac", "heads", "contender", "q_stride")


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("macs<2G", [("macs", "<", 2 * 10**9)]),
        ("macs <= 1.5GiB and heads!=3", [("macs", "<=", Fraction(3, 2) * 2**30), ("heads", "!=", 3)]),
        ("MACS>2k, contender = swin:window=14", [("macs", ">", 2000), ("contender", "=", "swin:window=14")]),
        ("latency_per_mac<2.5ns&heads==4", [("latency-per-mac", "<", Fraction(25, 10**10)), ("heads", "==", 4)]),
        ("q-stride=2", [("q_stride", "=", 2)]),
    ],
)
def test_conditions_are_parsed(text, conditions):
    assert read_where(text, FIELDS) == [Condition(*each) for each in conditions]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be FIELD<VALUE"),
        ("macs", "must be FIELD<VALUE"),
        ("macs<", "must be FIELD<VALUE"),
        ("macs<<2", "must be FIELD<VALUE"),
        ("macs<2G or heads=3", "must be compared with a number, such as 2G"),
        ("__import__('os')", "must be FIELD<VALUE"),
        ("mac<2G", "mac is unknown; did you mean macs?"),
        ("macs<many", r"must be compared with a number, such as 2G \(got many\)"),
        ("macs<2G and", "must be"),
    ],
)
def test_a_wrong_condition_is_refused(text, message):
    with pytest.raises(UsageError, match=message):
        read_where(text, FIELDS)


@given(st.text(max_size=30))
def test_any_other_text_is_a_usage_error(text):
    try:
        found = read_where(text, FIELDS)
    except UsageError:
        found = []
    assert all(condition.field in FIELDS for condition in found)


def test_units_of_sizes_and_times():
    assert [read_size(text) for text in ("5", "5G", "5GB", "2KiB", "1.5k", "5iB", "x", "-1")] == [
        5, 5 * 10**9, 5 * 10**9, 2048, 1500, None, None, None,
    ]  # fmt: skip
    assert [read_quantity(text) for text in ("2ms", "3 us", "1.5s", "4")] == [
        Fraction(1, 500), Fraction(3, 10**6), Fraction(3, 2), 4,
    ]  # fmt: skip


ROWS = [{"x": 3, "n": "b"}, {"x": 1, "n": "a"}, {"x": None, "n": "c"}, {"x": 2, "n": "a"}]


def test_an_unknown_value_satisfies_nothing_and_is_last():
    def value(row, name):
        return row[name]

    kept = select(ROWS, value, read_where("x>=1", ("x", "n")), ("x", True))
    assert [row["x"] for row in kept.rows] == [3, 2, 1]
    assert kept.unknown == 1
    both = select(ROWS, value, read_where("x!=1 and n=a", ("x", "n")), None)
    assert ([row["x"] for row in both.rows], both.unknown) == ([2], 0)
    assert [row["x"] for row in select(ROWS, value, (), ("x", False)).rows] == [1, 2, 3, None]
    assert [row["n"] for row in select(ROWS, value, (), ("n", False)).rows] == ["a", "a", "b", "c"]
    assert read_sort("-x", ("x",)) == ("x", True)


def test_the_heading_of_a_column_suggests_its_field():
    with pytest.raises(UsageError, match=r"images/s is unknown; did you mean throughput\?"):
        read_sort("images/s", ("image", "macs", "throughput"))


def test_entries_are_the_points_of_all_contenders_that_satisfy_the_conditions():
    labels, over = ("vit", "swin", "cswin"), {"image": [56, 112, 224], "batch": [1, 2]}
    meeting = arrange(labels, over, {})
    comparison = on_paper(meeting)
    order = Order(comparison, "macs<100M and contender!=cswin", "-macs", False)
    entries = entries_of_specs(comparison, meeting, order.quantities)
    assert len(entries) == 3 * 6
    set_entries(comparison, entries, order)
    expected = [
        (point.costs[label], label)
        for point in comparison.points
        for label in ("vit", "swin")
        if point.costs[label] < 100e6
    ]
    assert [entry.values["macs"] for entry in comparison.entries] == sorted((c for c, _ in expected), reverse=True)
    params = compare(labels, over, quantity="params")
    first = comparison.entries[0]
    at_first = next(point for point in params.points if point.at == first.at)
    assert value_of(first, "params") == at_first.costs[first.contender]
    with pytest.raises(UsageError, match="time requires times"):
        Order(comparison, None, "time", False)
    with pytest.raises(UsageError, match="latency-per-mac requires times"):
        Order(comparison, "latency-per-mac<1ns", None, False)


def test_a_field_of_numbers_is_not_compared_with_a_word(attnscope):
    rows = [{"image": None, "name": "a"}, {"image": 224, "name": "b"}]
    with pytest.raises(UsageError, match=r"where image is a number \(got 224px\), such as 224"):
        select(rows, dict.get, read_where("image=224px", ["image"]))
    assert select(rows, dict.get, read_where("name=b", ["name"])).rows == rows[1:]
    assert attnscope("presets", "--where", "heads=swin").returncode == 2
    assert "layer_scale is on or off (got True)" in attnscope("presets", "--where", "layer_scale=True").stderr


def test_presets_are_selected_and_sorted_by_their_fields(attnscope):
    found = presets()
    fields = conditions(found)
    small = select(
        found, value_of_preset, read_where("macs<5G and image=224", fields), read_sort("-params", fields)
    ).rows
    expected = [each for each in found if each.macs < 5e9 and each.spec.image == (224, 224)]
    assert {each.name for each in small} == {each.name for each in expected}
    assert [each.params for each in small] == sorted((each.params for each in expected), reverse=True)
    windows = select(found, value_of_preset, read_where("window=12", fields)).rows
    assert {each.command for each in windows} == {"swin", "swinv2"}
    assert not select(found, value_of_preset, read_where("dim=1", fields)).rows
    shown = attnscope("presets", "--where", "command=swin and params<30M", "--json")
    assert [row["name"] for row in json.loads(shown.stdout)] == ["swin-t-224"]
    assert "no preset satisfies --where" in attnscope("presets", "--where", "macs<1").stdout
    refused = attnscope("presets", "--sort", "mac")
    assert (refused.returncode, refused.stderr) == (2, "attnscope: --sort mac is unknown; did you mean macs?\n")
