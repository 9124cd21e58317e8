"""GPUs: what only they can tell. Skipped, with the reason, where there is none."""

import pytest
import torch

from attnscope import SwinSpec, ViTSpec, attentions, explore
from attnscope.making import build
from attnscope.memory import Memory


def adds_up(report):
    """Every step has a time, and the rows and the remainder come to the whole."""
    time = report.time
    assert min(row.time.median_s for row in report.steps) >= 0
    assert sum(row.time.median_s for row in report.steps) == pytest.approx(time.steps_sum_s)
    assert time.steps_sum_s + time.remainder_s == pytest.approx(time.whole_median_s)
    assert time.steps_sum_s > 0


@pytest.mark.cuda
@pytest.mark.parametrize("spec", [ViTSpec(), SwinSpec(shift=True)], ids=lambda spec: spec.name)
def test_steps_are_timed_on_the_device(spec):
    """How close they come to the whole is a figure of `benchmarks/gpu.py`."""
    report = explore(spec, device="cuda", budget=0.2, audit=True)
    assert report.audit.agree
    adds_up(report)
    assert report.time.eager_s > 0
    assert report.time.graph_s is None or report.time.graph_s > 0
    views = [row.name for row in report.steps if not row.bytes_read + row.bytes_written]
    assert "split_heads" in views


@pytest.mark.cuda
@pytest.mark.parametrize("spec", [ViTSpec(), ViTSpec(batch=2), SwinSpec(shift=True)], ids=str)
def test_the_allocator_is_asked_for_what_the_plan_says(spec):
    from attnscope.probes.memory import allocated_bytes

    module, x = build(spec, torch.device("cuda"))
    plan = attentions.plan(spec)
    for step, held, live in zip(
        plan.steps, allocated_bytes(module, x, "requested_bytes"), Memory(plan).live, strict=True
    ):
        assert live - step.number_bytes <= held <= live, step.name  # the number lies on the processor


@pytest.mark.cuda
def test_backward_is_timed_on_the_device():
    report = explore(ViTSpec(), device="cuda", budget=0.1, backward=True, audit=True)
    assert report.backward.macs == report.backward.torch
    assert report.backward.time.whole_median_s > 0


@pytest.mark.cuda
def test_peaks_of_the_device():
    from attnscope.probes.peaks import measure_peaks

    peaks, _ = measure_peaks(torch.device("cuda"), torch.float32, 1)
    assert peaks.macs_per_s > 1e11


@pytest.mark.mps
def test_steps_are_timed_on_mps():
    adds_up(explore(ViTSpec(), device="mps", budget=0.1))
