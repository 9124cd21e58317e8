"""Separable attention: the battery, random Specs, timm's outputs in MobileViTv2's block, and the formula."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.models.mobilevit import LinearSelfAttention

from attnscope import UsageError
from attnscope.attentions.separable.attention import SeparableAttention
from attnscope.attentions.separable.spec import SeparableSpec
from attnscope.testing import AttentionBattery, hold_elementwise_flops, hold_macs, hold_trace
from tests.families.conftest import macs_of
from tests.sampling import examples
from tests.strategies import specs_of

SMALL = {"dim": 12, "resolution": (4, 6), "patch": (2, 3)}


class TestBattery(AttentionBattery):
    specs = (
        SeparableSpec(**SMALL),
        SeparableSpec(**SMALL, batch=2, qkv_bias=False),
        SeparableSpec(**{**SMALL, "resolution": (6, 9)}, batch=2),
        SeparableSpec(**{**SMALL, "resolution": (5, 7), "patch": 1}, batch=2),
        SeparableSpec(**{**SMALL, "resolution": (5, 7), "patch": (5, 7)}),
        SeparableSpec(**{**SMALL, "dim": 1}, batch=3),
        SeparableSpec(**SMALL, batch=2, dtype="float64"),
        SeparableSpec(**SMALL, batch=2, dtype="bfloat16"),
        SeparableSpec(**SMALL, attn_drop=0.1, proj_drop=0.1),
    )


@given(st.data())
@examples(50)
def test_letters_closed_form_counters_and_trace_agree(data):
    patch, counts = (data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3))) for _ in range(2))
    resolution = (patch[0] * counts[0], patch[1] * counts[1])
    spec = data.draw(specs_of(SeparableSpec, patch=patch, resolution=resolution, kernel="eager", qk_scale=None))
    hold_macs(spec)
    hold_elementwise_flops(spec)
    hold_trace(spec)


class InPatches(torch.nn.Module):
    """timm's attention between the unfolding and folding of timm's MobileVitV2Block."""

    def __init__(self, patch, bias) -> None:
        super().__init__()
        self.patch, self.attn = patch, LinearSelfAttention(12, bias=bias)

    def forward(self, x):
        b, c, height, width = x.shape
        p, q = self.patch
        r, s = height // p, width // q
        x = x.reshape(b, c, r, p, s, q).permute(0, 1, 3, 5, 2, 4).reshape(b, c, -1, r * s)
        x = self.attn(x).reshape(b, c, p, q, r, s).permute(0, 1, 4, 2, 5, 3)
        return x.reshape(b, c, height, width)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_outputs_and_gradients_equal_those_of_timm(bias, dtype, hold_equal):
    def loaded(state):
        return {name.removeprefix("attn."): value for name, value in state.items()}

    hold_equal(SeparableSpec(**SMALL, qkv_bias=bias), InPatches((2, 3), bias), dtype=dtype, loaded=loaded)


@pytest.mark.parametrize(("side", "dim"), [(32, 128), (16, 192), (8, 256)])
def test_macs_follow_the_formula_and_equal_those_of_timm(side, dim):
    """Check NC(1 + 2C) + NC² for the stages of MobileViTv2-1.0 at 256 pixels."""
    spec, n = SeparableSpec(dim=dim, resolution=side), side**2
    with torch.device("meta"):
        reference = LinearSelfAttention(dim)
    macs = macs_of(lambda: reference(torch.empty(1, dim, 4, n // 4)))
    assert spec.plan().macs == n * dim * (1 + 2 * dim) + n * dim**2 == macs == spec.complexity().own_macs


def test_tokens_at_other_places_of_the_patches_have_no_influence():
    spec = SeparableSpec(**SMALL)
    x = torch.randn(1, 12, 4, 6, requires_grad=True)
    (grad,) = torch.autograd.grad(spec.build()(x)[0, :, 1, 4].sum(), x)
    found = {tuple(place) for place in grad[0].abs().amax(0).nonzero().tolist()}
    assert found == spec.neighbourhood.keys_of((1, 4), (4, 6)) == {(1, 1), (1, 4), (3, 1), (3, 4)}


def test_module_takes_grids_of_whole_patches():
    module = SeparableAttention(12, patch=2)
    assert module(torch.randn(2, 12, 4, 6)).shape == (2, 12, 4, 6)
    with pytest.raises(UsageError, match=r"the grid must be divisible by the patch 2×2 \(got 5×6\); pad it first"):
        module(torch.randn(1, 12, 5, 6))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"patch": 3}, r"resolution must be divisible by patch 3 \(got 32\); nearest: 30 or 33"),
        (
            {"kernel": "sdpa"},
            r"kernel must be eager for separable attention, which has no scores of pairs \(got sdpa\)",
        ),
        ({"qk_scale": 0.5}, r"qk_scale must be unset for separable attention, .* \(got 0.5\)"),
    ],
)
def test_contradictions_are_rejected(fields, message):
    with pytest.raises(UsageError, match=message):
        SeparableSpec(**fields)
