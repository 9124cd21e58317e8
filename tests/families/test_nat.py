"""Neighbourhood attention: the battery, random Specs, a dense definition and the formula of the paper."""

import pytest
import torch
from hypothesis import given

from attnscope import UsageError
from attnscope.attentions.nat.attention import NeighbourhoodAttention
from attnscope.attentions.nat.spec import NATSpec
from attnscope.testing import AttentionBattery, hold_elementwise_flops, hold_macs, hold_trace
from tests.sampling import examples
from tests.strategies import specs_of

SMALL = {"dim": 12, "heads": 3, "resolution": (5, 8), "neighborhood": (3, 5)}


class TestBattery(AttentionBattery):
    specs = (
        NATSpec(**SMALL),
        NATSpec(**SMALL, batch=2, qkv_bias=False),
        NATSpec(**SMALL, batch=2, position_bias=False),
        NATSpec(**{**SMALL, "resolution": (7, 11)}, dilation=2, batch=2),
        NATSpec(**{**SMALL, "neighborhood": (5, 7)}, batch=2),
        NATSpec(**{**SMALL, "neighborhood": (1, 1)}, batch=2),
        NATSpec(**SMALL, batch=2, dtype="float64"),
        NATSpec(**SMALL, batch=2, dtype="bfloat16"),
        NATSpec(**SMALL, attn_drop=0.1, proj_drop=0.1),
    )


@given(specs_of(NATSpec, kernel="eager", neighborhood=(3, 1)))
@examples(50)
def test_letters_closed_form_counters_and_trace_agree(spec):
    hold_macs(spec)
    hold_elementwise_flops(spec)
    hold_trace(spec)


class Dense(torch.nn.Module):
    """The definition of the papers, token by token: global attention whose scores outside a neighbourhood are −∞."""

    def __init__(self, heads, neighborhood, dilation) -> None:
        super().__init__()
        p, q = neighborhood
        self.heads, self.neighborhood, self.dilation = heads, neighborhood, dilation
        self.qkv, self.proj = torch.nn.Linear(12, 36), torch.nn.Linear(12, 12)
        self.rpb = torch.nn.Parameter(torch.empty(heads, 2 * p - 1, 2 * q - 1))

    def forward(self, x):
        b, height, width, c = x.shape
        q, k, v = self.qkv(x).view(b, height * width, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = (q * (c // self.heads) ** -0.5) @ k.transpose(-2, -1)
        bias = torch.full((self.heads, *scores.shape[-2:]), float("-inf"), dtype=x.dtype)
        places = [(i, j) for i in range(height) for j in range(width)]
        near = [self.near(i, height, 0) for i in range(height)], [self.near(j, width, 1) for j in range(width)]
        for row, (i, j) in enumerate(places):
            for column, (s, t) in enumerate(places):
                if s in near[0][i] and t in near[1][j]:
                    dy, dx = (s - i) // self.dilation[0], (t - j) // self.dilation[1]
                    bias[:, row, column] = self.rpb[:, dy + self.neighborhood[0] - 1, dx + self.neighborhood[1] - 1]
        y = (scores + bias).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(x.shape))

    def near(self, token, side, axis):
        """Return the K tokens that are nearest among those at a multiple of the dilation, the first ones of ties."""
        alike = [other for other in range(side) if (other - token) % self.dilation[axis] == 0]
        size = self.neighborhood[axis]
        first = min(max(alike.index(token) - size // 2, 0), len(alike) - size)
        return alike[first : first + size]


@pytest.mark.parametrize("dilation", [(1, 1), (2, 1), (2, 2)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_outputs_and_gradients_equal_the_dense_definition(dilation, dtype, hold_equal):
    spec = NATSpec(dim=12, heads=3, resolution=(7, 11), neighborhood=(3, 5), dilation=dilation)
    hold_equal(spec, Dense(3, (3, 5), dilation), dtype=dtype)


@pytest.mark.parametrize("dilation", [1, 2])
def test_outputs_equal_those_of_natten(dilation):
    functional = pytest.importorskip("natten.functional", reason="natten is not installed")
    module = NATSpec(dim=64, heads=2, resolution=14, dilation=dilation, position_bias=False).build().eval()
    x = torch.randn(2, 14, 14, 64)
    q, k, v = module.qkv(x).view(2, 14, 14, 3, 2, 32).unbind(3)
    theirs = module.proj(functional.na2d(q, k, v, kernel_size=7, dilation=dilation).flatten(3))
    torch.testing.assert_close(module(x), theirs, rtol=1e-5, atol=1e-5)


def test_macs_follow_the_formula_of_the_paper():
    """Check 4NC² + 2K²NC for the stages of NAT-T at 224 pixels, also dilated as in DiNAT-T."""
    for side, dim, heads, dilation in ((56, 64, 2, 8), (28, 128, 4, 4), (14, 256, 8, 2), (7, 512, 16, 1)):
        n = side**2
        for distance in {1, dilation}:
            spec = NATSpec(dim=dim, heads=heads, resolution=side, dilation=distance)
            assert spec.plan().macs == 4 * n * dim**2 + 2 * 49 * n * dim


def test_neighbourhood_at_a_border_is_pushed_inward():
    neighbourhood = NATSpec(resolution=14, dilation=2).neighbourhood
    assert list(neighbourhood.reach(0, 14)[0]) == [0, 2, 4, 6, 8, 10, 12]
    assert [list(r) for r in NATSpec(resolution=9, neighborhood=3).neighbourhood.reach(1, 9)[:3]] == [
        [0, 1, 2],
        [0, 1, 2],
        [1, 2, 3],
    ]


def test_module_takes_grids_of_any_size():
    module = NeighbourhoodAttention(12, 3, neighborhood=3)
    assert module(torch.randn(2, 5, 6, 12)).shape == (2, 5, 6, 12)
    assert module(torch.randn(1, 3, 4, 12)).shape == (1, 3, 4, 12)
    with pytest.raises(UsageError, match=r"the grid must have at least 3 tokens a side \(got 2\)"):
        module(torch.randn(1, 2, 4, 12))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"neighborhood": 4}, r"neighborhood must be odd \(got 4\); nearest: 3 or 5"),
        ({"resolution": 5}, r"neighborhood must not exceed resolution 5 \(got 7\)"),
        (
            {"dilation": 9},
            r"neighborhood 7 times dilation must not exceed resolution 56 \(got dilation 9\); largest: 8",
        ),
        ({"kernel": "sdpa"}, r"kernel must be eager for neighbourhood attention \(got sdpa\)"),
    ],
)
def test_contradictions_are_rejected(fields, message):
    with pytest.raises(UsageError, match=message):
        NATSpec(**fields)
