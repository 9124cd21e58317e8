"""MaxViT's attention: the battery, random Specs, timm's outputs and the formula of the paper."""

from functools import partial

import pytest
import torch
from hypothesis import given
from timm.layers import RelPosBias
from timm.models.maxxvit import AttentionCl, grid_partition, grid_reverse, window_partition, window_reverse

from attnscope import UsageError
from attnscope.attentions.maxvit.attention import MaxViTAttention
from attnscope.attentions.maxvit.spec import MaxViTSpec
from attnscope.testing import AttentionBattery, hold_elementwise_flops, hold_macs, hold_trace
from tests.sampling import examples
from tests.strategies import specs_of

SMALL = {"dim": 12, "heads": 3, "resolution": (4, 15), "partition": (2, 3)}


class TestBattery(AttentionBattery):
    specs = tuple(
        MaxViTSpec(**{**SMALL, **fields}, grid=grid)
        for grid in (False, True)
        for fields in (
            {},
            {"batch": 2, "qkv_bias": False},
            {"batch": 2, "kernel": "sdpa"},
            {"batch": 2, "kernel": "math"},
            {"batch": 2, "dtype": "float64"},
            {"batch": 2, "dtype": "bfloat16"},
            {"attn_drop": 0.1, "proj_drop": 0.1},
            {"partition": (4, 15)},  # a single block, or a grid of all tokens
            {"partition": (1, 1)},
        )
    )


@given(specs_of(MaxViTSpec))
@examples(50)
def test_letters_closed_form_counters_and_trace_agree(spec):
    hold_macs(spec)
    hold_elementwise_flops(spec)
    hold_trace(spec)


class Partitioned(torch.nn.Module):
    """timm's attention between its partition and the inverse of the partition, as in `PartitionAttentionCl`."""

    def __init__(self, grid: bool, size: tuple[int, int]) -> None:
        super().__init__()
        self.size, self.parts = size, (grid_partition, grid_reverse) if grid else (window_partition, window_reverse)
        self.attn = AttentionCl(12, dim_head=4, rel_pos_cls=partial(RelPosBias, window_size=size))

    def forward(self, x):
        divide, join = self.parts
        return join(self.attn(divide(x, self.size)), self.size, x.shape[1:3])


@pytest.mark.parametrize("grid", [False, True], ids=["block", "grid"])
@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_outputs_and_gradients_equal_those_of_timm(grid, kernel, dtype, hold_equal):
    spec = MaxViTSpec(**SMALL, grid=grid, kernel=kernel)

    def without_prefix(state):
        return {name.removeprefix("attn."): value for name, value in state.items()}

    hold_equal(spec, Partitioned(grid, (2, 3)), dtype=dtype, loaded=without_prefix)


def test_macs_follow_the_formula_of_the_paper():
    """Check 4NC² + 2P²NC for the four stages of MaxViT-T at 224 pixels."""
    for side, dim in ((56, 64), (28, 128), (14, 256), (7, 512)):
        n = side**2
        for grid in (False, True):
            spec = MaxViTSpec(dim=dim, heads=dim // 32, resolution=side, grid=grid)
            assert spec.plan().macs == 4 * n * dim**2 + 2 * 49 * n * dim


def test_grid_attention_reaches_tokens_at_a_stride():
    neighbourhood = MaxViTSpec(resolution=56, grid=True).neighbourhood
    assert list(neighbourhood.reach(0, 56)[9]) == [1, 9, 17, 25, 33, 41, 49]
    assert neighbourhood.describe() == "7×7 grid, stride 8×8"


def test_module_is_built_without_a_spec():
    assert MaxViTAttention(12, 3, partition=2, grid=True)(torch.randn(2, 4, 6, 12)).shape == (2, 4, 6, 12)


def test_grid_that_the_partition_does_not_divide_is_rejected():
    with pytest.raises(UsageError, match=r"by partition 7 \(got 56x50\); nearest: 56x49 or 56$"):
        MaxViTSpec(resolution=(56, 50))
    with pytest.raises(UsageError, match="the grid must be divisible by the partition 2×2"):
        MaxViTAttention(12, 3, partition=2)(torch.randn(2, 5, 6, 12))
