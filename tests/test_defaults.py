"""Defaults and modes that a program sets in torch: they do not affect results."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from attnscope import SwinSpec, explore, trace
from attnscope.analyses.contenders import arrange
from attnscope.analyses.paper_comparison import on_paper
from attnscope.analyses.timed_comparison import race

SPEC = SwinSpec(resolution=14, dim=12, heads=3, shift=True)


@contextmanager
def default_device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def default_dtype() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


around = pytest.mark.parametrize("around", [default_device, default_dtype, torch.inference_mode, torch.no_grad])


@around
def test_explore_ignores_torchs_defaults(around):
    plain = explore(SPEC, time=False)
    with around():
        report = explore(SPEC, device="cpu", budget=0.01, backward=True, audit=True, kernels=True)
    assert report.audit.agree
    assert report.totals == plain.totals
    assert report.backward.torch == report.backward.macs
    assert report.environment["denormals"] == "kept"
    errors = {kernel.name: kernel.error for kernel in report.kernels}
    assert 0 < errors["eager"] < 1e-5  # float32 against float64
    assert 0 < errors["sdpa"] < 1e-5


@around
def test_explore_on_meta_ignores_torchs_defaults(around):
    with around():
        report = explore(SPEC, device="meta", backward=True, audit=True)
    assert report.audit.agree
    assert report.backward.torch == report.backward.macs


@around
def test_compare_ignores_torchs_defaults(around):
    meeting = arrange(["vit", "swin"], {"resolution": [7, 14]}, {"dim": 12, "heads": 3})
    comparison = on_paper(meeting)
    with around():
        race(comparison, meeting, device="cpu", budget=0.01)
    assert all(set(point.times) == {"vit", "swin"} for point in comparison.points)


@around
@pytest.mark.parametrize("time", [False, True])
def test_trace_ignores_torchs_defaults(around, time):
    module, x = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)), torch.randn(2, 8)
    with around():
        report = trace(module, x, time=time, budget=0.01)
    assert report.totals.macs == 2 * 8 * 8
    assert [row.outputs for row in report.steps] == [[(2, 8)], [(2, 8)]]
    assert (report.time is not None) is time
