"""CSWin: a definition in plain torch with official names, published sizes, the battery, and random networks."""

from math import ceil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from attnscope import UsageError, networks
from attnscope.networks.cswin.spec import CSWinNetworkSpec
from attnscope.networks.presets import read_network
from attnscope.testing import AttentionBattery, hold_macs, hold_trace
from tests.families.test_pvt_network import hold_network

TINY = {
    "dim": 4,
    "heads": 2,
    "multiples": (1, 2),
    "depths": (1, 2),
    "stripes": (2, 3),
    "image": (24, 48),
    "classes": 3,
}


class TestBattery(AttentionBattery):
    specs = (
        CSWinNetworkSpec(**TINY, scope="block", batch=2, checkpoint="attention"),
        CSWinNetworkSpec(**TINY, scope="block", stage=2, kernel="sdpa", checkpoint="block", proj_drop=0.1),
    )


@pytest.mark.parametrize("part", [{}, {"stage": 2, "batch": 2}, {"batch": 2, "checkpoint": "block"}], ids=str)
def test_counts_and_memory_of_the_whole_and_of_a_stage(part):
    hold_network(CSWinNetworkSpec(**TINY, **part))


def stripes(x, height, width):
    """Cut (b, c, y, x) into stripes of this height and width: (stripes, c, height, width)."""
    b, c, y, x_ = x.shape
    cut = x.view(b, c, y // height, height, x_ // width, width)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(-1, c, height, width)


def attention(state, path, x, heads, stripe):
    """Compute the attention of a block from a state dict with official names; x is (b, y, x, c)."""
    b, height, width, c = x.shape
    q, k, v = (each.permute(0, 3, 1, 2) for each in F.linear(x, *weights(state, f"{path}.qkv")).chunk(3, -1))
    shapes = [(height, width)] if height == width == stripe else [(height, stripe), (stripe, width)]
    part = c // len(shapes)
    made = []
    for index, (p, s) in enumerate(shapes):
        parts = [stripes(each[:, index * part : (index + 1) * part], p, s) for each in (q, k, v)]
        lepe = F.conv2d(parts[2], *weights(state, f"{path}.attns.{index}.get_v"), padding=1, groups=part)
        rows = [each.flatten(2).unflatten(1, (heads // len(shapes), -1)).transpose(2, 3) for each in parts]
        mixed = F.scaled_dot_product_attention(*rows).transpose(2, 3).reshape(lepe.shape)
        grid = (mixed + lepe).view(b, height // p, width // s, part, p, s)
        made.append(grid.permute(0, 1, 4, 2, 5, 3).reshape(b, height, width, part))
    return F.linear(torch.cat(made, -1), *weights(state, f"{path}.proj"))


def weights(state, path):
    return state[f"{path}.weight"], state[f"{path}.bias"]


def reference(spec, state, image):
    """Compute the network of the paper from a state dict with official names."""

    def norm(path, x):
        return F.layer_norm(x, x.shape[-1:], *weights(state, path))

    x = F.conv2d(image, *weights(state, "stage1_conv_embed.0"), stride=4, padding=2).permute(0, 2, 3, 1)
    x = norm("stage1_conv_embed.2", x)
    for index, depth in enumerate(spec.depths):
        if index:
            merged = F.conv2d(x.permute(0, 3, 1, 2), *weights(state, f"merge{index}.conv"), stride=2, padding=1)
            x = norm(f"merge{index}.norm", merged.permute(0, 2, 3, 1))
        heads = spec.heads * spec.multiples[index]
        for block in range(depth):
            path = f"stage{index + 1}.{block}"
            x = x + attention(state, path, norm(f"{path}.norm1", x), heads, spec.stripes[index])
            hidden = F.gelu(F.linear(norm(f"{path}.norm2", x), *weights(state, f"{path}.mlp.fc1")))
            x = x + F.linear(hidden, *weights(state, f"{path}.mlp.fc2"))
    return F.linear(norm("norm", x).mean((1, 2)), *weights(state, "head"))


def official(name):
    """Return the official name of a parameter."""
    parts = name.split(".")
    if parts[0] == "patch_embed":
        return ".".join(["stage1_conv_embed", {"proj": "0", "norm": "2"}[parts[1]], *parts[2:]])
    if parts[0] != "stages":
        return name
    if parts[2] == "downsample":
        return ".".join([f"merge{parts[1]}", parts[3].replace("proj", "conv"), *parts[4:]])
    rest = [part for part in parts[4:] if part != "attn"]
    return ".".join([f"stage{int(parts[1]) + 1}", parts[3], *rest])


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_outputs_and_gradients_equal_the_definition_with_official_weights(kernel):
    spec = CSWinNetworkSpec(
        dim=8, heads=2, depths=(1, 2, 1, 1), stripes=(1, 2, 2, 2), image=(64, 64), classes=3, kernel=kernel
    )
    torch.manual_seed(0)
    network = networks.build(spec).double().eval()
    state = {official(name): torch.randn_like(value) * 0.2 for name, value in network.state_dict().items()}
    network.load_state_dict(dict(state))
    image = torch.randn(2, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    made, expected = network(image), reference(spec, state, image)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-10)
    directions = torch.arange(6, dtype=torch.float64).cos().view(2, 3)
    mine, other = (torch.autograd.grad((each * directions).sum(), image)[0] for each in (made, expected))
    torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-10)


random_networks = st.builds(
    CSWinNetworkSpec,
    dim=st.sampled_from([4, 8]),
    heads=st.sampled_from([2, 4]),
    image=st.tuples(st.integers(1, 3), st.integers(1, 3)).map(lambda sides: (16 * sides[0], 16 * sides[1])),
    multiples=st.sampled_from([(1, 2), (1, 3)]),
    depths=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    stripes=st.sampled_from([(1, 1), (2, 1), (4, 2)]),
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
        ({"image": 226}, "image must be divisible by 4, the distance of two tokens (got 226); nearest: 224 or 228"),
        ({"image": 256}, "stripes must divide the grid of each stage, 16×16 in stage 3 (got 7); nearest: 4 or 8"),
        ({"stripes": (1, 2)}, "stripes must have 4 numbers, one for each stage of depths (got 2)"),
        ({"heads": 3, "dim": 63}, "heads must be even, half of them for each direction of the stripes (got 3)"),
        ({"block": 1}, "block requires stage"),
    ],
)
def test_an_invalid_network_raises_a_usage_error(given, message):
    with pytest.raises(UsageError) as error:
        CSWinNetworkSpec(**given)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [("cswin-t-224", 23, 4.3), ("cswin-s-224", 35, 6.8), ("cswin-b-224", 78, 15.0), ("cswin-b-384", 78, 47.0)],
)
def test_published_sizes_are_those_of_the_readme(name, params, macs):
    """The README rounds millions of parameters up; for CSWin-S it prints 6.9, which no count of the parts gives."""
    spec = read_network(name)
    assert (ceil(spec.params() / 1e6), round(spec.macs() / 1e9, 1)) == (params, macs)
