"""NAT and DiNAT: a definition with dense gathers, official names, published sizes, the battery, and random networks."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from attnscope import UsageError, networks
from attnscope.networks.nat.spec import NATNetworkSpec
from attnscope.testing import AttentionBattery, hold_macs, hold_trace
from tests.families.test_pvt_network import hold_network

TINY = {
    "dim": 4,
    "heads": 2,
    "multiples": (1, 2),
    "depths": (2, 3),
    "neighborhood": (3, 3),
    "dilations": (2, 1),
    "classes": 3,
    "image": (28, 36),
}


class TestBattery(AttentionBattery):
    specs = (
        NATNetworkSpec(**TINY, scope="block", batch=2),
        NATNetworkSpec(**TINY, scope="block", block=2, layer_scale=True, checkpoint="attention", batch=2),
        NATNetworkSpec(**TINY, scope="block", stage=2, position_bias=False, proj_drop=0.1, checkpoint="block"),
    )


@pytest.mark.parametrize("part", [{}, {"stage": 2}, {"batch": 2, "checkpoint": "block", "layer_scale": True}], ids=str)
def test_counts_and_memory_of_the_whole_and_of_a_stage(part):
    hold_network(NATNetworkSpec(**TINY, **part))


def nearest(place, side, size, dilation):
    """Return the keys of a token along an axis: `size` tokens at its offset, pushed inward at a border."""
    alike = [other for other in range(side) if other % dilation == place % dilation]
    first = alike.index(place) - size // 2
    first = max(0, min(first, len(alike) - size))
    return alike[first : first + size]


def attention(state, path, x, heads, size, dilation):
    """Compute neighbourhood attention query by query, from a state dict with official names."""
    b, height, width, c = x.shape
    d = c // heads
    q, k, v = (
        F.linear(x, state[f"{path}.qkv.weight"], state[f"{path}.qkv.bias"])
        .view(b, height, width, 3, heads, d)
        .unbind(3)
    )
    out = torch.empty_like(q)
    for row in range(height):
        for column in range(width):
            rows, columns = nearest(row, height, size, dilation), nearest(column, width, size, dilation)
            near = [(r, s) for r in rows for s in columns]
            keys, values = (torch.stack([each[:, r, s] for r, s in near], 2) for each in (k, v))
            bias = torch.stack(
                [
                    state[f"{path}.rpb"][:, (r - row) // dilation + size - 1, (s - column) // dilation + size - 1]
                    for r, s in near
                ],
                1,
            )
            scores = torch.einsum("bhd,bhmd->bhm", q[:, row, column] * d**-0.5, keys) + bias
            out[:, row, column] = torch.einsum("bhm,bhmd->bhd", scores.softmax(-1), values)
    return F.linear(out.flatten(3), state[f"{path}.proj.weight"], state[f"{path}.proj.bias"])


def reference(spec, state, image):
    """Compute the network of the papers from a state dict with official names, where merging ends a level."""

    def norm(path, x):
        return F.layer_norm(x, x.shape[-1:], state[f"{path}.weight"], state[f"{path}.bias"])

    def convolved(path, x, bias):
        y = F.conv2d(x.permute(0, 3, 1, 2), state[f"{path}.weight"], state[f"{path}.bias"] if bias else None, 2, 1)
        return y.permute(0, 2, 3, 1)

    x = image.permute(0, 2, 3, 1)
    for each in (0, 1):
        x = convolved(f"patch_embed.proj.{each}", x, bias=True)
    x = norm("patch_embed.norm", x)
    for level, depth in enumerate(spec.depths):
        for block in range(depth):
            path = f"levels.{level}.blocks.{block}"
            dilation = spec.dilations[level] if block % 2 else 1
            heads = spec.heads * spec.multiples[level]
            branch = attention(state, f"{path}.attn", norm(f"{path}.norm1", x), heads, 3, dilation)
            x = x + state.get(f"{path}.gamma1", 1) * branch
            hidden = F.linear(norm(f"{path}.norm2", x), state[f"{path}.mlp.fc1.weight"], state[f"{path}.mlp.fc1.bias"])
            branch = F.linear(F.gelu(hidden), state[f"{path}.mlp.fc2.weight"], state[f"{path}.mlp.fc2.bias"])
            x = x + state.get(f"{path}.gamma2", 1) * branch
        if level + 1 < len(spec.depths):
            x = norm(
                f"levels.{level}.downsample.norm", convolved(f"levels.{level}.downsample.reduction", x, bias=False)
            )
    return F.linear(norm("norm", x).mean((1, 2)), state["head.weight"], state["head.bias"])


@pytest.mark.parametrize("layer_scale", [False, True])
def test_outputs_equal_the_definition_with_official_weights(layer_scale):
    spec = NATNetworkSpec(**TINY, layer_scale=layer_scale)
    ours = networks.build(spec).double().eval()
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.3)
    official = {name.replace("levels.1.downsample", "levels.0.downsample"): p for name, p in ours.state_dict().items()}
    image = torch.randn(2, 3, *spec.image, dtype=torch.float64)
    again = networks.build(spec).double().eval()
    again.load_state_dict(official)
    with torch.no_grad():
        torch.testing.assert_close(again(image), reference(spec, official, image), rtol=0, atol=1e-10)


random_networks = st.builds(
    NATNetworkSpec,
    dim=st.sampled_from([4, 8]),
    heads=st.sampled_from([1, 2]),
    image=st.tuples(st.integers(24, 40), st.integers(24, 40)),
    multiples=st.sampled_from([(1, 2), (1, 3)]),
    depths=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    neighborhood=st.sampled_from([(3, 3), (3, 1)]),
    dilations=st.sampled_from([None, (2, 1)]),
    layer_scale=st.booleans(),
    position_bias=st.booleans(),
    classes=st.integers(1, 5),
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
    ("fields", "params", "macs"),
    [
        ({"depths": (3, 4, 6, 5)}, 19_984_174, 2_694_812_672),
        ({}, 27_901_582, 4_295_226_368),
        ({"dim": 96, "heads": 3, "mlp_ratio": 2.0, "layer_scale": True}, 50_743_297, 7_772_302_848),
        ({"dim": 128, "heads": 4, "mlp_ratio": 2.0, "layer_scale": True}, 89_769_652, 13_677_094_912),
        ({"dilations": (8, 4, 2, 1)}, 27_901_582, 4_295_226_368),
    ],
)
def test_sizes_of_published_networks(fields, params, macs):
    """They were counted on the official networks."""
    spec = NATNetworkSpec(**fields)
    assert (spec.params(), spec.macs()) == (spec.plan().params, spec.plan().macs) == (params, macs)


def test_every_second_block_is_dilated():
    spec = NATNetworkSpec(dilations=(8, 4, 2, 1))
    dilations = [spec.attention_of(spec.stages[1], block).dilation for block in range(4)]
    assert dilations == [(1, 1), (4, 4), (1, 1), (4, 4)]
    assert len(spec.kinds(spec.stages[3])) == 1
    assert replace(spec, scope="block", stage=2, block=2).attention().dilation == (4, 4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"image": 192}, "neighborhood must not exceed the grid of each stage, 6×6 in stage 4 (got 7)"),
        ({"dilations": (9, 4, 2, 1)}, "dilations times neighborhood 7 must not exceed the grid of each stage"),
        ({"dilations": (2, 2)}, "dilations must have 4 numbers, one for each stage of depths (got 2)"),
        ({"dim": 9, "heads": 3}, "dim must be even"),
    ],
)
def test_an_invalid_network_raises_a_usage_error(given, message):
    with pytest.raises(UsageError) as error:
        NATNetworkSpec(**given)
    assert str(error.value).startswith(message)
