"""Video Swin's attention: the battery, random Specs, torchvision's outputs, gradients and MACs, and the formula."""

import json
import re

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.video.swin_transformer import ShiftedWindowAttention3d

from attnscope import SwinSpec, UsageError, ViTSpec, compare, look_at_windows, window_partition
from attnscope.attentions.swin.attention import partition, relative_position_index, reverse, shift_mask
from attnscope.attentions.swin3d.attention import VideoWindowAttention
from attnscope.attentions.swin3d.spec import Swin3DSpec
from attnscope.core.windows import VolumeWindows
from attnscope.testing import AttentionBattery, hold_elementwise_flops, hold_macs, hold_trace
from tests.families.conftest import macs_of
from tests.sampling import examples
from tests.strategies import specs_of

SMALL = {"dim": 12, "heads": 3}
VOLUMES = [
    ({"resolution": (4, 6, 10), "window": (2, 3, 5)}, "divided"),
    ({"resolution": (5, 7, 4), "window": (2, 3, 2)}, "padded"),
    ({"resolution": (2, 5, 6), "window": (4, 2, 3)}, "clipped in time"),
    ({"resolution": (4, 3, 7), "window": (2, 5, 3)}, "clipped in height and padded"),
    ({"resolution": (2, 3, 4), "window": (3, 4, 5)}, "clipped everywhere"),
    ({"resolution": (3, 2, 6), "window": (3, 1, 2), "shift_size": (2, 0, 1)}, "shifted across alone"),
]
VOLUMES = [pytest.param(fields, id=name.replace(" ", "-")) for fields, name in VOLUMES]


def spec_of(shifted=True, **fields):
    """Return a small Spec, shifted by half a window if no shift is given."""
    if shifted and "shift_size" not in fields:
        fields["shift"] = True
    return Swin3DSpec(**{**SMALL, **fields})


def reference_of(spec):
    """Return torchvision's module for a Spec."""
    return ShiftedWindowAttention3d(spec.dim, list(spec.window), list(spec.shift_along), spec.heads, spec.qkv_bias)


class TestBattery(AttentionBattery):
    specs = tuple(
        spec_of(**{**volume, **fields})
        for volume, fields in (
            ({"resolution": (4, 6, 10), "window": (2, 3, 5)}, {"batch": 2}),
            ({"resolution": (4, 6, 10), "window": (2, 3, 5)}, {"shifted": False, "qkv_bias": False}),
            ({"resolution": (5, 7, 4), "window": (2, 3, 2)}, {"batch": 2}),
            ({"resolution": (5, 7, 4), "window": (2, 3, 2)}, {"batch": 2, "kernel": "sdpa"}),
            ({"resolution": (5, 7, 4), "window": (2, 3, 2)}, {"shifted": False, "kernel": "math"}),
            ({"resolution": (5, 7, 4), "window": (2, 3, 2)}, {"batch": 2, "dtype": "bfloat16"}),
            ({"resolution": (5, 7, 4), "window": (2, 3, 2)}, {"attn_drop": 0.1, "proj_drop": 0.1}),
            ({"resolution": (2, 5, 6), "window": (4, 2, 3)}, {"batch": 2, "dtype": "float64"}),
            ({"resolution": (4, 3, 7), "window": (2, 5, 3)}, {"batch": 2}),
            ({"resolution": (4, 3, 7), "window": (2, 5, 3)}, {"kernel": "sdpa"}),
            ({"resolution": (2, 3, 4), "window": (3, 4, 5)}, {"qk_scale": 0.3}),
        )
    )


@given(specs_of(Swin3DSpec))
@examples(50)
def test_letters_closed_form_counters_and_trace_agree(spec):
    hold_macs(spec)
    hold_elementwise_flops(spec)
    hold_trace(spec)


@pytest.mark.parametrize("volume", VOLUMES)
@pytest.mark.parametrize("shifted", [True, False])
@pytest.mark.parametrize(
    ("dtype", "fields"),
    [
        (torch.float64, {}),
        (torch.float64, {"qkv_bias": False}),
        (torch.float64, {"kernel": "sdpa"}),
        (torch.float32, {}),
    ],
    ids=["float64", "no-bias", "sdpa", "float32"],
)
def test_outputs_and_gradients_equal_those_of_torchvision(volume, shifted, dtype, fields, hold_equal):
    spec = spec_of(shifted, **volume, **fields)
    hold_equal(spec, reference_of(spec), dtype=dtype)


@pytest.mark.parametrize("volume", VOLUMES)
def test_macs_equal_those_of_torchvision(volume):
    spec = spec_of(**volume)
    with torch.device("meta"):
        reference = reference_of(spec)
    assert macs_of(lambda: reference(torch.empty(spec.input_shape))) == spec.plan().macs


def test_macs_follow_the_formula():
    """Check 4n̂C² + 2(PM²)n̂C for the first stage of Swin3D-T, and for a volume that is padded to 8×14×14 tokens."""
    n, c = 8 * 56 * 56, 96
    assert Swin3DSpec(shift=True).plan().macs == 4 * n * c**2 + 2 * 392 * n * c == 2_813_067_264
    padded = Swin3DSpec(resolution=(7, 13, 14), window=(2, 7, 7))
    n = 8 * 14 * 14
    assert padded.plan().macs == 4 * n * c**2 + 2 * 98 * n * c
    assert padded.complexity().own_macs == padded.plan().macs


@pytest.mark.parametrize("window", [(2, 3, 4), (1, 1, 1), (3, 1, 2)])
def test_rows_of_the_bias_table_are_those_of_torchvision(window):
    reference = ShiftedWindowAttention3d(6, list(window), [0, 0, 0], 1)
    assert torch.equal(relative_position_index(window), reference.relative_position_index)


def test_the_bias_of_a_clipped_window_is_that_of_the_first_tokens_of_the_full_window():
    module = VideoWindowAttention(12, 3, window=(2, 3, 3))  # clipped to 2×2×2
    full = module.position_bias(18)
    assert torch.equal(module.position_bias(8), full[:, :8, :8])
    assert Swin3DSpec(resolution=(1, 6, 6), window=(2, 3, 3)).are_offsets_kept
    assert Swin3DSpec(resolution=(1, 2, 6), window=(1, 3, 3)).are_offsets_kept
    clipped = Swin3DSpec(resolution=(4, 2, 6), window=(2, 3, 3))
    assert not clipped.are_offsets_kept
    assert any("do not belong to the offsets" in note for note in clipped.cautions())


@pytest.mark.parametrize("window", [(4, 5, 6), (4, 2, 6), (2, 3, 4)])
@given(sides=st.tuples(*[st.integers(1, 6)] * 3))
@settings(max_examples=30)
def test_offsets_are_kept_exactly_if_the_rows_are_those_of_the_clipped_window(window, sides):
    """Compare the offsets of the first tokens of the full window with those of the clipped window."""
    spec = Swin3DSpec(resolution=sides, window=window)
    n, clipped = spec.windows.keys, spec.windows.window

    def offsets(of):
        places = torch.cartesian_prod(*map(torch.arange, of)).reshape(-1, 3)[:n]
        return places[:, None] - places[None, :]

    assert spec.are_offsets_kept is torch.equal(offsets(window), offsets(clipped))


@given(
    st.tuples(*[st.integers(1, 7)] * 3),
    st.tuples(*[st.integers(1, 4)] * 3),
    st.tuples(*[st.integers(0, 3)] * 3),
)
@examples(50)
def test_masks_allow_exactly_the_tokens_of_the_same_groups(sides, window, shift):
    """Compare the mask with the groups of each axis, which the pictures of windows are drawn from."""
    shift = tuple(min(by, side - 1) for by, side in zip(shift, window, strict=True))
    grid = VolumeWindows.clipped(sides, window, shift)
    groups = [torch.tensor([axis.group(token) for token in axis.rolled]) for axis in grid.axes]
    volume = torch.stack(torch.meshgrid(*groups, indexing="ij"), -1)[None]
    tokens = partition(volume, grid.window).flatten(1, -2)
    apart = (tokens[:, :, None] != tokens[:, None, :]).any(-1)
    assert torch.equal(shift_mask(grid, torch.zeros(())).isinf(), apart)


def test_partition_of_a_volume_of_one_frame_is_that_of_an_image():
    x = torch.randn(2, 1, 4, 6, 5)
    windows = partition(x, (1, 2, 3))
    assert torch.equal(windows[:, 0], window_partition(x[:, 0], (2, 3)))
    volume = torch.randn(2, 4, 4, 6, 5)
    assert torch.equal(reverse(partition(volume, (2, 2, 3)), (2, 2, 3), (4, 4, 6)), volume)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dim": 10, "heads": 3}, "dim must be divisible by heads 3 (got 10); nearest: 9 or 12"),
        ({"shift_size": (8, 0, 0)}, "shift_size must be smaller than window 8 (got 8); largest: 7"),
        ({"resolution": (8, 56)}, "resolution must be an integer or 3 integers (got (8, 56))"),
        ({"window": (8, 0, 7)}, "window must be at least 1 (got 0)"),
        ({"shift": False, "shift_size": 1}, "no_shift and shift_size contradict each other"),
    ],
)
def test_wrong_values_are_refused(fields, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        Swin3DSpec(**fields)


def test_module_is_built_without_a_spec():
    module = VideoWindowAttention(12, 3, window=(2, 3, 4), shift=1)
    assert "window=(2, 3, 4), shift=(1, 1, 1)" in repr(module)
    for sides in ((4, 6, 8), (3, 5, 7), (1, 2, 3)):
        assert module(torch.randn(2, *sides, 12)).shape == (2, *sides, 12)
    with pytest.raises(UsageError, match=re.escape("(b, time, height, width, c = 12) (got (2, 6, 8, 12))")):
        module(torch.randn(2, 6, 8, 12))


def test_a_comparison_takes_videos():
    """All contenders have the same tokens: vit those of all frames, and swin each frame alone."""
    found = compare(["swin", "swin3d"], {"window": [7, 14]}, resolution=(28, 28), frames=1)
    assert all(point.costs["swin"] == point.costs["swin3d"] for point in found.points)
    video = compare(["vit", "swin", "swin3d:window=4x7x7", "swin3d"], resolution=(14, 14))
    assert video.settings["frames"] == 8
    costs = video.points[0].costs
    assert costs == {
        "vit": sum(ViTSpec(tokens=8 * 196, dim=96, heads=3).closed_form().values()),
        "swin": 8 * sum(SwinSpec(resolution=14).closed_form().values()),
        "swin3d:window=4x7x7": sum(Swin3DSpec(resolution=(8, 14, 14), window=(4, 7, 7)).closed_form().values()),
        "swin3d": sum(Swin3DSpec(resolution=(8, 14, 14)).closed_form().values()),
    }
    assert [each.words for each in video.contenders][1] == "Swin attention, 7×7 windows, each frame alone"
    longer = compare(["swin", "swin3d"], {"frames": [4, 16]}, resolution=(14, 14), window=(7, 7))
    windows = {frames: (min(8, frames), 7, 7) for frames in (4, 16)}  # a pair keeps the default of the time
    assert [point.costs["swin3d"] for point in longer.points] == [
        sum(Swin3DSpec(resolution=(frames, 14, 14), window=window).closed_form().values())
        for frames, window in windows.items()
    ]
    even = next(each for each in video.crossovers if each.other == "swin3d" and each.first == "vit")
    assert (even.tokens, even.equation) == (8 * 49, "thw = PM²")


def test_a_picture_of_a_volume_is_refused():
    with pytest.raises(UsageError, match="volume of 8×56×56 tokens, which has no picture"):
        look_at_windows(Swin3DSpec())


def test_the_command_line_takes_three_sides(attnscope, tmp_path):
    """Check the same sizes as flags, as a list and as text in a config file, and what the command refuses."""
    typed = attnscope("swin3d", "--resolution", "4x14x12", "--window", "2", "--no-time", "--json")
    spec = json.loads(typed.stdout)["spec"]
    assert (spec["resolution"], spec["window"]) == ([4, 14, 12], [2, 2, 2])
    config = tmp_path / "video.toml"
    config.write_text('[swin3d]\nresolution = [4, 14, 12]\nwindow = "2x2x2"\n', encoding="utf-8")
    read = json.loads(attnscope("swin3d", "--config", str(config), "--no-time", "--json").stdout)
    assert read["spec"] == spec
    again = Swin3DSpec(resolution=(4, 14, 12), window=2).command()
    assert again == "attnscope swin3d --resolution 4x14x12 --window 2"
    for words, message in (
        (("swin3d", "--resolution", "8x56"), "--resolution must be an integer or time x height x width"),
        (("windows", "--resolution", "8x56x56"), "--resolution must be an integer or height x width"),
        (("windows", "swin3d", "--token", "5,9"), "swin3d has a volume of 8×56×56 tokens, which has no picture"),
        (("compare", "vit", "swin3d:window=4x7"), "window must be an integer or time x height x width"),
    ):
        refused = attnscope(*words)
        assert refused.returncode == 2
        assert message in refused.stderr
        assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["swin3d_t", "swin3d_s", "swin3d_b"])
@pytest.mark.parametrize("video", [(16, 224, 224), (8, 112, 144)])
def test_attentions_in_torchvisions_networks_have_the_macs_of_their_spec(name, video):
    """Check each different layer; the second video needs padding, and clipped windows in the late stages."""
    calls = {}

    def keep(module, inputs):
        calls[spec_for(module, *inputs)] = module

    with torch.device("meta"):
        network = getattr(torchvision.models.video, name)().eval()
        for module in network.modules():
            if isinstance(module, ShiftedWindowAttention3d):
                module.register_forward_pre_hook(keep)
        with torch.no_grad():
            network(torch.empty(1, 3, *video))
    assert len(calls) >= 7
    for spec, module in list(calls.items()):
        assert macs_of(lambda spec=spec, module=module: module(torch.empty(spec.input_shape))) == spec.plan().macs, spec


def spec_for(module, x):
    """Return the Spec of a module of torchvision for an input."""
    return Swin3DSpec(
        dim=x.shape[-1],
        heads=module.num_heads,
        resolution=tuple(x.shape[1:4]),
        window=tuple(module.window_size),
        shift_size=tuple(module.shift_size),
    )
