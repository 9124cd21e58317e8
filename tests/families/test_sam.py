"""Attention of ViTDet and SAM: the battery, random Specs, timm's outputs and the formula."""

import pytest
import torch
from hypothesis import given
from timm.models.vision_transformer_sam import Attention, window_partition, window_unpartition

from attnscope import UsageError
from attnscope.attentions.sam.attention import RelativePositionAttention
from attnscope.attentions.sam.spec import SAMSpec
from attnscope.testing import AttentionBattery, hold_elementwise_flops, hold_macs, hold_trace
from tests.sampling import examples
from tests.strategies import specs_of

SMALL = {"dim": 12, "heads": 3, "resolution": (4, 10)}


class TestBattery(AttentionBattery):
    specs = tuple(
        SAMSpec(**{**SMALL, **fields}, window=window)
        for window in (2, 3, 0)  # 3 needs padding
        for fields in (
            {},
            {"batch": 2, "qkv_bias": False},
            {"batch": 2, "kernel": "sdpa"},
            {"batch": 2, "dtype": "float64"},
            {"batch": 2, "dtype": "bfloat16"},
            {"attn_drop": 0.1, "proj_drop": 0.1},
        )
    )


@given(specs_of(SAMSpec))
@examples(50)
def test_letters_closed_form_counters_and_trace_agree(spec):
    hold_macs(spec)
    hold_elementwise_flops(spec)
    hold_trace(spec)


class Windowed(torch.nn.Module):
    """timm's attention between its partition and the inverse of the partition, as in its `Block`."""

    def __init__(self, resolution, window) -> None:
        super().__init__()
        self.window = window
        size = (window, window) if window else resolution
        self.attn = Attention(12, num_heads=3, use_rel_pos=True, input_size=size)

    def forward(self, x):
        if not self.window:
            return self.attn(x)
        windows, padded = window_partition(x, self.window)
        return window_unpartition(self.attn(windows), self.window, x.shape[1:3], padded)


@pytest.mark.parametrize("window", [2, 3, 0])
@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_outputs_and_gradients_equal_those_of_timm(window, kernel, dtype, hold_equal):
    def without_prefix(state):
        return {name.removeprefix("attn."): value for name, value in state.items()}

    reference = Windowed((4, 10), window)
    hold_equal(SAMSpec(**SMALL, window=window, kernel=kernel), reference, dtype=dtype, loaded=without_prefix)


def test_macs_follow_the_formula():
    """Check 4n̂C² + 2k²n̂C + 2k·n̂·C with 70×70 padded tokens, and 4NC² + 2N²C + (h+w)NC, for SAM ViT-B."""
    c, padded, n = 768, 70**2, 64**2
    assert SAMSpec().plan().macs == 4 * padded * c**2 + 2 * 196 * padded * c + 2 * 14 * padded * c
    assert SAMSpec(window=0).plan().macs == 4 * n * c**2 + 2 * n**2 * c + 128 * n * c


def test_module_is_built_without_a_spec():
    module = RelativePositionAttention(12, 3, resolution=(4, 6), window=0)
    assert module(torch.randn(2, 4, 6, 12)).shape == (2, 4, 6, 12)
    with pytest.raises(UsageError, match="height = 4, width = 6"):
        module(torch.randn(2, 5, 6, 12))
