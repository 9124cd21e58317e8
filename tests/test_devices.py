"""GPUs: what only they can tell. Skipped, with the reason, where there is none."""

import pytest
import torch

from attnscope import SwinSpec, ViTSpec, attentions, explore
from attnscope.making import build
from attnscope.memory import Memory

cuda = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]
mps = [
    pytest.mark.mps,
    pytest.mark.skipif(not torch.backends.mps.is_available(), reason="no MPS device here"),
]


def marked(*marks):
    def mark(test):
        for one in marks:
            test = one(test)
        return test

    return mark


@marked(*cuda)
@pytest.mark.parametrize("spec", [ViTSpec(), SwinSpec(shift=True)], ids=lambda spec: spec.name)
def test_steps_add_up_to_the_whole_on_the_device(spec):
    report = explore(spec, device="cuda", budget=0.2, audit=True)
    assert report.audit.agree
    assert report.time.steps_sum_s > 0
    assert report.time.eager_s > 0
    assert report.time.graph_s is None or report.time.graph_s > 0
    views = [row.name for row in report.steps if not row.bytes_read + row.bytes_written]
    assert "split_heads" in views


@marked(*cuda)
@pytest.mark.parametrize("spec", [ViTSpec(), ViTSpec(batch=2), SwinSpec(shift=True)], ids=str)
def test_the_allocator_is_asked_for_what_the_plan_says(spec):
    from attnscope.probes.memory import allocated_bytes

    module, x = build(spec, torch.device("cuda"))
    plan = attentions.plan(spec)
    for step, held, live in zip(plan.steps, allocated_bytes(module, x), Memory(plan).live, strict=True):
        assert live - step.number_bytes <= held <= live, step.name  # the number lies on the processor


@marked(*cuda)
def test_backward_is_timed_on_the_device():
    report = explore(ViTSpec(), device="cuda", budget=0.1, backward=True, audit=True)
    assert report.backward.macs == report.backward.torch
    assert report.backward.time.whole_median_s > 0


@marked(*cuda)
def test_peaks_of_the_device():
    from attnscope.probes.peaks import measure_peaks

    peaks, _ = measure_peaks(torch.device("cuda"), torch.float32, 1)
    assert peaks.macs_per_s > 1e11


@marked(*mps)
def test_mps_gives_an_upper_bound():
    report = explore(ViTSpec(), device="mps", budget=0.1)
    assert report.time.whole_median_s > 0
    assert all(row.time is not None for row in report.steps)
