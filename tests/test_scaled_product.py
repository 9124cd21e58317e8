"""Scaled products of queries and keys in one kernel: values, gradients, transformations of torch, plans."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from attnscope import CrossSpec, SwinSpec, ViTSpec
from attnscope.attentions.attention import scaled_product
from attnscope.attentions.cswin.spec import CSWinSpec
from attnscope.attentions.hiera.spec import HieraSpec
from attnscope.attentions.maxvit.spec import MaxViTSpec
from attnscope.attentions.nat.spec import NATSpec
from attnscope.attentions.pvt.spec import PVTSpec
from attnscope.attentions.sam.spec import SAMSpec
from attnscope.attentions.swin3d.spec import Swin3DSpec
from attnscope.attentions.twins.spec import TwinsSpec
from attnscope.networks.xca.spec import XCiTNetworkSpec
from attnscope.profiling.counters import count_with_fvcore, count_with_torch
from attnscope.testing import (
    hold_backward_macs,
    hold_backward_memory,
    hold_elementwise_flops,
    hold_macs,
    hold_memory,
    hold_operators,
    hold_saved,
    hold_trace,
)

SHAPES = {
    "heads": ((2, 3, 5, 4), (2, 3, 7, 4)),
    "one image": ((1, 3, 5, 4), (1, 3, 7, 4)),
    "large": ((2, 3, 40, 16), (2, 3, 50, 16)),
    "rows of their own": ((2, 3, 5, 1, 4), (2, 3, 5, 9, 4)),
    "no image": ((0, 3, 5, 4), (0, 3, 7, 4)),
    "no query": ((2, 3, 0, 4), (2, 3, 7, 4)),
    "no key": ((2, 3, 5, 4), (2, 3, 0, 4)),
    "one channel": ((2, 3, 5, 1), (2, 3, 7, 1)),
}


def in_two_passes(q, k, scale):
    return (q @ k.transpose(-2, -1)) * scale


def drawn(name, layout="contiguous", **options):
    """Return queries and keys, whose memory has the heads of each token side by side unless it is contiguous."""
    pair = [torch.randn(shape, **options) for shape in SHAPES[name]]
    if layout != "contiguous":
        pair = [each.transpose(1, 2).contiguous().transpose(1, 2) for each in pair]
    return [each.requires_grad_() for each in pair]


@pytest.mark.parametrize("scale", [0.3, 1.0, 0.0, 7])
@pytest.mark.parametrize("layout", ["contiguous", "heads of a token side by side"])
@pytest.mark.parametrize("name", SHAPES)
def test_values_and_gradients_equal_those_of_two_passes(name, layout, scale):
    q, k = drawn(name, layout, dtype=torch.float64)
    ours, theirs = scaled_product(q, k, scale), in_two_passes(q, k, scale)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    weights = torch.randn_like(ours)
    pairs = zip(
        torch.autograd.grad((ours * weights).sum(), (q, k)),
        torch.autograd.grad((theirs * weights).sum(), (q, k)),
        strict=True,
    )
    for own, other in pairs:
        torch.testing.assert_close(own, other, rtol=0, atol=1e-10)


class Added(TorchDispatchMode):
    """A record of the tensors that are added to products."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        if operator is torch.ops.aten.baddbmm.default:
            self.found.append(args[0])
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["heads", "large", "rows of their own"])
def test_what_is_added_is_zero(name):
    """MPS multiplied it by beta = 0 until torch 2.14, so that NaN stayed. New memory has NaN in this mode of torch."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        with Added() as added:
            scores = scaled_product(*drawn(name), 0.3)
    finally:
        torch.use_deterministic_algorithms(before)
    assert [each.tolist() for each in added.found] == [0.0]
    assert scores.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["heads", "large", "rows of their own"])
def test_half_precision_rounds_once(name, dtype):
    q, k = drawn(name, dtype=dtype)
    ours, exact = scaled_product(q, k, 0.3).double(), in_two_passes(q.double(), k.double(), 0.3)
    assert (ours - exact).abs().max() <= torch.finfo(dtype).eps * exact.abs().max()


@pytest.mark.parametrize("name", ["heads", "large", "rows of their own", "no image"])
def test_transformations_of_torch_take_it(name):
    q, k = (each.detach() for each in drawn(name, dtype=torch.float64))
    expected = in_two_passes(q, k, 0.3)
    torch.testing.assert_close(scaled_product(q.to("meta"), k.to("meta"), 0.3).shape, expected.shape)
    many = torch.func.vmap(lambda q, k: scaled_product(q, k, 0.3))(torch.stack((q, 2 * q)), torch.stack((k, k)))
    torch.testing.assert_close(many, torch.stack((expected, 2 * expected)))
    shared = torch.func.vmap(lambda q: scaled_product(q, k, 0.3))(torch.stack((q, 2 * q)))
    torch.testing.assert_close(shared, torch.stack((expected, 2 * expected)))
    along = torch.func.jvp(lambda q: scaled_product(q, k, 0.3), (q,), (q,))[1]
    torch.testing.assert_close(along, expected)
    twice = torch.func.grad(lambda q: torch.func.grad(lambda q: scaled_product(q, k, 0.3).pow(3).sum())(q).sum())
    theirs = torch.func.grad(lambda q: torch.func.grad(lambda q: in_two_passes(q, k, 0.3).pow(3).sum())(q).sum())
    torch.testing.assert_close(twice(q), theirs(q))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert scaled_product(q.float(), k.float(), 0.3).dtype == torch.bfloat16
    program = torch.export.export(Product(), (q, k)).module()
    torch.testing.assert_close(program(q, k), expected)


class Product(nn.Module):
    def forward(self, q, k):
        return scaled_product(q, k, 0.3)


@pytest.mark.slow
def test_compiled_code_takes_it():
    compiled = torch.compile(Product(), dynamic=True)
    for name in ("heads", "large", "one image"):
        q, k = drawn(name)
        ours, theirs = compiled(q, k), in_two_passes(q, k, 0.3)
        torch.testing.assert_close(ours, theirs)
        for own, other in zip(*(torch.autograd.grad(each.sum(), (q, k)) for each in (ours, theirs)), strict=True):
            torch.testing.assert_close(own, other)


def test_counters_count_the_product_and_its_scale():
    spec = ViTSpec(tokens=49, dim=96, heads=3)
    module, x = spec.build().eval(), torch.randn(spec.input_shape)
    fvcore = count_with_fvcore(module, x)
    assert fvcore.macs["score"] == count_with_torch(module, x).macs["score"] == 3 * 49 * 49 * 32
    assert fvcore.other_flops["score"] == 3 * 49 * 49
    assert not fvcore.uncounted


GRID = {"dim": 12, "heads": 3, "resolution": (8, 8)}
UNSCALED = [
    ViTSpec(dim=12, heads=3, tokens=7, batch=2, qk_scale=1.0),
    ViTSpec(dim=3, heads=3, tokens=7, batch=2),  # 1/√d is 1
    ViTSpec(dim=12, heads=4, kv_heads=2, tokens=7, batch=2, qk_scale=1.0),
    CrossSpec(dim=12, heads=3, tokens=5, keys=7, batch=2, qk_scale=1.0),
    SwinSpec(**GRID, window=4, shift_size=2, qk_scale=1.0),
    Swin3DSpec(dim=12, heads=3, resolution=(4, 8, 8), window=(2, 4, 4), qk_scale=1.0),
    CSWinSpec(dim=12, heads=2, resolution=(8, 8), stripe=2, qk_scale=1.0),
    HieraSpec(dim=6, out_dim=12, heads=3, resolution=(8, 8), window=(4, 4), qk_scale=1.0),
    HieraSpec(dim=6, out_dim=3, heads=3, resolution=(8, 8), window=(4, 4)),
    MaxViTSpec(**GRID, partition=(4, 4), qk_scale=1.0),
    NATSpec(**GRID, neighborhood=3, qk_scale=1.0),
    PVTSpec(**GRID, reduction=2, qk_scale=1.0),
    SAMSpec(**GRID, window=4, qk_scale=1.0),
    TwinsSpec(**GRID, window=4, qk_scale=1.0),
    XCiTNetworkSpec(dim=8, heads=8, depth=1, image=(32, 32), classes=5),
]


@pytest.mark.parametrize("spec", UNSCALED, ids=lambda spec: f"{type(spec).__name__}-{spec.dim}")
def test_a_scale_of_one_costs_nothing(spec):
    """torch multiplies neither the product nor its gradients by 1."""
    for hold in (
        hold_macs,
        hold_elementwise_flops,
        hold_trace,
        hold_operators,
        hold_memory,
        hold_saved,
        hold_backward_memory,
        hold_backward_macs,
    ):
        hold(spec)
    assert min(step.other_flops for step in spec.plan().steps if step.name == "score") == 0


def test_the_scale_is_that_of_the_spec():
    for spec in (ViTSpec(dim=12, heads=3, tokens=4), HieraSpec(dim=6, out_dim=12, heads=3, resolution=(8, 8))):
        assert spec.build().scale == spec.score_scale == 4**-0.5
    assert ViTSpec(dim=12, heads=3, qk_scale=0.3).build().scale == 0.3
