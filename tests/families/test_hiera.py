"""Mask unit attention: the battery, random Specs, timm's outputs and the formula."""

import pytest
import torch
from hypothesis import given
from timm.models.hiera import MaskUnitAttention as Reference

from attnscope import UsageError
from attnscope.attentions.hiera.attention import MaskUnitAttention
from attnscope.attentions.hiera.spec import HieraSpec
from attnscope.testing import AttentionBattery, hold_elementwise_flops, hold_macs, hold_trace
from tests.sampling import examples
from tests.strategies import specs_of

SMALL = {"dim": 10, "out_dim": 12, "heads": 3, "resolution": (8, 12)}


class TestBattery(AttentionBattery):
    specs = tuple(
        HieraSpec(**{**SMALL, "window": window, "q_stride": stride, **fields})
        for window, stride in ((4, 2), (4, 1), (0, 2), (0, 1))
        for fields in (
            {"batch": 2},
            {"qkv_bias": False},
            {"batch": 2, "kernel": "sdpa"},
            {"batch": 2, "dtype": "float64"},
            {"batch": 2, "dtype": "bfloat16"},
            {"attn_drop": 0.1, "proj_drop": 0.1},
        )
    )


@given(specs_of(HieraSpec, resolution=(4, 12)))
@examples(50)
def test_letters_closed_form_counters_and_trace_agree(spec):
    hold_macs(spec)
    hold_elementwise_flops(spec)
    hold_trace(spec)


@pytest.mark.parametrize(("window", "stride"), [(4, 2), (4, 1), (0, 2), (0, 1)])
@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_outputs_and_gradients_equal_those_of_timm(window, stride, kernel, dtype, hold_equal):
    spec = HieraSpec(**SMALL, window=window, q_stride=stride, kernel=kernel)
    units = (8 // window) * (12 // window) if window else 1
    ours = spec.build()
    reference = Reference(10, 12, 3, stride**2, (window // stride) ** 2, use_mask_unit_attn=bool(window))

    def unrolled(x):  # timm's order of tokens: positions in a unit are the slowest index
        tokens = ours.partition(x)
        return (tokens.unflatten(0, (-1, units)).transpose(1, 2).flatten(1, 2),)

    def rolled(y):
        return ours.reverse(y.unflatten(1, (-1, units)).transpose(1, 2).flatten(0, 1))

    hold_equal(spec, reference, unrolled, dtype, result=rolled)


def test_macs_follow_the_formula():
    """Check 3NCC′ + 2(N/s)·n_w·C′ + (N/s)C′² for blocks of Hiera-T at 224 pixels."""
    for side, dim, out, heads, window, stride in (
        (56, 96, 96, 1, 8, 1),
        (56, 96, 192, 2, 8, 2),
        (28, 192, 384, 4, 4, 2),
        (14, 384, 384, 4, 0, 1),
        (14, 384, 768, 8, 0, 2),
    ):
        n, s, keys = side**2, stride**2, window**2 or side**2
        spec = HieraSpec(dim=dim, out_dim=out, heads=heads, resolution=side, window=window, q_stride=stride)
        assert spec.plan().macs == 3 * n * dim * out + 2 * n // s * keys * out + n // s * out**2


def test_module_is_built_without_a_spec():
    module = MaskUnitAttention(10, 12, 3, resolution=(4, 8), window=4, q_stride=2)
    assert module(torch.randn(2, 4, 8, 10)).shape == (2, 2, 4, 12)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"resolution": 50}, r"resolution must be divisible by window 8 \(got 50\); nearest: 48 or 56"),
        ({"q_stride": 3}, r"window must be divisible by q_stride 3 \(got 8\); nearest: 6 or 9"),
        ({"window": 7}, r"window must be divisible by q_stride 2 \(got 7\); nearest: 4 or 8$"),  # 6 does not divide 56
        ({"window": (9, 5), "resolution": (56, 55)}, r"q_stride 2 \(got 9x5\); nearest: 8x4 or 14x6$"),
        ({"window": (5, 8)}, r"q_stride 2 \(got 5x8\); nearest: 4x8 or 8$"),
        ({"window": 7, "resolution": 30, "q_stride": 3}, r"q_stride 3 \(got 7\); nearest: 6 or 15$"),
        ({"window": 0, "q_stride": 3}, r"resolution must be divisible by q_stride 3 \(got 56\); nearest: 54 or 57"),
        ({"out_dim": 191}, r"out_dim must be divisible by heads 2 \(got 191\); nearest: 190 or 192, or heads 1 or 191"),
    ],
)
def test_contradictions_are_rejected(fields, message):
    with pytest.raises(UsageError, match=message):
        HieraSpec(**fields)
