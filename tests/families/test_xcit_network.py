"""XCiT: timm's outputs, gradients, weights, parameters and MACs, the battery, and random networks."""

from dataclasses import replace
from functools import partial

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.xcit import XCABlock, Xcit
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from attnscope import UsageError, networks
from attnscope.networks.presets import presets
from attnscope.networks.xca.spec import XCiTNetworkSpec
from attnscope.testing import AttentionBattery, hold_elementwise_flops, hold_macs, hold_trace
from tests.families.test_pvt_network import hold_network

TINY = {"dim": 16, "heads": 2, "depth": 2, "class_depth": 2, "classes": 7, "image": (40, 72)}


class TestBattery(AttentionBattery):
    specs = (
        XCiTNetworkSpec(**TINY, scope="block", batch=2),
        XCiTNetworkSpec(**TINY, scope="block", qkv_bias=False, mlp_ratio=1.5, checkpoint="block", proj_drop=0.1),
        XCiTNetworkSpec(**TINY, scope="block", batch=2, checkpoint="attention", dtype="float64"),
        XCiTNetworkSpec(**TINY, scope="block", batch=2, dtype="bfloat16"),
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch": 2, "tokens_norm": False, "patch": 8, "image": (20, 24), "class_depth": 1, "checkpoint": "attention"},
        {"batch": 2, "fourier": False, "checkpoint": "block", "qkv_bias": False, "depth": 1},
    ],
    ids=str,
)
def test_counts_and_memory_of_the_whole(options):
    hold_network(XCiTNetworkSpec(**{**TINY, **options}))


class OnGrid(nn.Module):
    """timm's block with the grid as an argument of its own."""

    def __init__(self, block, grid) -> None:
        super().__init__()
        self.block, self.grid = block, grid

    def forward(self, x):
        return self.block(x, *self.grid)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_outputs_and_gradients_of_a_block_equal_timms(dtype, hold_equal):
    theirs = XCABlock(16, 2, qkv_bias=True, norm_layer=partial(nn.LayerNorm, eps=1e-6), eta=1.0)
    spec = XCiTNetworkSpec(**TINY, scope="block")

    def loaded(state):
        return {name.removeprefix("block."): value for name, value in state.items()}

    hold_equal(spec, OnGrid(theirs, spec.grid), dtype=dtype, loaded=loaded)


def of_timm(spec):
    """Build timm's network of a Spec in float64, with random parameters and statistics."""
    theirs = Xcit(
        img_size=spec.patch[0],
        patch_size=spec.patch[0],
        num_classes=spec.classes,
        embed_dim=spec.dim,
        depth=spec.depth,
        num_heads=spec.heads,
        mlp_ratio=spec.mlp_ratio,
        qkv_bias=spec.qkv_bias,
        cls_attn_layers=spec.class_depth,
        use_pos_embed=spec.fourier,
        tokens_norm=spec.tokens_norm,
    ).double()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
        for name, buffer in theirs.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.copy_(torch.rand_like(buffer) + 0.5)
    return theirs


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tokens_norm": False, "image": (75, 101), "class_depth": 1},
        {"fourier": False, "patch": 8, "qkv_bias": False, "mlp_ratio": 2.5},
    ],
    ids=str,
)
def test_outputs_gradients_and_counts_equal_timms(options):
    spec = XCiTNetworkSpec(**{**TINY, **options})
    theirs, ours = of_timm(spec), networks.build(spec).double()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, *spec.image, dtype=torch.float64)
    for mode in (False, True):
        results = [network.train(mode)(images) for network in (ours, theirs)]
        torch.testing.assert_close(*results, rtol=0, atol=1e-10)
        for network, result in zip((ours, theirs), results, strict=True):
            network.zero_grad()
            result.square().sum().backward()
        gradients = dict(theirs.named_parameters())
        for name, parameter in ours.named_parameters():
            torch.testing.assert_close(parameter.grad, gradients[name].grad, rtol=1e-10, atol=1e-10, msg=name)
    assert spec.params() == spec.plan().params == sum(parameter.numel() for parameter in theirs.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        theirs.eval().to("meta")(images[:1].to("meta"))
    assert counter.get_total_flops() == 2 * spec.macs() == 2 * spec.plan().macs


def test_two_equal_images_have_twice_the_gradient_of_one():
    """With another order of views, torch's batch norm misreads the gradient of a single image on the CPU."""
    network = networks.build(XCiTNetworkSpec(**TINY)).double().train()
    image = torch.randn(1, 3, *TINY["image"], dtype=torch.float64)
    for count in (1, 2):
        network(image.repeat(count, 1, 1, 1)).square().sum().div(count).backward()
        gradients = [parameter.grad for parameter in network.parameters()]
        network.zero_grad()
        if count == 1:
            alone = gradients
    for one, both in zip(alone, gradients, strict=True):
        torch.testing.assert_close(one, both, rtol=1e-8, atol=1e-8)


def test_official_checkpoints_are_converted():
    """There, one projection gives queries, keys and values of class attention."""
    network = networks.build(XCiTNetworkSpec(**TINY))
    official = {name.replace("pos_embed.", "pos_embeder."): value for name, value in network.state_dict().items()}
    for block in range(TINY["class_depth"]):
        for kind in ("weight", "bias"):
            path = f"cls_attn_blocks.{block}.attn"
            official[f"{path}.qkv.{kind}"] = torch.cat([official.pop(f"{path}.{one}.{kind}") for one in "qkv"])
    again = networks.build(XCiTNetworkSpec(**TINY))
    again.load_state_dict(official)
    image = torch.randn(1, 3, *TINY["image"])
    with torch.no_grad():
        assert torch.equal(network.eval()(image), again.eval()(image))


sides = st.integers(17, 60)
random_networks = st.builds(
    XCiTNetworkSpec,
    dim=st.sampled_from([8, 16]),
    heads=st.sampled_from([1, 2, 4]),
    image=st.tuples(sides, sides),
    patch=st.sampled_from([(8, 8), (16, 16)]),
    depth=st.integers(1, 3),
    class_depth=st.integers(1, 3),
    mlp_ratio=st.sampled_from([4.0, 1.5]),
    fourier=st.booleans(),
    tokens_norm=st.booleans(),
    classes=st.integers(1, 5),
    qkv_bias=st.booleans(),
    batch=st.integers(1, 2),
    scope=st.sampled_from(["model", "model", "block"]),
)


@given(random_networks)
@settings(max_examples=4)
def test_letters_closed_form_formula_counters_and_trace_agree(spec):
    plan = spec.plan()
    hold_macs(spec)
    hold_elementwise_flops(spec)
    hold_trace(spec)
    positions = sum(step.macs for step in plan.steps if step.name == "project_features")
    assert plan.macs == spec.complexity().own_macs + positions
    if spec.is_whole:
        assert (plan.params, plan.macs - positions) == (spec.params(), spec.batch * (spec.macs() - positions))


@pytest.mark.parametrize("name", ["xcit-nano-12-16-384", "xcit-tiny-12-8-224"])
def test_presets_have_timms_macs(name):
    (preset,) = [each for each in presets() if each.name == name]
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        timm.create_model(preset.timm).eval()(torch.empty(1, 3, *preset.spec.image))
    assert counter.get_total_flops() == 2 * preset.macs


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"patch": 14}, "patch must be 8 or 16 (got 14×14); nearest: 16"),
        ({"patch": (16, 8)}, "patch must be 8 or 16 (got 16×8)"),
        ({"dim": 100}, "dim must be divisible by 8, half of patch"),
        ({"heads": 5}, "dim must be divisible by heads 5 (got 192)"),
        ({"image": (8, 8), "dim": 12, "heads": 1, "block": 13}, "dim must be divisible by 8"),
        ({"kernel": "sdpa"}, "kernel must be eager for attention between channels (got sdpa)"),
        ({"block": 13}, "block must be between 1 and 12 (got 13)"),
    ],
)
def test_an_invalid_network_raises_a_usage_error(given, message):
    with pytest.raises(UsageError) as error:
        XCiTNetworkSpec(**given)
    assert str(error.value).startswith(message)


def test_a_block_of_a_preset_has_local_patch_interaction_between_attention_and_mlp():
    spec = replace(XCiTNetworkSpec(), scope="block")
    names = [step.name for step in spec.plan().steps]
    assert names.index("residual1") < names.index("mix_neighbours") < names.index("expand")
    assert spec.plan().macs == spec.attention().plan().macs + 196 * 192 * (8 * 192 + 18)
