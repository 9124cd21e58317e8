"""XCiT's block: the battery, random blocks, and timm's outputs, gradients, MACs and parameters."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.xcit import XCABlock
from torch import nn

from attnscope import UsageError, networks
from attnscope.testing import AttentionBattery, hold_elementwise_flops, hold_macs, hold_trace
from tests.families.conftest import macs_of


def block(**fields):
    return networks.asked("xca", fields, "block")


XCA = {"dim": 12, "heads": 3, "resolution": (3, 5)}


class TestXCiT(AttentionBattery):
    specs = (
        block(**XCA, batch=2),
        block(**XCA, qkv_bias=False, mlp_ratio=1.5, checkpoint="block", proj_drop=0.1),
        block(**XCA, batch=2, checkpoint="attention", dtype="float64"),
        block(**XCA, batch=2, dtype="bfloat16"),
    )


class OnGrid(nn.Module):
    """timm's block with the grid as an argument of its own."""

    def __init__(self, block, grid) -> None:
        super().__init__()
        self.block, self.grid = block, grid

    def forward(self, x):
        return self.block(x, *self.grid)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_outputs_and_gradients_equal_timms(dtype, hold_equal):
    theirs = XCABlock(12, 3, qkv_bias=True, norm_layer=partial(nn.LayerNorm, eps=1e-6), eta=1.0)

    def loaded(state):
        return {name.removeprefix("block."): value for name, value in state.items()}

    hold_equal(block(**XCA), OnGrid(theirs, (3, 5)), dtype=dtype, loaded=loaded)


@given(
    st.builds(
        block,
        resolution=st.tuples(st.integers(1, 4), st.integers(1, 4)),
        dim=st.sampled_from([4, 8, 12]),
        heads=st.sampled_from([1, 2]),
        batch=st.integers(1, 2),
        qkv_bias=st.booleans(),
        mlp_ratio=st.sampled_from([0.5, 1.0, 4.0]),
    )
)
@settings(max_examples=10)
def test_letters_closed_form_formula_counters_and_trace_agree(spec):
    hold_macs(spec)
    hold_elementwise_flops(spec)
    hold_trace(spec)
    assert spec.plan().macs == spec.complexity().own_macs


def test_macs_and_parameters_are_timms():
    spec = block(batch=2)
    with torch.device("meta"):
        reference, ours = XCABlock(192, 4, qkv_bias=True), spec.build()
    assert spec.plan().macs == macs_of(lambda: reference(torch.empty(2, 196, 192), 14, 14))
    counted = [sum(each.numel() for each in module.parameters()) for module in (reference, ours)]
    assert counted == [spec.plan().params] * 2
    assert ours.state_dict().keys() == reference.state_dict().keys()


def test_davits_block_is_refused():
    with pytest.raises(UsageError) as error:
        block(variant="davit")
    assert str(error.value) == (
        "variant must be xcit for scope block, since DaViT's block has other convolutions (got davit); "
        "use variant xcit, or scope attention"
    )
