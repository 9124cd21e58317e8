"""Attention between channels: the battery, random Specs, timm's outputs and the formula of the papers."""

import pytest
import torch
from hypothesis import given
from timm.models.davit import ChannelAttention as DaViTAttention
from timm.models.xcit import XCA

from attnscope import UsageError
from attnscope.attentions.xca.attention import ChannelAttention
from attnscope.attentions.xca.spec import XCASpec
from attnscope.testing import AttentionBattery, hold_elementwise_flops, hold_macs, hold_trace
from tests.sampling import examples
from tests.strategies import specs_of

SMALL = {"dim": 15, "heads": 3, "resolution": (2, 7)}


class TestBattery(AttentionBattery):
    specs = tuple(
        XCASpec(**SMALL, variant=variant, **fields)
        for variant in ("xcit", "davit")
        for fields in (
            {},
            {"batch": 2, "qkv_bias": False},
            {"batch": 2, "dtype": "float64"},
            {"batch": 2, "dtype": "bfloat16"},
            {"attn_drop": 0.1, "proj_drop": 0.1},
        )
    )


@given(specs_of(XCASpec, kernel="eager"))
@examples(50)
def test_letters_closed_form_counters_and_trace_agree(spec):
    hold_macs(spec)
    hold_elementwise_flops(spec)
    hold_trace(spec)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("variant", "reference"), [("xcit", XCA), ("davit", DaViTAttention)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_outputs_and_gradients_equal_those_of_timm(variant, reference, bias, dtype, hold_equal):
    spec = XCASpec(**SMALL, variant=variant, qkv_bias=bias)
    hold_equal(spec, reference(15, num_heads=3, qkv_bias=bias), dtype=dtype)


def test_macs_follow_the_formula_of_the_papers():
    """Check 4NC² + 2NCd for XCiT-S12 and the first stage of DaViT-T, at 224 pixels."""
    for side, dim, heads, variant in ((14, 384, 8, "xcit"), (56, 96, 3, "davit")):
        n, d = side**2, dim // heads
        spec = XCASpec(dim=dim, heads=heads, resolution=side, variant=variant)
        assert spec.plan().macs == 4 * n * dim**2 + 2 * n * dim * d


def test_module_is_built_without_a_spec():
    assert ChannelAttention(12, 3)(torch.randn(2, 7, 12)).shape == (2, 7, 12)


def test_fused_kernel_is_rejected():
    with pytest.raises(UsageError, match=r"kernel must be eager for attention between channels \(got sdpa\)"):
        XCASpec(kernel="sdpa")
