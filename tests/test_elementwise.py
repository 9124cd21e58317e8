"""Elementwise FLOPs for each element of the output, as `trace` counts them on real modules."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import attnscope
from attnscope.tracing.costs import cost_of

FEATURES = (2, 3, 8, 10)
TOKENS = (2, 7, 12)


class Resize(nn.Module):
    """An interpolation to a fixed size for each axis."""

    def __init__(self, mode):
        super().__init__()
        self.mode = mode

    def forward(self, x):
        corners = None if self.mode == "nearest" else False
        return F.interpolate(x, size=(12, 25), mode=self.mode, align_corners=corners)


class Enlarge(Resize):
    """An interpolation by a factor."""

    def forward(self, x):
        return F.interpolate(x, scale_factor=2, mode=self.mode)


def elementwise_flops(module, shape):
    """Return the elementwise FLOPs that `trace` counts, for each element of the output."""
    totals = attnscope.trace(module, torch.randn(shape)).totals
    assert totals.macs == 0
    return totals.other_flops / module(torch.randn(shape)).numel()


@pytest.mark.parametrize("module", [Resize, Enlarge])
@pytest.mark.parametrize(("mode", "flops"), [("nearest", 0), ("bilinear", 7), ("bicubic", 31)])
def test_interpolation_costs_a_weighted_sum_of_neighbours(module, mode, flops):
    """It is a product for each of 4 or 16 neighbours and their sum; mode "nearest" only copies."""
    assert elementwise_flops(module(mode), FEATURES) == flops


@pytest.mark.parametrize(("module", "flops"), [(nn.Softmax(-1), 5), (nn.ReLU(), 1)], ids=str)
def test_activations_cost_flops_for_each_element(module, flops):
    assert elementwise_flops(module, TOKENS) == flops


@pytest.mark.parametrize(
    ("module", "flops"),
    [
        (nn.LayerNorm(12), 5),
        (nn.LayerNorm((7, 12)), 5),
        (nn.LayerNorm(12, bias=False), 5),
        (nn.LayerNorm(12, elementwise_affine=False), 4),
        (nn.GroupNorm(7, 7), 5),
        (nn.GroupNorm(7, 7, affine=False), 4),
        (nn.BatchNorm1d(7), 2),
        (nn.GELU(), 5),
        (nn.GELU("tanh"), 5),
        (nn.Softmax(-1), 5),
        (nn.LogSoftmax(-1), 5),
        (nn.Sigmoid(), 4),
        (nn.ReLU(), 1),
        (nn.SiLU(), 5),
        (nn.Tanh(), 1),
        (nn.LeakyReLU(), 2),
        (nn.PReLU(), 2),
        (nn.ELU(), 3),
        (nn.SELU(), 4),
        (nn.CELU(), 4),
        (nn.Hardtanh(), 2),
        (nn.ReLU6(), 2),
        (nn.Hardsigmoid(), 4),
        (nn.Hardswish(), 5),
        (nn.Softplus(), 3),
        (nn.LogSigmoid(), 4),
        (nn.Mish(), 5),
        (nn.GLU(), 5),
    ],
    ids=str,
)
def test_modules_cost_the_flops_of_the_convention(module, flops):
    """LayerNorm centers, squares, sums and scales each element: 4 FLOPs, and 5 with weight and bias."""
    assert elementwise_flops(module, TOKENS) == flops


@pytest.mark.parametrize(
    ("module", "shape", "flops"),
    [
        (nn.AvgPool2d(2), FEATURES, 2 * 2),
        (nn.AvgPool2d((2, 5)), FEATURES, 2 * 5),
        (nn.AvgPool2d([2]), FEATURES[1:], 2 * 2),
        (nn.MaxPool2d((2, 5)), FEATURES, 2 * 5),
        (nn.AvgPool1d(5), (*TOKENS[:2], 10), 5),
        (nn.AvgPool3d([2]), FEATURES, 2 * 2 * 2),
        (nn.MaxPool3d((1, 2, 5)), FEATURES, 1 * 2 * 5),
        (nn.AdaptiveAvgPool2d((4, 2)), FEATURES, 2 * 5),
        (nn.AdaptiveAvgPool3d((3, 4, 2)), FEATURES, 1 * 2 * 5),
        (nn.AdaptiveMaxPool2d((4, 2)), FEATURES, 2 * 5),
    ],
    ids=str,
)
def test_pooling_costs_one_flop_for_each_element_of_its_window(module, shape, flops):
    assert elementwise_flops(module, shape) == flops


class Reduced(nn.Module):
    """A function of x that reduces its last axis."""

    def __init__(self, name):
        super().__init__()
        self.name = name

    def forward(self, x):
        return getattr(torch, self.name)(x, dim=-1)


@pytest.mark.parametrize(
    ("name", "flops"),
    [
        ("sum", 1),
        ("mean", 1),
        ("amax", 1),
        ("argmin", 1),
        ("var", 4),  # add to the mean, subtract it, square, add to the variance
        ("std", 4),
        ("logsumexp", 2),  # exponentiate, add to the sum
        ("norm", 2),  # square, add to the sum
    ],
)
def test_reductions_cost_flops_for_each_input_element(name, flops):
    assert elementwise_flops(Reduced(name), TOKENS) == flops * TOKENS[-1]


@pytest.mark.skipif(not hasattr(torch.ops.aten, "_fused_rms_norm"), reason="torch has no kernel for it before 2.8")
@pytest.mark.parametrize(("weight", "flops"), [(None, 3), (torch.ones(12), 4)])
def test_the_fused_rms_norm_costs_as_many_flops_as_its_operators(weight, flops):
    """It squares, sums, divides, and multiplies by the weight. On the CPU, torch runs separate operators instead."""
    x, statistic = torch.ones(TOKENS), torch.ones(2, 7, 1)
    cost = cost_of(torch.ops.aten._fused_rms_norm.default, (x, [12], weight, 1e-5), {}, (x, statistic))
    assert (cost.other_flops, cost.bytes_written) == (flops * x.numel(), 4 * x.numel())


def test_explore_counts_the_same_elementwise_flops():
    steps = {row.name: row for row in attnscope.explore(attnscope.ViTNetworkSpec(scope="block"), time=False).steps}
    for name in ("norm1", "norm2", "gelu", "softmax"):
        assert steps[name].other_flops == 5 * math.prod(steps[name].outputs[0]), name
