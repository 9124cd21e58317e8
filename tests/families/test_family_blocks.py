"""Blocks with other parts than norm, attention and MLP: the battery, and timm's outputs and gradients."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.efficientvit_mit import EfficientVitBlock
from timm.models.mobilevit import LinearTransformerBlock
from torch import nn

from attnscope import UsageError, networks
from attnscope.testing import AttentionBattery, hold_elementwise_flops, hold_macs, hold_trace
from tests.families.conftest import macs_of


def block(name, **fields):
    return networks.asked(name, fields, "block")


def unprefixed(state):
    return {name.removeprefix("block."): value for name, value in state.items()}


SEPARABLE = {"dim": 12, "resolution": (4, 6), "patch": (2, 3)}


class TestMobileViT(AttentionBattery):
    specs = (
        block("separable", **SEPARABLE, batch=2),
        block("separable", **SEPARABLE, qkv_bias=False, mlp_ratio=1.5, checkpoint="block", proj_drop=0.1),
        block("separable", **SEPARABLE, batch=2, checkpoint="attention", dtype="float64"),
        block("separable", **SEPARABLE, batch=2, dtype="bfloat16"),
    )


class InPatches(nn.Module):
    """timm's block between the unfolding and folding of timm's MobileVitV2Block."""

    def __init__(self, block, patch) -> None:
        super().__init__()
        self.block, self.patch = block, patch

    def forward(self, x):
        (b, c, height, width), (p, q) = x.shape, self.patch
        r, s = height // p, width // q
        x = x.reshape(b, c, r, p, s, q).permute(0, 1, 3, 5, 2, 4).reshape(b, c, -1, r * s)
        return self.block(x).reshape(b, c, p, q, r, s).permute(0, 1, 4, 2, 5, 3).reshape(b, c, height, width)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_mobilevits_block_equals_timms(dtype, hold_equal):
    theirs = InPatches(LinearTransformerBlock(12), (2, 3))
    hold_equal(block("separable", **SEPARABLE), theirs, dtype=dtype, loaded=unprefixed)


LINEAR = {"dim": 12, "head_dim": 4, "resolution": (5, 3), "scales": (3, 5)}


class TestEfficientViT(AttentionBattery):
    specs = (
        block("linear", **LINEAR, batch=2),
        block("linear", **LINEAR, qkv_bias=True, mlp_ratio=1.5, checkpoint="block"),
        block("linear", **LINEAR, batch=2, checkpoint="attention", dtype="float64"),
        block("linear", **LINEAR, batch=2, proj_drop=0.1, dtype="bfloat16"),
    )


def linear_attention(q, k, v, eps=1e-5):
    """Divide the sums of values, weighted by q·kᵀ, by the sum of the weights; v has a last channel of ones."""
    sums = (q @ k.transpose(-1, -2)) @ v
    return sums[..., :-1] / (sums[..., -1:] + eps)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_efficientvits_block_equals_timms(dtype, hold_equal):
    theirs = EfficientVitBlock(12, head_dim=4, expand_ratio=4)
    if dtype == torch.float64:
        theirs.context_module.main._attn = linear_attention  # timm's own is in float32
    hold_equal(block("linear", **LINEAR | {"scales": (5,)}), theirs, dtype=dtype)


sides = st.integers(1, 4)
shared = {
    "dim": st.integers(1, 3).map(lambda width: 4 * width),
    "batch": st.integers(1, 2),
    "qkv_bias": st.booleans(),
    "mlp_ratio": st.sampled_from([0.5, 1.0, 4.0]),
}
random_blocks = st.one_of(
    st.builds(partial(block, "linear"), resolution=st.tuples(sides, sides), head_dim=st.sampled_from([2, 4]), **shared),
    st.builds(
        partial(block, "separable"),
        resolution=st.tuples(sides, sides).map(lambda counts: (2 * counts[0], 3 * counts[1])),
        patch=st.just((2, 3)),
        **shared,
    ),
)


@given(random_blocks)
@settings(max_examples=15)
def test_letters_closed_form_formula_counters_and_trace_agree(spec):
    hold_macs(spec)
    hold_elementwise_flops(spec)
    hold_trace(spec)
    assert spec.plan().macs == spec.complexity().own_macs


@pytest.mark.parametrize(
    ("spec", "theirs", "shape"),
    [
        (block("linear", batch=2), lambda: EfficientVitBlock(128, head_dim=16), (2, 128, 14, 14)),
        (block("separable", batch=2), lambda: LinearTransformerBlock(128), (2, 128, 4, 256)),
    ],
    ids=["linear", "separable"],
)
def test_macs_and_parameters_of_published_sizes_are_timms(spec, theirs, shape):
    with torch.device("meta"):
        reference, ours = theirs(), spec.build()
    assert spec.plan().macs == macs_of(lambda: reference(torch.empty(shape)))
    counted = [sum(each.numel() for each in module.parameters()) for module in (reference, ours)]
    assert counted == [spec.plan().params] * 2
    assert ours.state_dict().keys() == reference.state_dict().keys()


def test_an_mbconv_has_a_hidden_channel():
    with pytest.raises(UsageError, match="mlp_ratio must be at least 1/dim"):
        block("linear", mlp_ratio=0.01, dim=16)
