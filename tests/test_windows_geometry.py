"""The geometry of windows against the module, and against a definition without a roll."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnscope.attentions.swin.attention import relative_position_index, shift_mask, window_partition
from attnscope.core.windows import Axis, Windows, position_index, position_row


@st.composite
def grids(draw: st.DrawFn) -> Windows:
    """Draw any grid: rectangular, padded or smaller than its window, with a shift on either axis or none."""
    window = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    shift = draw(st.integers(0, window[0] - 1)), draw(st.integers(0, window[1] - 1))
    return Windows(draw(st.integers(1, 20)), draw(st.integers(1, 20)), window, shift)


def image_tokens(grid: Windows) -> torch.Tensor:
    """Return the token (row, column) at each place of each window, after the roll and partition of the module."""
    height, width = grid.padded
    places = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), -1)[None]
    down, across = grid.roll
    return window_partition(places.roll((-down, -across), (1, 2)), grid.window).flatten(1, 2)


def mask_of_each_window(grid: Windows) -> torch.Tensor:
    """Return the mask of each window, expanded from the distinct masks: (r·s, n, m)."""
    r, s = grid.counts
    n = grid.window[0] * grid.window[1]
    masks = torch.full((r, s, n, n), -1)
    for mask in grid.masks:
        for row in mask.rows:
            for column in mask.columns:
                assert (masks[row, column] == -1).all(), "a window has one mask"
                masks[row, column] = torch.tensor(mask.matrix())
    return masks.flatten(0, 1)


@given(grids())
def test_masks_equal_the_modules(grid: Windows) -> None:
    assert torch.equal(mask_of_each_window(grid).bool(), shift_mask(grid, torch.zeros(())).isinf())


@given(grids())
def test_masks_equal_those_of_windows_without_a_roll(grid: Windows) -> None:
    tokens = image_tokens(grid)
    origin, window = torch.tensor(grid.roll), torch.tensor(grid.window)
    home = torch.div(tokens - origin, window, rounding_mode="floor")
    apart = (home[:, :, None] != home[:, None, :]).any(-1)
    assert torch.equal(mask_of_each_window(grid).bool(), apart)


@given(grids())
def test_the_counts_of_a_mask_are_those_of_its_matrix(grid: Windows) -> None:
    for mask in grid.masks:
        matrix = mask.matrix()
        assert mask.blocked == sum(map(sum, matrix))
        assert mask.pairs == len(matrix) * len(matrix[0])
    assert sum(mask.windows for mask in grid.masks) == grid.counts[0] * grid.counts[1]


@given(grids())
def test_windows_have_the_tokens_of_the_modules_partition(grid: Windows) -> None:
    down, across = grid.axes
    r, s = grid.counts
    ours = [
        [[y, x] for y in down.window_tokens(i) for x in across.window_tokens(j)] for i in range(r) for j in range(s)
    ]
    assert torch.equal(torch.tensor(ours), image_tokens(grid))
    assert down.rolled == [token for i in range(r) for token in down.window_tokens(i)]


@given(st.integers(1, 8), st.integers(1, 8))
def test_the_position_index_equals_the_modules(p: int, q: int) -> None:
    ours = position_index((p, q))
    assert torch.equal(torch.tensor(ours), relative_position_index((p, q)))
    places = [(y, x) for y in range(p) for x in range(q)]
    assert ours == [[position_row((p, q), qy - ky, qx - kx) for ky, kx in places] for qy, qx in places]


def test_the_position_index_equals_the_published_one() -> None:
    assert position_index((2, 2)) == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    assert position_index((2, 3))[0] == [7, 6, 5, 2, 1, 0]
    seven = position_index((7, 7))
    assert (seven[0][0], seven[0][48], seven[48][0]) == (84, 0, 168)


def test_masked_pairs_equal_the_published_ones() -> None:
    small = {mask.name: mask.blocked for mask in Windows(8, 8, (4, 4), (2, 2)).masks}
    assert small == {"none": 0, "right edge": 128, "bottom edge": 128, "corner": 192}
    swin = {mask.name: (mask.windows, mask.blocked) for mask in Windows(56, 56, (7, 7), (3, 3)).masks}
    assert swin == {"none": (49, 0), "right edge": (7, 1176), "bottom edge": (7, 1176), "corner": (1, 1776)}


@given(grids())
def test_same_group_returns_the_tokens_of_a_group(grid: Windows) -> None:
    for axis in grid.axes:
        groups = [axis.group(token) for token in range(axis.padded)]
        assert set(groups) == set(range(axis.group_count))
        for token, group in enumerate(groups):
            assert [other for other in range(axis.padded) if groups[other] == group] == list(axis.same_group(token))


@given(grids(), st.integers(1, 6), st.data())
def test_the_receptive_field_is_the_set_of_reached_tokens(grid: Windows, layers: int, data: st.DataObject) -> None:
    for axis in grid.axes:
        token = data.draw(st.integers(0, axis.side - 1))
        plain, shifted = (
            torch.tensor(
                [
                    [(a - roll) // axis.window == (b - roll) // axis.window for b in range(axis.side)]
                    for a in range(axis.side)
                ]
            )
            for roll in (0, axis.roll)
        )
        reached = torch.eye(axis.side)
        for layer, field in enumerate(axis.receptive_fields(token, layers), start=1):
            reached = (plain if layer % 2 else shifted).float() @ reached
            assert reached[token].nonzero().flatten().tolist() == list(field)


@pytest.mark.parametrize(("layers", "most"), [(1, 7), (2, 14), (4, 28), (8, 56)])
def test_the_receptive_field_grows_as_published(layers: int, most: int) -> None:
    axis = Axis(56, 56, 7, 3)
    assert max(len(axis.receptive_fields(token, layers)[-1]) for token in range(56)) == most


def test_the_receptive_field_is_the_image_after_15_layers_but_never_without_a_shift() -> None:
    axis, plain = Axis(56, 56, 7, 3), Axis(56, 56, 7, 0)
    fields = [axis.receptive_fields(token, 15) for token in range(56)]
    assert all(len(field[14]) == 56 for field in fields)
    assert any(len(field[13]) < 56 for field in fields)
    assert {len(plain.receptive_fields(token, 30)[-1]) for token in range(56)} == {7}


def test_a_padded_grid_has_its_share_of_padding() -> None:
    grid = Windows(12, 10, (7, 7), (3, 3))
    assert grid.padded == (14, 14)
    assert grid.waste == 1 - 120 / 196
    assert Windows(3, 3, (7, 7), (3, 3)).masks[0].windows == 1
