"""Twins: timm's outputs and weights, the battery, random networks, and refusals."""

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from attnscope import UsageError, networks
from attnscope.networks.twins.spec import TwinsNetworkSpec
from attnscope.testing import AttentionBattery, hold_macs, hold_trace
from tests.families.test_pvt_network import hold_network

TINY = {
    "dim": 8,
    "heads": 1,
    "multiples": (1, 2),
    "depths": (2, 3),
    "reductions": (2, 1),
    "mlp_ratios": (3, 2),
    "window": (2, 3),
    "image": (24, 32),
    "classes": 7,
}


class TestBattery(AttentionBattery):
    specs = (
        TwinsNetworkSpec(**TINY, scope="block", batch=2, checkpoint="attention"),
        TwinsNetworkSpec(**TINY, scope="block", block=2, kernel="sdpa", checkpoint="block", proj_drop=0.1),
    )


@pytest.mark.parametrize("part", [{}, {"stage": 2, "batch": 2}, {"window": 0, "checkpoint": "block"}], ids=str)
def test_counts_and_memory_of_the_whole_and_of_a_stage(part):
    hold_network(TwinsNetworkSpec(**TINY | part))


@pytest.mark.parametrize(("kernel", "window"), [("eager", 3), ("sdpa", 0)])
def test_outputs_and_gradients_equal_timms(kernel, window):
    sizes = {"embed_dims": (8, 16, 40, 64), "num_heads": (1, 2, 5, 8), "depths": (2, 1, 3, 1), "num_classes": 7}
    name, own = (
        ("twins_svt_small", {"wss": (3, 3, 3, 3)}) if window else ("twins_pcpvt_small", {"mlp_ratios": (4,) * 4})
    )
    theirs = timm.create_model(name, **sizes, **own, img_size=(64, 96), sr_ratios=(8, 4, 2, 1)).double()
    spec = TwinsNetworkSpec(
        dim=8, heads=1, multiples=(1, 2, 5, 8), depths=(2, 1, 3, 1), window=window, image=(64, 96), kernel=kernel,
        classes=7,
    )  # fmt: skip
    torch.manual_seed(0)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.2)
    ours = networks.build(spec).double().eval()
    ours.load_state_dict(theirs.eval().state_dict())
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    made = [network(image) for network, image in ((ours, images.requires_grad_()), (theirs, images))]
    torch.testing.assert_close(*made, rtol=0, atol=1e-10)
    directions = torch.arange(14, dtype=torch.float64).cos().view(2, 7)
    mine, other = (torch.autograd.grad((each * directions).sum(), images)[0] for each in made)
    torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-10)


random_networks = st.builds(
    TwinsNetworkSpec,
    dim=st.sampled_from([4, 8]),
    heads=st.sampled_from([1, 2]),
    image=st.tuples(st.integers(1, 4), st.integers(1, 4)).map(lambda sides: (8 * sides[0], 8 * sides[1])),
    multiples=st.sampled_from([(1, 2), (1, 3)]),
    depths=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    window=st.sampled_from([0, 1, 2, 3, (2, 3)]),
    reductions=st.sampled_from([(1, 1), (2, 1)]),
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
        (
            {"image": 228},
            "image must be divisible by 32, the side of a token of the last stage (got 228); nearest: 224",
        ),
        ({"window": (0, 7)}, "window must be 0 or at least 1 on both axes (got 0x7)"),
        ({"reductions": (4, 2)}, "reductions must have 4 numbers, one for each stage of depths (got 2)"),
        (
            {"image": 64, "reductions": (8, 16, 2, 1)},
            "reductions must not exceed the grid of each stage, 8×8 in stage 2 (got 16); largest: 8",
        ),
        ({"block": 1}, "block requires stage"),
        ({"heads": 3}, "dim must be divisible by heads 3 (got 64)"),
    ],
)
def test_an_invalid_network_raises_a_usage_error(given, message):
    with pytest.raises(UsageError) as error:
        TwinsNetworkSpec(**given)
    assert str(error.value).startswith(message)


def test_blocks_of_twins_svt_alternate_and_those_of_twins_pcpvt_do_not():
    svt, pcpvt = TwinsNetworkSpec(), TwinsNetworkSpec(window=0)
    for spec, names in ((svt, ["twins", "pvt", "twins"]), (pcpvt, ["pvt"] * 3)):
        assert [spec.attention_of(spec.stages[2], block).name for block in range(3)] == names
