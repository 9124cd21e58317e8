"""Checkpoints of other windows and images: resized tables and embeddings equal timm's to the last digit."""

import json

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table
from timm.models.swin_transformer import checkpoint_filter_fn

from attnscope import UsageError, WindowAttention, resize_bias_table, resize_positions
from attnscope.networks.swin.spec import SwinNetworkSpec


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


NARROW = {"embed_dim": 12, "num_heads": (3, 6, 12, 24), "depths": (2, 2, 2, 2), "num_classes": 7}
SHALLOW = {"dim": 12, "heads": 3, "depths": (2, 2, 2, 2), "classes": 7}


@pytest.mark.filterwarnings("ignore::UserWarning")  # by timm's interpolation
@pytest.mark.parametrize(
    ("image", "window"),
    [
        ((384, 384), (12, 12)),
        ((192, 192), (12, 12)),  # the last stage clips the window to 6×6
        ((160, 224), (5, 7)),
    ],
)
def test_a_swin_of_another_window_loads_as_in_timm(image, window):
    """timm resizes a checkpoint with a filter, from which its own network then loads."""
    old = timm.create_model("swin_tiny_patch4_window7_224", **NARROW)
    with torch.no_grad():
        for parameter in old.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    theirs = timm.create_model("swin_tiny_patch4_window7_224", **NARROW, img_size=image, window_size=window).eval()
    theirs.load_state_dict(checkpoint_filter_fn(old.state_dict(), theirs))
    ours = SwinNetworkSpec(image=image, window=window, **SHALLOW).build().eval()
    ours.load_state_dict(old.state_dict())
    for name, parameter in theirs.named_parameters():
        assert torch.equal(ours.get_parameter(name), parameter), name
    x = torch.randn(2, 3, *image)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_a_swin_loads_its_own_state_dict_unchanged():
    spec = SwinNetworkSpec(image=(64, 96), window=(2, 5), **SHALLOW)  # tables of 27 rows, or 9 for a clipped window
    source, target = spec.build(), spec.build()
    target.load_state_dict(source.state_dict())
    for ours, theirs in zip(target.parameters(), source.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_table_that_cannot_be_resized_is_reported_by_torch():
    state = SwinNetworkSpec(window=(7, 5), **SHALLOW).build().state_dict()  # the window is ambiguous: 13·9 rows
    with pytest.raises(
        RuntimeError, match=r"size mismatch for layers\.0\.blocks\.0\.attn\.relative_position_bias_table"
    ):
        SwinNetworkSpec(window=12, **SHALLOW).build().load_state_dict(state)


@pytest.mark.parametrize(
    ("command", "flags", "published", "change"),
    [
        (
            "swin",
            "swin-b-224 --image 384 --window 12",
            "swin-b-384",
            "image 384 instead of 224, window 12 instead of 7",
        ),
        ("vit", "vit-b-16-224 --image 384", "vit-b-16-384", "image 384 instead of 224"),
    ],
)
def test_a_preset_at_another_size_has_the_counts_of_the_published_network_of_that_size(
    attnscope, command, flags, published, change
):
    ours, theirs = (
        json.loads(attnscope(command, "--preset", *words.split(), "--scope", "model", "--no-time", "--json").stdout)
        for words in (flags, published)
    )
    assert ours["totals"] == theirs["totals"]
    assert f"preset {flags.split()[0]}, with {change}" in ours["notes"]
