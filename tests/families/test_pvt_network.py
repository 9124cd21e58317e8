"""PVT v2: timm's outputs, weights, parameters and MACs, the battery, and random networks."""

from dataclasses import replace

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from attnscope import UsageError, networks
from attnscope.networks.pvt.spec import PVTNetworkSpec
from attnscope.testing import (
    AttentionBattery,
    hold_backward_macs,
    hold_backward_memory,
    hold_elementwise_flops,
    hold_macs,
    hold_memory,
    hold_operators,
    hold_parameters,
    hold_saved,
    hold_steps,
    hold_trace,
)

SMALL = {"dim": 8, "heads": 1, "depths": (1, 2, 1, 1), "classes": 7}
TINY = {**SMALL, "multiples": (1, 2), "depths": (1, 2), "reductions": (2, 1), "mlp_ratios": (3, 2), "image": (20, 28)}


class TestBattery(AttentionBattery):
    specs = (
        PVTNetworkSpec(**TINY, scope="block", batch=2),
        PVTNetworkSpec(**TINY, scope="block", stage=2, kernel="sdpa", checkpoint="attention", proj_drop=0.1),
        PVTNetworkSpec(
            **{**TINY, "reductions": (8, 4, 2, 1)}, linear=True, scope="block", qkv_bias=False, checkpoint="block"
        ),
    )


@pytest.mark.parametrize("part", [{}, {"stage": 2}, {"batch": 2, "checkpoint": "block"}], ids=str)
def test_counts_and_memory_of_the_whole_and_of_a_stage(part):
    hold_network(PVTNetworkSpec(**TINY, **part))


def hold_network(spec):
    """Check everything that the battery checks, but the neighbourhood, which a whole network does not have."""
    for hold in (hold_steps, hold_parameters, hold_operators, hold_macs, hold_elementwise_flops, hold_trace):
        hold(spec)
    hold_memory(spec)
    hold_saved(spec)
    hold_backward_macs(spec, input_grad=False)
    hold_backward_memory(spec, input_grad=False)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("image", "linear"), [((64, 96), False), ((75, 101), False), ((64, 224), True)], ids=["even", "odd", "linear"]
)
def test_outputs_equal_timms(image, linear, kernel):
    spec = PVTNetworkSpec(**SMALL, image=image, linear=linear, kernel=kernel)
    sizes = {"embed_dims": (8, 16, 40, 64), "num_heads": (1, 2, 5, 8), "depths": SMALL["depths"], "num_classes": 7}
    theirs = timm.create_model("pvt_v2_b2", **sizes, linear=linear).double().eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.2)
    ours = networks.build(spec).double().eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, *image, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=1e-10)


sides = st.integers(4, 40)
random_networks = st.builds(
    PVTNetworkSpec,
    dim=st.sampled_from([4, 8]),
    heads=st.sampled_from([1, 2]),
    image=st.tuples(sides, sides),
    multiples=st.sampled_from([(1, 2), (1, 3)]),
    depths=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    reductions=st.just((1, 1)),
    mlp_ratios=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    classes=st.integers(1, 5),
    qkv_bias=st.booleans(),
    batch=st.integers(1, 2),
    stage=st.sampled_from([None, None, 1, 2]),
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
        ({"depths": (2,) * 5}, "multiples must have 5 numbers, one for each stage of depths (got 4)"),
        ({"reductions": (4, 2)}, "reductions must have 4 numbers, one for each stage of depths (got 2)"),
        ({"linear": True, "reductions": (4, 4, 2, 1)}, "linear and reductions both set the number of keys"),
        ({"image": 28}, "reductions must not exceed the grid of each stage, 7×7 in stage 1 (got 8); largest: 7"),
        ({"block": 1}, "block requires stage"),
        ({"stage": 5}, "stage must be between 1 and 4 (got 5)"),
        ({"heads": 3}, "dim must be divisible by heads 3 (got 64)"),
    ],
)
def test_an_invalid_network_raises_a_usage_error(given, message):
    with pytest.raises(UsageError) as error:
        PVTNetworkSpec(**given)
    assert str(error.value).startswith(message)


def test_a_block_of_a_preset_is_that_of_its_stage():
    spec = replace(PVTNetworkSpec(), scope="block", stage=3)
    attention = spec.attention()
    assert (attention.dim, attention.heads, attention.resolution, attention.reduction) == (320, 5, (14, 14), 2)
    assert spec.plan().macs == attention.plan().macs + 196 * 1280 * (2 * 320 + 9)


def test_a_network_with_fewer_stages_has_the_first_numbers_of_the_defaults():
    spec = PVTNetworkSpec(depths=(2, 1))
    assert [(stage.dim, spec.attention_of(stage, 0).reduction) for stage in spec.stages] == [(64, 8), (128, 4)]
    assert spec == PVTNetworkSpec(**{**spec.as_dict(), "multiples": (1, 2, 5, 8)})
