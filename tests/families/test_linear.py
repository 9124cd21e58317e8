"""Multi-scale linear attention: the battery, random Specs, timm's outputs, its N×N definition and the formula."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.models.efficientvit_mit import LiteMLA

from attnscope import UsageError
from attnscope.attentions.linear.attention import EPS, LinearAttention
from attnscope.attentions.linear.spec import LinearSpec
from attnscope.testing import AttentionBattery, hold_elementwise_flops, hold_macs, hold_trace
from tests.sampling import examples
from tests.strategies import specs_of

SMALL = {"dim": 12, "head_dim": 4, "resolution": (5, 8)}


class TestBattery(AttentionBattery):
    specs = (
        LinearSpec(**SMALL),
        LinearSpec(**SMALL, batch=2, qkv_bias=True),
        LinearSpec(**SMALL, batch=2, scales=(3, 5)),
        LinearSpec(**{**SMALL, "resolution": (1, 3)}, batch=2, scales=3),
        LinearSpec(**SMALL, batch=2, dtype="float64"),
        LinearSpec(**SMALL, proj_drop=0.1),
    )


@given(st.data())
@examples(50)
def test_letters_closed_form_counters_and_trace_agree(data):
    scales = data.draw(st.sampled_from([(1,), (3,), (5,), (3, 5)]))
    spec = data.draw(specs_of(LinearSpec, kernel="eager", attn_drop=0.0, qk_scale=None, scales=scales))
    hold_macs(spec)
    hold_elementwise_flops(spec)
    hold_trace(spec)


@pytest.mark.parametrize("scales", [(5,), (3, 5)], ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_outputs_and_gradients_equal_those_of_timm(scales, bias, hold_equal):
    """timm always computes the sums in float32, so that float32 is the most precise comparison."""
    spec = LinearSpec(**SMALL, scales=scales, qkv_bias=bias)
    reference = LiteMLA(12, 12, dim=4, scales=scales, use_bias=(bias, False))
    hold_equal(spec, reference, dtype=torch.float32)


class Quadratic(torch.nn.Module):
    """The N×N definition of equation 1: weights ReLU(q)·ReLU(k)ᵀ, divided by their sum."""

    def __init__(self, ours: LinearAttention) -> None:
        super().__init__()
        self.qkv, self.aggreg, self.proj, self.d = ours.qkv, ours.aggreg, ours.proj, ours.head_dim

    def forward(self, x):
        qkv = self.qkv["conv"](x)
        multi = torch.cat([qkv, *(scale(qkv) for scale in self.aggreg)], dim=1)
        q, k, v = multi.flatten(2).unflatten(1, (-1, 3, self.d)).transpose(-2, -1).unbind(2)
        weights = q.relu() @ k.relu().transpose(-2, -1)
        heads = weights @ v / (weights.sum(-1, keepdim=True) + EPS)
        return self.proj(heads.transpose(-2, -1).flatten(1, 2).unflatten(-1, x.shape[2:]))


def test_outputs_and_gradients_equal_the_quadratic_definition(hold_equal):
    spec = LinearSpec(**SMALL, scales=(3, 5))
    hold_equal(spec, Quadratic(spec.build()))


def test_macs_follow_the_formula():
    """Check 3NC² + Σₛ(3s²NC + 3NCd) + 2N(1+S)C(d+1) + N(1+S)C² for the stages of EfficientViT-B1 at 224 pixels."""
    for side, dim in ((14, 128), (7, 256)):
        n, d = side**2, 16
        macs = 3 * n * dim**2 + 75 * n * dim + 3 * n * dim * d + 4 * n * dim * (d + 1) + 2 * n * dim**2
        assert LinearSpec(dim=dim, resolution=side).plan().macs == macs


def test_module_is_built_without_a_spec():
    assert LinearAttention(12, head_dim=4)(torch.randn(2, 12, 5, 6)).shape == (2, 12, 5, 6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dim": 120}, r"dim must be divisible by head_dim 16 \(got 120\); nearest: 112 or 128"),
        ({"scales": (3, 4)}, r"scales must be odd \(got 4\); nearest: 3 or 5"),
        ({"kernel": "sdpa"}, r"kernel must be eager for linear attention \(got sdpa\)"),
        ({"attn_drop": 0.5}, r"attn_drop must be 0.0 for linear attention, which has no weights \(got 0.5\)"),
    ],
)
def test_contradictions_are_rejected(fields, message):
    with pytest.raises(UsageError, match=message):
        LinearSpec(**fields)
