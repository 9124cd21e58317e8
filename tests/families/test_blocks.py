"""Blocks of all attentions: the generic battery, counters, and a reference of torch's own layers."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attnscope import UsageError, attentions, explore, networks
from attnscope.attentions import discovery
from attnscope.networks.block.spec import BlockSpec, block_class
from attnscope.testing import AttentionBattery, hold_macs

SMALL = {
    "cross": {"tokens": 5, "keys": 7, "dim": 12, "heads": 3, "batch": 2},
    "cswin": {"resolution": (4, 6), "dim": 12, "heads": 2, "stripe": 2},
    "maxvit": {"resolution": (6, 4), "dim": 12, "heads": 3, "partition": 2, "batch": 2},
    "sam": {"resolution": (5, 7), "dim": 12, "heads": 3, "window": 3},
    "swin3d": {"resolution": (3, 5, 7), "dim": 12, "heads": 3, "window": (2, 3, 2)},
}
SMALL = {name: values for name, values in SMALL.items() if name not in networks.names()}
"""Small values of each attention whose blocks are not those of a network."""
BLOCKS = [block_class(attentions.spec_class(name))(**values) for name, values in SMALL.items()]


class TestBattery(AttentionBattery):
    specs = (
        *BLOCKS,
        replace(BLOCKS[0], mlp_ratio=1.5, checkpoint="block", kernel="sdpa", proj_drop=0.1),
        replace(BLOCKS[1], mlp_ratio=0.5, checkpoint="attention", qkv_bias=False, batch=2),
    )


def test_every_attention_has_a_block():
    for name in discovery.built_in():
        if name not in networks.names():
            hold_macs(networks.asked(name, {}, "block").of_size(14))


def test_a_block_has_the_attention_with_its_defaults():
    for name in discovery.built_in():
        if name not in networks.names():
            assert networks.asked(name, {}, "block").attention() == attentions.spec_class(name)()


def test_an_attention_can_refuse_a_block():
    class Alone(attentions.spec_class("swin3d")):
        WITHOUT_BLOCK = "its output is shorter"

    with pytest.raises(
        UsageError, match="scope block is not available for swin3d: its output is shorter; use scope att"
    ):
        block_class(Alone)()


@pytest.mark.parametrize("spec", BLOCKS, ids=lambda spec: spec.name)
def test_a_block_equals_its_definition(spec):
    """A block adds the attention and the MLP, each of the normalized tokens."""
    torch.manual_seed(0)
    block = networks.build(spec).double().eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    x, *others = [torch.randn(shape, dtype=torch.float64) for shape in spec.input_shapes]
    c = (spec.dim,)
    expected = x + block.attn(F.layer_norm(x, c, block.norm1.weight, block.norm1.bias), *others)
    hidden = F.gelu(block.mlp.fc1(F.layer_norm(expected, c, block.norm2.weight, block.norm2.bias)))
    torch.testing.assert_close(block(x, *others), expected + block.mlp.fc2(hidden), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SMALL)
def test_a_block_is_explored_on_request(name):
    spec = networks.asked(name, {**SMALL[name], "mlp_ratio": 2.0}, "block")
    report = explore(spec, time=False, audit=True)
    assert report.audit.agree
    assert report.audit.ways == ["letters", "closed form", "fvcore", "torch"]
    assert report.spec["network"] == name
    assert report.totals.macs == spec.complexity().own_macs
    alone = spec.attention()
    assert report.totals.macs == alone.plan().macs + 4 * spec.batch * spec.tokens_of_mlp * spec.dim**2


def test_an_attention_without_networks_has_no_model():
    with pytest.raises(
        UsageError, match=r"scope must be attention or block for swin3d.*\(got model\); use scope block"
    ):
        networks.asked("swin3d", {}, "model")
    with pytest.raises(UsageError, match="mlp_ratio must be at least 1/dim"):
        networks.asked("swin3d", {"mlp_ratio": 0.01, "dim": 9}, "block")
    assert networks.without_effect("swin3d", {"mlp_ratio": 2.0}, "attention") == {"mlp_ratio": "{scope} block"}


def test_the_command_of_a_block_explores_it_again():
    spec = replace(BLOCKS[-1], mlp_ratio=2.0)
    words = spec.command().split()
    assert isinstance(spec, BlockSpec)
    assert words[:2] == ["attnscope", "swin3d"]
    assert words[-4:] == ["--mlp-ratio", "2.0", "--scope", "block"]
