"""The MACs of the backward in `trace`, which torch's FlopCounterMode counts during the real backward."""

import csv
import io

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count

import attnscope
from attnscope.profiling.counters import _convolution_backward
from attnscope.render import render
from attnscope.render.screen import Screen


def counted_by_torch(module, x, input_grad):
    """Return the MACs of the real backward; some versions of torch do not count fused attention on a CPU."""
    x = x.clone().requires_grad_(input_grad)
    with torch.enable_grad():
        out = module(x)
    mapping = {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: fused_flops,
        torch.ops.aten.convolution_backward: _convolution_backward,
    }
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        if out.requires_grad:
            out.sum().backward()
    return counter.get_total_flops() // 2


def fused_flops(grad, query, key, value, *_, **__):
    return sdpa_backward_flop_count(grad, query, key, value)


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.proj, self.frozen = nn.Linear(64, 192), nn.Linear(64, 64), nn.Linear(64, 64)
        self.frozen.requires_grad_(False)
        self.bias = nn.Parameter(torch.zeros(1, 4, 50, 50))

    def split(self, x):
        return self.qkv(x).reshape(*x.shape[:2], 3, 4, 16).permute(2, 0, 3, 1, 4)


class Fused(Layers):
    def forward(self, x):
        return self.proj(F.scaled_dot_product_attention(*self.split(x)).transpose(1, 2).flatten(2))


class FusedWithLearnedBias(Layers):
    def forward(self, x):
        return F.scaled_dot_product_attention(*self.split(x), attn_mask=self.bias)


class WrittenOut(Layers):
    def forward(self, x):
        q, k, v = self.split(x)
        return torch.einsum("bhnm,bhmd->bhnd", torch.einsum("bhnd,bhmd->bhnm", q, k).softmax(-1), v)


class FrozenLayer(Layers):
    """A frozen layer that the gradient passes through."""

    def forward(self, x):
        return self.frozen(self.proj(x))


class FrozenFirstLayer(Layers):
    """A frozen layer that no gradient reaches, without that of the input."""

    def forward(self, x):
        return self.proj(self.frozen(x))


class Detached(Layers):
    def forward(self, x):
        return self.proj(self.qkv(x)[..., :64].detach())


class Unused(Layers):
    """A branch that the result does not depend on, but for the positions of its maxima."""

    def forward(self, x):
        places = (self.qkv(x) @ self.qkv.weight).argmax(-1)
        return self.proj(x) * places[..., None]


class Shared(Layers):
    def forward(self, x):
        return self.proj(self.proj(x))


class Written(Layers):
    """A part of a tensor is written in place."""

    def forward(self, x):
        out = torch.zeros_like(x)
        out[:, :10] = self.proj(x[:, :10])
        return self.proj(out)


def convolutions():
    return nn.Sequential(
        nn.Unflatten(1, (5, 10)),
        nn.Conv2d(5, 10, 3, 2, 1),
        nn.Conv2d(10, 10, 3, groups=10),
        nn.ConvTranspose2d(10, 4, 2),
    )


MODULES = [
    *(Fused, FusedWithLearnedBias, WrittenOut, FrozenLayer, FrozenFirstLayer, Detached, Unused, Shared, Written),
    convolutions,
    lambda: nn.TransformerEncoderLayer(64, 4, 128, batch_first=True),
]


@pytest.mark.parametrize("input_grad", [True, False])
@pytest.mark.parametrize("build", MODULES)
def test_the_backward_has_the_macs_that_torch_counts(build, input_grad):
    module, x = build().eval(), torch.randn(2, 50, 64)
    report = attnscope.trace(module, x, backward=True, input_grad=input_grad, device="cpu")
    assert report.backward.macs in (counted_by_torch(module, x, input_grad), None)
    assert report.backward.macs is not None or not input_grad  # torch's layers run other operators with gradients


def test_a_layer_that_runs_without_gradients_is_known_if_all_of_it_has_gradients():
    layer, x = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True).eval(), torch.randn(2, 50, 64)
    assert attnscope.trace(layer, x, backward=True).backward.macs == counted_by_torch(layer, x, True)
    partly = attnscope.trace(layer, x, backward=True, input_grad=False)
    if not torch._C._dispatch_has_kernel_for_dispatch_key("aten::_native_multi_head_attention", "Meta"):
        # torch 2.5 runs on meta the operators that it runs with gradients
        assert partly.backward.macs == counted_by_torch(layer, x, False)
        return
    assert (partly.backward.macs, partly.backward.macs_at_least) == (None, 0)
    assert "MACs unknown" in render(partly, "plain", Screen(100))


def test_a_kernel_that_depends_on_the_device_gives_a_lower_bound_on_meta():
    module, x = FusedWithLearnedBias().eval(), torch.randn(2, 50, 64)
    report = attnscope.trace(module, x, backward=True)
    on_cpu = attnscope.trace(module, x, backward=True, device="cpu")
    assert report.backward.macs is None
    assert report.backward.macs_at_least == on_cpu.backward.macs
    assert f"at least {on_cpu.backward.macs:,} MACs" in render(report, "plain", Screen(100))


@pytest.mark.parametrize("rows", [{"group": "op"}, {"group": "line"}, {"depth": 1}, {"top": 2}, {"all": True}, {}])
def test_the_backward_of_the_rows_adds_up(rows):
    network = nn.Sequential(*[Fused() for _ in range(3)])
    report = attnscope.trace(network, torch.randn(2, 50, 64), backward=True, input_grad=False, **rows)
    assert sum(row.backward.macs_together for row in report.steps) == report.backward.macs
    table = list(csv.DictReader(io.StringIO(render(report, "csv", Screen()))))
    assert (
        sum(int(row["backward_macs"]) for row in table[:-1]) == int(table[-1]["backward_macs"]) == report.backward.macs
    )


def test_the_first_of_equal_blocks_needs_fewer_macs():
    report = attnscope.trace(
        nn.Sequential(*[Fused() for _ in range(3)]), torch.randn(2, 50, 64), backward=True, input_grad=False, depth=1
    )
    (row,) = report.steps
    assert row.times == 3
    assert row.backward.macs_together == 3 * row.backward.macs - 2 * 50 * 64 * 192
