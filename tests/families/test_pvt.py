"""PVT's attention: the battery, random Specs, timm's outputs and the formula of the paper."""

import pytest
import torch
from hypothesis import given
from timm.models.pvt_v2 import Attention
from timm.models.twins import GlobalSubSampleAttn

from attnscope import UsageError
from attnscope.attentions.pvt.attention import SpatialReductionAttention
from attnscope.attentions.pvt.spec import PVTSpec
from attnscope.testing import AttentionBattery, hold_elementwise_flops, hold_macs, hold_trace
from tests.sampling import examples
from tests.strategies import specs_of

SMALL = {"dim": 12, "heads": 3, "resolution": (4, 10), "reduction": 2}
POOLED = {"dim": 12, "heads": 3, "resolution": (8, 15), "linear": True}


class TestBattery(AttentionBattery):
    specs = (
        PVTSpec(**SMALL),
        PVTSpec(**SMALL, batch=3, qkv_bias=False),
        PVTSpec(**{**SMALL, "resolution": (7, 11), "reduction": 3}),  # a row and two columns are not part of any key
        PVTSpec(**{**SMALL, "resolution": (5, 7), "reduction": 5}, batch=2),  # a single key
        PVTSpec(**{**SMALL, "reduction": 1}, batch=3, kv_heads=1),
        PVTSpec(**{**SMALL, "heads": 4}, kv_heads=2, batch=2),
        PVTSpec(**SMALL, batch=2, dtype="float64"),
        PVTSpec(**SMALL, batch=2, dtype="bfloat16"),
        PVTSpec(**SMALL, batch=2, kernel="sdpa"),
        PVTSpec(**SMALL, batch=2, kernel="math"),
        PVTSpec(**SMALL, attn_drop=0.1, proj_drop=0.1),
        PVTSpec(**POOLED),
        PVTSpec(**POOLED, batch=2, kernel="sdpa"),
        PVTSpec(**POOLED, batch=2, dtype="bfloat16"),
        PVTSpec(**{**POOLED, "resolution": (3, 5)}, batch=2, kv_heads=1),  # some keys are the same averages
        PVTSpec(resolution=28),  # large enough for torch to run the convolution with a BLAS library
    )


@given(specs_of(PVTSpec))
@examples(50)
def test_letters_closed_form_counters_and_trace_agree(spec):
    hold_macs(spec)
    hold_elementwise_flops(spec)
    hold_trace(spec)


@pytest.mark.parametrize("reduction", [1, 2, 3, 7, None])
@pytest.mark.parametrize("resolution", [(7, 7), (8, 11)])
@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_outputs_and_gradients_equal_those_of_timm(resolution, reduction, kernel, dtype, hold_equal):
    reference = Attention(12, num_heads=3, sr_ratio=reduction or 1, linear_attn=reduction is None)
    spec = PVTSpec(dim=12, heads=3, resolution=resolution, reduction=reduction, linear=reduction is None, kernel=kernel)
    hold_equal(spec, reference, lambda x: (x, resolution), dtype)


@pytest.mark.parametrize("reduction", [2, 3])
def test_outputs_and_gradients_equal_those_of_twins(reduction, hold_equal):
    spec = PVTSpec(dim=12, heads=3, resolution=(8, 11), reduction=reduction)
    hold_equal(spec, GlobalSubSampleAttn(12, 3, sr_ratio=reduction), lambda x: (x, (8, 11)))


def test_macs_follow_the_formula_of_the_paper():
    """Check the four stages of PVT-Small at 224 pixels: 2NC² + M·R²C²[R>1] + 2MC² + 2NMC."""
    for side, dim, heads, reduction in ((56, 64, 1, 8), (28, 128, 2, 4), (14, 320, 5, 2), (7, 512, 8, 1)):
        n, m = side**2, (side // reduction) ** 2
        macs = 2 * n * dim**2 + m * reduction**2 * dim**2 * (reduction > 1) + 2 * m * dim**2 + 2 * n * m * dim
        assert PVTSpec(dim=dim, heads=heads, resolution=side, reduction=reduction).plan().macs == macs


def test_macs_of_the_linear_variant_follow_its_formula():
    """Check the stages of PVT v2-B2-Li at 224 pixels: 2NC² + 49C² + 98C² + 98NC."""
    for side, dim, heads in ((56, 64, 1), (28, 128, 2), (14, 320, 5), (7, 512, 8)):
        n = side**2
        macs = 2 * n * dim**2 + 49 * dim**2 + 98 * dim**2 + 98 * n * dim
        assert PVTSpec(dim=dim, heads=heads, resolution=side, linear=True).plan().macs == macs


def test_module_is_built_without_a_spec():
    module = SpatialReductionAttention(12, 3, resolution=(4, 10), reduction=2)
    assert module(torch.randn(2, 40, 12)).shape == (2, 40, 12)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"resolution": (7, 9), "reduction": 8}, r"reduction must not exceed resolution 7x9 \(got 8\); largest: 7"),
        ({"linear": True, "reduction": 2}, "linear and reduction both set the number of keys; give one of them"),
    ],
)
def test_contradictions_are_rejected(fields, message):
    with pytest.raises(UsageError, match=message):
        PVTSpec(**fields)
