"""Locally-grouped attention: the battery, random Specs, timm's outputs and gradients, and the formula of the paper."""

import pytest
import torch
from hypothesis import given
from timm.models.twins import LocallyGroupedAttn

from attnscope import UsageError
from attnscope.attentions.twins.attention import LocallyGroupedAttention
from attnscope.attentions.twins.spec import TwinsSpec
from attnscope.testing import AttentionBattery, hold_elementwise_flops, hold_macs, hold_trace
from tests.families.conftest import macs_of
from tests.sampling import examples
from tests.strategies import specs_of

SMALL = {"dim": 12, "heads": 3, "resolution": (4, 6), "window": 2}


class TestBattery(AttentionBattery):
    specs = (
        TwinsSpec(**SMALL, batch=2),
        TwinsSpec(**{**SMALL, "resolution": (5, 7), "window": (2, 3)}, batch=2, qkv_bias=False, dtype="bfloat16"),
        TwinsSpec(**{**SMALL, "window": 9}, dtype="float64", attn_drop=0.1, proj_drop=0.1),
        TwinsSpec(**SMALL, kernel="sdpa"),
    )


@given(specs_of(TwinsSpec))
@examples(50)
def test_letters_closed_form_counters_and_trace_agree(spec):
    hold_macs(spec)
    hold_elementwise_flops(spec)
    hold_trace(spec)
    assert spec.plan().macs == spec.complexity().own_macs


class OnGrid(torch.nn.Module):
    """timm's attention with the grid as an argument of its own."""

    def __init__(self, attn, grid) -> None:
        super().__init__()
        self.attn, self.grid = attn, grid

    def forward(self, x):
        return self.attn(x, self.grid)


@pytest.mark.parametrize("grid", [(4, 6), (5, 7)], ids=["whole", "padded"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_outputs_and_gradients_equal_timms(grid, dtype, hold_equal):
    def loaded(state):
        return {name.removeprefix("attn."): value for name, value in state.items()}

    reference = OnGrid(LocallyGroupedAttn(12, 3, ws=2), grid)
    hold_equal(TwinsSpec(**{**SMALL, "resolution": grid}), reference, dtype=dtype, loaded=loaded)


@pytest.mark.parametrize(("grid", "dim"), [((56, 56), 64), ((50, 60), 128)])
def test_macs_are_timms(grid, dim):
    with torch.device("meta"):
        reference = LocallyGroupedAttn(dim, dim // 32, ws=7)
    macs = macs_of(lambda: reference(torch.empty(1, grid[0] * grid[1], dim), grid))
    assert TwinsSpec(dim=dim, heads=dim // 32, resolution=grid).plan().macs == macs


def test_module_is_built_without_a_spec():
    assert LocallyGroupedAttention(12, 3, 4, window=2)(torch.randn(2, 16, 12)).shape == (2, 16, 12)
    with pytest.raises(
        UsageError, match=r"the input of LocallyGroupedAttention must have the shape \(b, n = 16, c = 12"
    ):
        LocallyGroupedAttention(12, 3, 4)(torch.randn(2, 15, 12))


def test_dim_must_be_divisible_by_heads():
    with pytest.raises(UsageError, match="dim must be divisible by heads 3"):
        TwinsSpec(heads=3)
