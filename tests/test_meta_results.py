"""A fast trace on meta: reused results are like those of the operator, and the garbage collector is paused."""

import gc
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import attnscope
from attnscope.tracing.meta_results import MetaResults
from attnscope.tracing.trace import ForwardError

aten = torch.ops.aten


def meta(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="meta")


def turned(*shape):
    """Return a tensor whose memory is not in the order of its axes."""
    return meta(*reversed(shape)).permute(*reversed(range(len(shape))))


def last(*shape):
    return meta(*shape).to(memory_format=torch.channels_last)


def everything(out):
    """Return what can be known of a result on meta."""
    tensors = [out] if isinstance(out, torch.Tensor) else out
    return type(out), [
        (each.shape, each.stride(), each.dtype, each.storage_offset(), each.untyped_storage().nbytes())
        for each in tensors
    ]


CONVOLUTION = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)
REUSED = [
    *[(aten.add.Tensor, x, y) for x in (meta(2, 3), turned(2, 3), meta(2, 3, dtype=torch.int8)) for y in (1, 1.0, True)],
    *[(aten.mul.Tensor, meta(2, 3), y) for y in (turned(2, 3), meta(3), meta(2, 1).expand(2, 3), meta(0, 1, 3))],
    *[(aten.mul.Tensor, meta(3, dtype=torch.float16), y) for y in (meta(3), meta(), meta(3, dtype=torch.complex64))],
    (aten.convolution.default, last(2, 8, 5, 5), meta(4, 8, 3, 3), None, *CONVOLUTION),
    (aten.convolution.default, meta(2, 8, 5, 5), meta(4, 8, 3, 3), meta(4), *CONVOLUTION),
    (aten.native_layer_norm.default, turned(2, 5, 6), [6], meta(6), meta(6), 1e-5),
    (aten.addmm.default, meta(4), meta(3, 2), turned(2, 4)),
    (aten._softmax.default, turned(2, 3, 4), -1, False),
    (aten.clone.default, turned(2, 3)),
    (aten.sum.dim_IntList, meta(2, 3, dtype=torch.int32), [1], True),
    (aten.split_with_sizes_copy.default, meta(4, 6), [1, 2, 1]),
    (aten.cat.default, [meta(2, 3), meta(4, 3, dtype=torch.float64)]),
    (aten._to_copy.default, meta(2, 3)),
]  # fmt: skip


class Counted:
    """An operator that counts its runs."""

    def __init__(self, func):
        self.func, self.runs = func, 0
        self._schema, self.namespace, self.tags = func._schema, func.namespace, func.tags

    def __call__(self, *args, **kwargs):
        self.runs += 1
        return self.func(*args, **kwargs)


@pytest.mark.parametrize(("func", "args"), [(func, args) for func, *args in REUSED])
def test_a_reused_result_is_like_that_of_the_operator(func, args):
    results, counted, expected = MetaResults(), Counted(func), everything(func(*args))
    made = [results.of(counted, args, {}) for _ in range(3)]
    assert [everything(out) for out in made] == [expected] * 3
    assert counted.runs == 1


def test_arguments_that_differ_do_not_share_a_result():
    results = MetaResults()
    for _ in range(2):
        for func, *args in REUSED:
            assert everything(results.of(func, args, {})) == everything(func(*args))
        for dtype in (torch.float16, torch.float64):
            kwargs = {"dtype": dtype, "memory_format": torch.contiguous_format}
            out = results.of(aten._to_copy.default, [turned(2, 3)], kwargs)
            assert everything(out) == everything(aten._to_copy.default(turned(2, 3), **kwargs))
    before = torch.get_default_dtype()
    try:
        for dtype in (torch.float32, torch.float64):
            torch.set_default_dtype(dtype)
            assert results.of(aten.add.Tensor, [meta(2, dtype=torch.int64), 0.5], {}).dtype is dtype
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize(
    ("func", "args"),
    [
        (aten.view.default, [meta(2, 3), [6]]),
        (aten._unsafe_view.default, [meta(2, 3), [6]]),  # its schema does not say that it shares memory
        (aten.add_.Tensor, [meta(2, 3), 1]),
        (aten.add.out, [meta(2, 3), 1]),
        (aten.rand_like.default, [meta(2, 3)]),
        (aten.native_dropout.default, [meta(2, 3), 0.5, True]),
        (aten.add.Tensor, [torch.ones(2), 1]),
        (aten.add.Tensor, [meta(2, dtype=torch.complex64).conj(), 1]),
        (aten.add.Tensor, [torch.ones(2, 3).to_sparse(), torch.ones(2, 3).to_sparse()]),
    ],
)
def test_a_result_that_depends_on_more_than_sizes_is_not_reused(func, args):
    results, counted = MetaResults(), Counted(func)
    kwargs = {"out": meta(2, 3)} if func is aten.add.out else {}
    for _ in range(3):
        results.of(counted, args, kwargs)
    assert counted.runs == 3


def test_another_mode_sees_every_operator():
    class Log(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **kwargs or {})

    results, seen, x = MetaResults(), [], meta(2)
    with Log():
        for _ in range(3):
            results.of(aten.exp.default, [x], {})
    assert seen == [aten.exp.default] * 3


class Attention(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.qkv, self.norm, self.out = nn.Linear(width, 3 * width), nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        weights = (q @ k.mT).softmax(-1)
        return x.add_(self.out((weights @ v).transpose(1, 2).reshape(x.shape)))


class Mapped(nn.Module):
    def forward(self, x):
        for _ in range(2):
            x = torch.vmap(lambda each: each.softmax(-1) @ each.mT @ each)(x)
        return x


class Mixed(nn.Module):
    def forward(self, x):
        total = 0
        for dtype in (torch.float16, torch.float64, torch.float16):
            with torch.autocast("cpu", torch.bfloat16), torch.enable_grad():
                total = total + (x.to(dtype) + 1) * torch.arange(8, device=x.device) / 2
        return total.detach()


NETWORKS = {
    "attention": lambda: nn.Sequential(*[Attention() for _ in range(3)]),
    "convolutions": lambda: nn.Sequential(
        nn.Unflatten(2, (2, 4)), *[nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(True)] * 3
    ),
    "recurrent": lambda: nn.LSTM(8, 4, 2, batch_first=True),
    "encoder": lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 3),
    "mapped": Mapped,
    "mixed": Mixed,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_report_is_equal_to_one_without_reuse(name, monkeypatch):
    torch.manual_seed(0)
    module, x = NETWORKS[name](), torch.rand(2, 6, 8)

    def reports():
        made = [attnscope.trace(module, x, group=group, backward=True) for group in ("module", "line")]
        return [replace(report, environment={}) for report in made]  # which has the load of the machine

    with_reuse = reports()
    monkeypatch.setattr(MetaResults, "of", lambda self, func, args, kwargs: func(*args, **kwargs))
    assert with_reuse == reports()


class Collecting(nn.Module):
    """A module that prints whether garbage is collected during its forward."""

    def __init__(self, fails):
        super().__init__()
        self.fails = fails

    def forward(self, x):
        print(x.device.type, gc.isenabled())
        return x.reshape(-1, 5) if self.fails else x + 1


@pytest.mark.parametrize("fails", [False, True])
def test_the_collector_is_paused_on_meta_alone(fails, capsys):
    for settings in ({}, {"device": "cpu"}):
        with pytest.raises(ForwardError) if fails else nullcontext():
            attnscope.trace(Collecting(fails), torch.ones(3), **settings)
        assert gc.isenabled()
    assert set(capsys.readouterr().err.splitlines()) == {"meta False", "cpu True"}


def test_the_first_trace_of_a_process_has_the_peak_of_the_second():
    """torch imports its compiler in the first call of `layer_norm`, and the modules keep frames in cycles."""
    code = (
        "import torch, attnscope; from tests.blocks import Block\n"
        "blocks, x = torch.nn.Sequential(Block(), Block(), Block()), torch.zeros(1, 49, 64)\n"
        "print(*[attnscope.trace(blocks, x).totals.peak_bytes for _ in range(2)])"
    )
    first, second = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    ).stdout.split()
    assert first == second
