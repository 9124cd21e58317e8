"""The convention of elementwise FLOPs, by what `trace` counts of real modules: so many for each element of the output."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import attnscope

FEATURES = (2, 3, 8, 10)
TOKENS = (2, 7, 12)


class Resize(nn.Module):
    """Interpolation to a size of its own on each axis."""

    def __init__(self, mode):
        super().__init__()
        self.mode = mode

    def forward(self, x):
        corners = None if self.mode == "nearest" else False
        return F.interpolate(x, size=(12, 25), mode=self.mode, align_corners=corners)


class Enlarge(Resize):
    """Interpolation by a factor."""

    def forward(self, x):
        return F.interpolate(x, scale_factor=2, mode=self.mode)


def elementwise_flops(module, shape):
    """What trace counts, for each element of the output."""
    totals = attnscope.trace(module, torch.randn(shape)).totals
    assert totals.macs == 0
    return totals.other_flops / module(torch.randn(shape)).numel()


@pytest.mark.parametrize("module", [Resize, Enlarge])
@pytest.mark.parametrize(("mode", "flops"), [("nearest", 0), ("bilinear", 7), ("bicubic", 31)])
def test_interpolation_weighs_its_neighbours(module, mode, flops):
    """A product for each of 4 or 16 neighbours and their sum; the nearest one is copied."""
    assert elementwise_flops(module(mode), FEATURES) == flops


@pytest.mark.parametrize(("module", "flops"), [(nn.Softmax(-1), 5), (nn.ReLU(), 1)], ids=str)
def test_activations(module, flops):
    assert elementwise_flops(module, TOKENS) == flops


@pytest.mark.parametrize(
    ("module", "flops"),
    [
        (nn.LayerNorm(12), 5),
        (nn.LayerNorm((7, 12)), 5),
        (nn.LayerNorm(12, elementwise_affine=False), 4),
        (nn.GELU(), 5),
        (nn.GELU("tanh"), 5),
        (nn.Softmax(-1), 5),
        (nn.Sigmoid(), 4),
        (nn.ReLU(), 1),
    ],
    ids=str,
)
def test_one_convention_for_explore_and_trace(module, flops):
    """LayerNorm centers, squares, sums and scales each element: 4, and 5 with weight and bias."""
    assert elementwise_flops(module, TOKENS) == flops


def test_explore_counts_alike():
    steps = {row.name: row for row in attnscope.explore(attnscope.ViTNetworkSpec(scope="block"), time=False).steps}
    for name in ("norm1", "norm2", "gelu", "softmax"):
        assert steps[name].other_flops == 5 * math.prod(steps[name].outputs[0]), name
