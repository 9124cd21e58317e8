"""Checkpoints of other windows and images: resized tables and embeddings equal timm's to the last digit."""

import pytest
import torch
from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table

from attnscope import UsageError, WindowAttention, resize_bias_table, resize_positions


@pytest.mark.filterwarnings("ignore::UserWarning")  # by timm's interpolation
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("window", "new"), [((7, 7), (12, 12)), ((7, 7), (7, 7)), ((12, 12), (7, 7)), ((2, 2), (3, 5)), ((4, 7), (8, 14))]
)
def test_a_resized_bias_table_equals_timms(window, new, dtype):
    table = torch.randn((2 * window[0] - 1) * (2 * window[1] - 1), 3).to(dtype)
    shape = (2 * new[0] - 1) * (2 * new[1] - 1), 3
    theirs = resize_rel_pos_bias_table(table, new, shape, old_window_size=window)
    assert torch.equal(resize_bias_table(table, window, new), theirs)


@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize(
    ("grid", "new"), [((14, 14), (24, 24)), ((14, 14), (7, 10)), ((4, 6), (8, 3)), ((4, 6), (4, 6))]
)
def test_resized_position_embeddings_equal_timms(grid, new, prefix):
    positions = torch.randn(1, prefix + grid[0] * grid[1], 8)
    theirs = resample_abs_pos_embed(positions, list(new), list(grid), num_prefix_tokens=prefix)
    assert torch.equal(resize_positions(positions, grid, new, prefix), theirs)


def test_an_attention_of_window_7_loads_into_window_12():
    old, new = WindowAttention(24, 3, 7), WindowAttention(24, 3, 12)
    state = old.state_dict()
    state["relative_position_bias_table"] = resize_bias_table(state["relative_position_bias_table"], (7, 7), (12, 12))
    new.load_state_dict(state)
    center = new.relative_position_bias_table.unflatten(0, (23, 23))[11, 11]
    torch.testing.assert_close(center, old.relative_position_bias_table.unflatten(0, (13, 13))[6, 6])


def test_a_wrong_size_is_an_error_of_one_line():
    with pytest.raises(UsageError, match=r"window of 7×7 must have 169 rows \(got the shape \(9, 3\)\)"):
        resize_bias_table(torch.zeros(9, 3), (7, 7), (12, 12))
    with pytest.raises(UsageError, match=r"must have the shape \(1, 5, c\) \(got \(1, 9, 3\)\)"):
        resize_positions(torch.zeros(1, 9, 3), (2, 2), (3, 3))
