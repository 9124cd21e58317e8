"""Hiera: timm's outputs, weights, parameters and MACs, the battery, and random networks."""

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from attnscope import UsageError, networks
from attnscope.networks.hiera.spec import HieraNetworkSpec
from attnscope.testing import AttentionBattery, hold_macs, hold_trace
from tests.families.test_pvt_network import hold_network

SMALL = {"dim": 8, "heads": 1, "depths": (1, 2, 2, 1), "classes": 7}
TINY = {"dim": 4, "heads": 1, "multiples": (1, 2), "depths": (1, 3), "classes": 3, "window": (4, 2), "image": (32, 48)}


class TestBattery(AttentionBattery):
    specs = (
        HieraNetworkSpec(**TINY, scope="block", batch=2),
        HieraNetworkSpec(**TINY, scope="block", stage=2, batch=2, checkpoint="attention"),
        HieraNetworkSpec(**TINY, scope="block", stage=2, block=2, kernel="sdpa", unit_stages=1),
        HieraNetworkSpec(**TINY, scope="block", stage=2, qkv_bias=False, proj_drop=0.1, checkpoint="block"),
        HieraNetworkSpec(**TINY, scope="block", stage=2, unit_stages=0, dtype="float64"),
    )


@pytest.mark.parametrize("part", [{}, {"stage": 2}, {"batch": 2, "checkpoint": "block"}], ids=str)
def test_counts_and_memory_of_the_whole_and_of_a_stage(part):
    hold_network(HieraNetworkSpec(**TINY, **part))


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize(("window", "units"), [(8, 2), (8, 3), (8, 0)])
def test_outputs_equal_timms(window, units, kernel):
    """The tokens stay on their grid here; timm reorders them."""
    image = (128, 192)
    spec = HieraNetworkSpec(**SMALL, image=image, window=window, unit_stages=units, kernel=kernel)
    theirs = timm.create_model(
        "hiera_tiny_224",
        img_size=image,
        embed_dim=SMALL["dim"],
        stages=SMALL["depths"],
        num_classes=SMALL["classes"],
        mask_unit_size=(window, window),
        mask_unit_attn=tuple(stage < units for stage in range(4)),
    )
    theirs = theirs.double().eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.2)
    ours = networks.build(spec).double().eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, *image, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=1e-10)


random_networks = st.builds(
    lambda grid, **rest: HieraNetworkSpec(image=(16 * grid[0], 16 * grid[1]), window=4, **rest),
    grid=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dim=st.sampled_from([4, 8]),
    heads=st.sampled_from([1, 2]),
    multiples=st.sampled_from([(1, 2), (1, 3)]),
    depths=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    unit_stages=st.integers(0, 2),
    mlp_ratio=st.sampled_from([1.0, 4.0]),
    classes=st.integers(1, 5),
    qkv_bias=st.booleans(),
    batch=st.integers(1, 2),
    stage=st.sampled_from([None, None, 1, 2]),
    scope=st.sampled_from(["model", "block"]),
)


@given(random_networks)
@settings(max_examples=10)
def test_letters_closed_form_formula_counters_and_trace_agree(spec):
    plan = spec.plan()
    hold_macs(spec)
    hold_trace(spec)
    assert plan.macs == spec.complexity().own_macs
    if spec.is_whole:
        assert (plan.params, plan.macs) == (spec.params(), spec.batch * spec.macs())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"image": 200}, "image must be divisible by 32, for whole mask units and cells in each stage (got 200)"),
        ({"window": 6}, "window must be divisible by 4, since 2 stages pool mask units (got 6); nearest: 4 or 8"),
        ({"multiples": (1, 2, 2, 4)}, "multiples must increase, since each stage widens (got 2 after 2)"),
    ],
)
def test_an_invalid_network_raises_a_usage_error(given, message):
    with pytest.raises(UsageError) as error:
        HieraNetworkSpec(**given)
    assert str(error.value).startswith(message)


def test_the_first_block_of_a_stage_attends_as_the_previous_stage_does():
    spec = HieraNetworkSpec()
    first, second = (spec.attention_of(spec.stages[2], block) for block in (0, 1))
    assert (first.resolution, first.window, first.q_stride, first.dim, first.out_dim) == ((28, 28), (4, 4), 2, 192, 384)
    assert (second.resolution, second.is_global, second.q_stride) == ((14, 14), True, 1)
