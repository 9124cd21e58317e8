"""Patterns of axis letters: parsing, evaluation and binding to real shapes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnscope.core.axes import AxisError, count, parse_pattern, parse_tensor, spell


def test_the_letters_of_a_pattern_exclude_the_tensor_names():
    pattern = parse_pattern("q: b h n d, k: b h m d -> scores: b h n m")
    assert str(pattern) == "b h n d, b h m d -> b h n m"
    assert [tensor.name for tensor in pattern.inputs] == ["q", "k"]
    assert str(parse_pattern("b h n d, b h m d -> b h n m")) == "b h n d, b h m d -> b h n m"


def test_a_shape_follows_from_sizes():
    sizes = {"b": 2, "r": 3, "p": 5, "s": 7, "q": 11, "c": 13}
    assert parse_tensor("b (r p) (s q) c").shape(sizes) == (2, 15, 77, 13)
    assert parse_tensor("(b r s) (p q) (3 c)").shape(sizes) == (42, 55, 39)
    assert count("3 c c + 3 c", sizes) == 3 * 13 * 13 + 3 * 13
    assert count("3 c c - 3 c", sizes) == 3 * 13 * 13 - 3 * 13
    assert count("- 3 c", sizes) == -3 * 13
    assert count("", sizes) == 0


@given(st.dictionaries(st.sampled_from("bnchd"), st.integers(1, 50), min_size=5))
def test_binding_finds_the_sizes_that_made_a_shape(sizes):
    tensor = parse_tensor("b n c (3 h) (2 d)")
    found: dict[str, int] = {}
    tensor.bind(tensor.shape(sizes), found)
    assert found == sizes


def test_a_letter_of_a_group_is_solved_if_the_others_have_sizes():
    sizes = {"p": 7}
    parse_tensor("b (r p)").bind((2, 56), sizes)
    assert sizes == {"b": 2, "p": 7, "r": 8}
    parse_tensor("(b r s) c").bind((32, 5), sizes)
    assert sizes["s"] == 2
    unknown: dict[str, int] = {}
    parse_tensor("(b r s) c").bind((32, 5), unknown)
    assert unknown == {"c": 5}


@pytest.mark.parametrize(
    ("pattern", "shape", "sizes", "message"),
    [
        (
            "k: b h m d",
            (1, 12, 197, 63),
            {"d": 64},
            "k must have shape b h m d (got 1×12×197×63): d must be 64 (got 63)",
        ),
        ("x: b n c", (1, 197), {}, "x must have shape b n c (got 1×197): the number of axes must be 3 (got 2)"),
        (
            "b (r p)",
            (1, 15),
            {"p": 7},
            "a tensor must have shape b (r p) (got 1×15): (r p) must be a multiple of 7 (got 15)",
        ),
        ("b (3 c)", (1, 10), {"c": 3}, "a tensor must have shape b (3 c) (got 1×10): (3 c) must be 9 (got 10)"),
    ],
)
def test_the_error_for_a_wrong_shape_names_its_letters(pattern, shape, sizes, message):
    with pytest.raises(AxisError) as error:
        parse_tensor(pattern).bind(shape, dict(sizes))
    assert str(error.value) == message


@pytest.mark.parametrize("text", ["b N c", "b nn c", "q r: b n", "b (n c", "b n-c"])
def test_a_malformed_pattern_raises(text):
    with pytest.raises(AxisError, match="cannot parse"):
        parse_tensor(text)


@pytest.mark.parametrize("text", ["b n c", "b n -> b n -> b n"])
def test_a_pattern_has_one_arrow(text):
    with pytest.raises(AxisError, match="must have one arrow"):
        parse_pattern(text)


def test_a_count_only_has_letters_and_numbers():
    with pytest.raises(AxisError, match=r"must be a lowercase letter or a number \(got 'n-1'\)"):
        count("b n-1", {"b": 1, "n": 2})


def test_shapes_are_printed_with_multiplication_signs():
    assert spell((1, 12, 197)) == "1×12×197"
    assert spell(()) == "a scalar"
