"""Cross-shaped window attention: the battery, random Specs, a definition with masks and loops, and the formula."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnscope import UsageError
from attnscope.attentions.cswin.attention import CSWinAttention
from attnscope.attentions.cswin.spec import CSWinSpec
from attnscope.core.neighbourhood import AllTokens
from attnscope.testing import AttentionBattery, hold_elementwise_flops, hold_macs, hold_neighbourhood, hold_trace
from tests.sampling import examples
from tests.strategies import specs_of

SMALL = {"dim": 12, "heads": 2, "resolution": (4, 6), "stripe": 2}
WHOLE = {"dim": 12, "heads": 3, "resolution": 5, "stripe": 5}


class TestBattery(AttentionBattery):
    specs = (
        CSWinSpec(**SMALL),
        CSWinSpec(**SMALL, batch=2, qkv_bias=False),
        CSWinSpec(**{**SMALL, "heads": 4, "stripe": 1, "resolution": (5, 7)}, batch=2),
        CSWinSpec(**{**SMALL, "dim": 2, "stripe": 1, "resolution": (3, 1)}, batch=2),
        CSWinSpec(**WHOLE),
        CSWinSpec(**WHOLE, batch=2),
        CSWinSpec(**SMALL, batch=2, kernel="sdpa"),
        CSWinSpec(**WHOLE, kernel="sdpa"),
        CSWinSpec(**SMALL, batch=2, dtype="float64"),
        CSWinSpec(**SMALL, batch=2, dtype="bfloat16"),
        CSWinSpec(**SMALL, attn_drop=0.1, proj_drop=0.1),
        CSWinSpec(**SMALL, attn_drop=0.1, kernel="sdpa"),
    )


@given(st.data())
@examples(50)
def test_letters_closed_form_counters_and_trace_agree(data):
    stripe = data.draw(st.integers(1, 3))
    sides = st.integers(1, 4).map(lambda count: count * stripe)
    spec = data.draw(specs_of(CSWinSpec, stripe=stripe, resolution=data.draw(st.tuples(sides, sides))))
    hold_macs(spec)
    hold_elementwise_flops(spec)
    hold_trace(spec)


class Dense(torch.nn.Module):
    """The definition of the paper, token by token.

    Each half of the heads has global attention whose scores outside its stripe are −∞. LePE is a sum over the 3×3
    neighbours in the same stripe.
    """

    def __init__(self, spec) -> None:
        super().__init__()
        self.heads, self.stripe, self.sides = spec.heads, spec.stripe, spec.resolution
        self.directions = 1 if {*spec.resolution} == {spec.stripe} else 2
        self.qkv, self.proj = torch.nn.Linear(12, 36), torch.nn.Linear(12, 12)
        part = 12 // self.directions
        self.attns = torch.nn.ModuleList(
            torch.nn.ModuleDict({"get_v": torch.nn.Conv2d(part, part, 3, groups=part)}) for _ in range(self.directions)
        )

    def forward(self, x):
        height, width = self.sides
        places = [(i, j) for i in range(height) for j in range(width)]
        q, k, v = self.qkv(x.flatten(1, 2)).chunk(3, dim=-1)
        halves = []
        for direction, attn in enumerate(self.attns):
            mine = [torch.tensor([[self.alike(one, other, direction) for other in places] for one in places])]
            part = slice(direction * v.shape[-1] // self.directions, (direction + 1) * v.shape[-1] // self.directions)
            heads = [
                each[..., part].unflatten(-1, (self.heads // self.directions, -1)).transpose(1, 2) for each in (q, k, v)
            ]
            scores = heads[0] @ heads[1].transpose(-2, -1) / (12 // self.heads) ** 0.5
            weights = scores.masked_fill(~mine[0], float("-inf")).softmax(-1)
            out = (weights @ heads[2]).transpose(1, 2).flatten(2)
            halves.append(out + self.lepe(v[..., part], attn["get_v"], places, direction))
        return self.proj(torch.cat(halves, dim=-1)).view(x.shape)

    def alike(self, one, other, direction):
        """Return whether two tokens are in one stripe: equal columns of stripes, then equal rows of stripes."""
        axis = 1 - direction
        return self.directions == 1 or one[axis] // self.stripe == other[axis] // self.stripe

    def lepe(self, v, conv, places, direction):
        rows = []
        for i, j in places:
            total = conv.bias
            for s, t in places:
                if abs(s - i) <= 1 and abs(t - j) <= 1 and self.alike((i, j), (s, t), direction):
                    total = total + conv.weight[:, 0, s - i + 1, t - j + 1] * v[:, places.index((s, t))]
            rows.append(total)
        return torch.stack(rows, dim=1)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(
    "fields",
    [SMALL, {**SMALL, "stripe": 1, "heads": 4}, {**SMALL, "resolution": (3, 6), "stripe": 3}, WHOLE],
    ids=["stripe 2", "stripe 1", "one horizontal stripe", "whole grid"],
)
def test_outputs_and_gradients_equal_the_definition(fields, dtype, kernel, hold_equal):
    spec = CSWinSpec(**fields, kernel=kernel)
    hold_equal(spec, Dense(spec), dtype=dtype)


@pytest.mark.parametrize(
    ("side", "dim", "heads", "stripe"), [(56, 64, 2, 1), (28, 128, 4, 2), (14, 256, 8, 7), (7, 512, 16, 7)]
)
def test_macs_follow_the_formula_of_the_paper(side, dim, heads, stripe):
    """Check the stages of CSWin-T at 224 pixels; the stripe of the last stage is its whole grid."""
    n = side**2
    attend = n * dim * stripe * (side + side) if stripe < side else 2 * n**2 * dim
    spec = CSWinSpec(dim=dim, heads=heads, resolution=side, stripe=stripe)
    assert spec.plan().macs == 4 * n * dim**2 + attend + 9 * n * dim == spec.complexity().own_macs


def test_a_query_depends_on_its_cross_and_on_nothing_else():
    spec = CSWinSpec(dim=12, heads=2, resolution=(4, 6), stripe=2)
    module, x = spec.build().double(), torch.randn(1, 4, 6, 12, dtype=torch.float64, requires_grad=True)
    y, look = module(x)[0], spec.neighbourhood
    for i in range(4):
        for j in range(6):
            (grad,) = torch.autograd.grad(y[i, j].sum(), x, retain_graph=True)
            found = {tuple(place) for place in grad[0].abs().amax(-1).nonzero().tolist()}
            assert found == look.keys_of((i, j), (4, 6))
            assert len(found) == look.keys == 2 * (4 + 6 - 2)


class Claiming(CSWinSpec):
    @property
    def neighbourhood(self):
        return AllTokens(self.tokens)


def test_the_battery_rejects_a_cross_that_claims_the_whole_grid():
    """Along each axis a cross reaches every token; only both axes together show that corners are missing."""
    with pytest.raises(
        AssertionError, match=r"influence of token \(2, 2\) on query \(0, 0\): predicted some, real none"
    ):
        hold_neighbourhood(Claiming(**SMALL))


def test_a_stripe_of_the_whole_grid_is_global_attention():
    assert CSWinSpec(**WHOLE).neighbourhood == AllTokens(25)
    assert [step.name for step in CSWinSpec(**WHOLE).plan().steps].count("score") == 1


def test_module_is_built_without_a_spec():
    module = CSWinAttention(12, 2, resolution=(4, 6), stripe=2)
    assert module(torch.randn(2, 4, 6, 12)).shape == (2, 4, 6, 12)
    with pytest.raises(UsageError, match=r"must have the shape \(b, height = 4, width = 6, c = 12\) \(got "):
        module(torch.randn(2, 6, 4, 12))


def test_parameters_have_the_names_of_the_reference():
    assert {name for name, _ in CSWinSpec().build().named_parameters()} == {
        f"{layer}.{kind}" for layer in ("qkv", "proj", "attns.0.get_v", "attns.1.get_v") for kind in ("weight", "bias")
    }


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stripe": 3}, r"resolution must be divisible by stripe 3 \(got 56\); nearest: 54 or 57, or stripe 2 or 4"),
        ({"heads": 1}, r"heads must be even, half of them for each direction of the stripes \(got 1\); nearest: 2"),
        ({"heads": 3}, r"heads must be even, .* \(got 3\); nearest: 2 or 4$"),
        ({"heads": 3, "dim": 66}, r"heads must be even, .* \(got 3\); nearest: 2 or 6$"),  # 4 does not divide 66
        ({"heads": 3, "dim": 63}, r"heads must be even, .* \(got 3\); nearest: 2 or 4$"),  # nothing even divides 63
        ({"dim": 65}, r"dim must be divisible by heads 2 \(got 65\); nearest: 64 or 66"),
    ],
)
def test_contradictions_are_rejected(fields, message):
    with pytest.raises(UsageError, match=message):
        CSWinSpec(**fields)
