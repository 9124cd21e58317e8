"""MaxViT: timm's outputs, gradients, weights, parameters and MACs, the battery, and random networks."""

from dataclasses import replace

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models import maxxvit
from torch.utils.flop_counter import FlopCounterMode

from attnscope import UsageError, networks
from attnscope.networks.maxvit.spec import MaxViTNetworkSpec
from attnscope.networks.presets import presets
from attnscope.testing import AttentionBattery, hold_macs, hold_trace
from tests.families.test_pvt_network import hold_network

TINY = {
    "dim": 8,
    "heads": 1,
    "multiples": (1, 2),
    "depths": (2, 2),
    "stem": 12,
    "partition": (2, 3),
    "classes": 5,
    "image": (32, 24),
}


class TestBattery(AttentionBattery):
    specs = (
        MaxViTNetworkSpec(**TINY, scope="block", block=2, batch=2),
        MaxViTNetworkSpec(**TINY, scope="block", stage=2, block=2, qkv_bias=False, checkpoint="attention"),
    )


@pytest.mark.parametrize(
    "part", [{}, {"stage": 2, "batch": 2, "checkpoint": "block"}, {"scope": "block", "batch": 2}], ids=str
)
def test_counts_and_memory_of_the_whole_and_of_a_stage(part):
    hold_network(MaxViTNetworkSpec(**TINY, **part))


def of_timm(spec):
    """Build timm's network of a Spec in float64, with random parameters and statistics."""
    partition = {"window_size": spec.partition, "grid_size": spec.partition}
    options = maxxvit._tf_cfg()
    attention = replace(options["transformer_cfg"], dim_head=spec.dim // spec.heads, **partition)
    dims = tuple(stage.dim for stage in spec.stages)
    config = maxxvit.MaxxVitCfg(
        embed_dim=dims,
        depths=spec.depths,
        block_type=("M",) * len(dims),
        stem_width=spec.stem,
        stem_bias=True,
        head_hidden_size=dims[-1],
        conv_cfg=options["conv_cfg"],
        transformer_cfg=attention,
    )
    theirs = maxxvit.MaxxVit(config, img_size=spec.image, num_classes=spec.classes).double()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
        for name, buffer in theirs.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.copy_(torch.rand_like(buffer) + 0.5)
    return theirs


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_outputs_gradients_and_counts_equal_timms(kernel):
    spec = MaxViTNetworkSpec(**{**TINY, "heads": 2, "partition": (4, 2), "image": (64, 48)}, kernel=kernel)
    theirs, ours = of_timm(spec), networks.build(spec).double()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, *spec.image, dtype=torch.float64)
    for mode in (False, True):
        results = [network.train(mode)(images) for network in (ours, theirs)]
        torch.testing.assert_close(*results, rtol=0, atol=1e-10)
        for network, result in zip((ours, theirs), results, strict=True):
            network.zero_grad()
            result.square().sum().backward()
        gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
        ours.translate(gradients)  # gradients are converted as weights are
        for name, parameter in ours.named_parameters():
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-10, atol=1e-10, msg=name)
    assert spec.params() == spec.plan().params == sum(parameter.numel() for parameter in theirs.parameters())
    assert macs_of(theirs, spec) == spec.macs() == spec.plan().macs


def macs_of(network, spec):
    """Return the MACs that torch counts on timm's network, without the einsums that look up its position biases."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval().to("meta")(torch.empty(1, 3, *spec.image, device="meta", dtype=next(network.parameters()).dtype))
    looked_up = sum(bias_macs(module, spec) for module in network.modules() if isinstance(module, maxxvit.AttentionCl))
    return counter.get_total_flops() // 2 - looked_up


def bias_macs(module, spec):
    """Return the MACs of both einsums: over the columns of the table, then over its rows."""
    (p, q), heads = spec.partition, module.num_heads
    return heads * (p**2 * (2 * p - 1) * (2 * q - 1) + p**2 * q**2 * (2 * q - 1))


random_networks = st.builds(
    MaxViTNetworkSpec,
    dim=st.sampled_from([4, 8]),
    heads=st.sampled_from([1, 2]),
    image=st.sampled_from([(16, 32), (32, 16)]),
    multiples=st.sampled_from([(1, 2), (1, 3)]),
    depths=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    stem=st.sampled_from([4, 6]),
    partition=st.sampled_from([(1, 2), (2, 2), (2, 1)]),
    mlp_ratio=st.sampled_from([4.0, 1.5]),
    classes=st.integers(1, 5),
    qkv_bias=st.booleans(),
    batch=st.integers(1, 2),
    stage=st.sampled_from([None, None, 1, 2]),
)


@given(random_networks)
@settings(max_examples=3)
def test_letters_closed_form_formula_counters_and_trace_agree(spec):
    plan = spec.plan()
    hold_macs(spec)
    hold_trace(spec)
    assert plan.macs == spec.complexity().own_macs
    if spec.is_whole:
        assert (plan.params, plan.macs) == (spec.params(), spec.batch * spec.macs())


@pytest.mark.parametrize("name", ["maxvit-t-224", "maxvit-s-384"])
def test_presets_have_timms_macs(name):
    (preset,) = [each for each in presets() if each.name == name]
    with torch.device("meta"):
        theirs = timm.create_model(preset.timm)
    assert macs_of(theirs, preset.spec) == preset.macs


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"image": 240}, "image must be divisible by 32, since the stem and 4 stages halve it (got 240); nearest: 224"),
        (
            {"image": 256},
            "partition must divide the grid of each stage, 64×64 in stage 1 (got 7); at image 256, 8 does",
        ),
        (
            {"dim": 66},
            "dim must be divisible by 4, since squeeze-and-excitation has a quarter of the channels (got 66)",
        ),
        ({"heads": 3}, "dim must be divisible by heads 3 (got 64)"),
        ({"block": 1}, "block requires stage"),
    ],
)
def test_an_invalid_network_raises_a_usage_error(given, message):
    with pytest.raises(UsageError) as error:
        MaxViTNetworkSpec(**given)
    assert str(error.value).startswith(message)


def test_the_first_block_of_a_stage_halves_the_grid():
    spec = MaxViTNetworkSpec()
    sizes = [(spec.convolution_of(stage, 0).before, stage.grid, stage.dim) for stage in spec.stages]
    assert sizes == [
        ((112, 112), (56, 56), 64),
        ((56, 56), (28, 28), 128),
        ((28, 28), (14, 14), 256),
        ((14, 14), (7, 7), 512),
    ]
    assert replace(spec, scope="block", stage=2, block=2).input_shape == (1, 128, 28, 28)
