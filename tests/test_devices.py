"""Tests that need a GPU; they are skipped, with the reason, if the machine has none."""

import copy
from dataclasses import replace

import pytest
import torch

from attnscope import DeviceError, SwinSpec, ViTSpec, attentions, explore, networks, trace
from attnscope.plan.memory import Memory
from attnscope.profiling.building import build
from attnscope.profiling.devices import free_memory
from attnscope.profiling.memory import allocated_bytes
from attnscope.profiling.noise import FEWEST_CLEAN

NUMBERS_BYTES = 16


def adds_up(report):
    """Assert that every step has a time, and that the rows and the remainder add up to the whole."""
    time = report.time
    assert min(row.time.interquartile_mean_s for row in report.steps) >= 0
    assert sum(row.time.interquartile_mean_s for row in report.steps) == pytest.approx(time.steps_sum_s)
    assert time.steps_sum_s + time.remainder_s == pytest.approx(time.whole_interquartile_mean_s)
    assert time.steps_sum_s > 0


@pytest.mark.cuda
@pytest.mark.parametrize("spec", [ViTSpec(), SwinSpec(shift=True)], ids=lambda spec: spec.name)
def test_steps_are_timed_on_the_device(spec):
    """`benchmarks/gpu.py` measures how close their sum is to the whole."""
    report = explore(spec, device="cuda", budget=0.2, audit=True)
    assert report.audit.agree
    adds_up(report)
    assert report.time.eager_s > 0
    assert report.time.graph_s is None or report.time.graph_s > 0
    views = [row.name for row in report.steps if not row.bytes_read + row.bytes_written]
    assert "split_heads" in views


@pytest.mark.cuda
@pytest.mark.parametrize("spec", [ViTSpec(), ViTSpec(batch=2), SwinSpec(shift=True)], ids=str)
def test_bytes_requested_from_the_allocator_equal_the_plans(spec):
    module, x = build(spec, torch.device("cuda"))
    plan = attentions.plan(spec)
    for step, held, live in zip(
        plan.steps, allocated_bytes(module, x, "requested_bytes"), Memory(plan).live, strict=True
    ):
        assert held == live, step.name


@pytest.mark.cuda
@pytest.mark.parametrize("name", attentions.names())
def test_every_attention_is_timed_and_verified_on_the_device(name):
    spec = attentions.spec_class(name)()
    report = explore(spec, device="cuda", budget=0.1, audit=True, backward=True)
    assert report.audit.agree
    assert report.backward.macs == report.backward.torch
    adds_up(report)


@pytest.mark.cuda
@pytest.mark.parametrize("name", attentions.names())
def test_memory_requested_by_every_attention_equals_the_plans(name):
    """A plan includes Python's numbers, which torch holds in the memory of the CPU: a few bytes a step."""
    spec = attentions.spec_class(name)()
    module, x = build(spec, torch.device("cuda"))
    plan = attentions.plan(spec)
    held = allocated_bytes(module, x, "requested_bytes")
    for step, found, live in zip(plan.steps, held, Memory(plan).live, strict=True):
        assert live is None or live - NUMBERS_BYTES <= found <= live, step.name


@pytest.mark.cuda
@pytest.mark.parametrize("name", networks.names())
def test_every_network_is_timed_and_verified_on_the_device(name):
    report = explore(networks.spec_class(name)(), device="cuda", budget=0.1, audit=True)
    assert report.audit.agree
    assert report.time.whole_interquartile_mean_s > 0


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", attentions.names())
def test_half_precision_on_the_device_is_near_float64(name, dtype):
    spec = replace(attentions.spec_class(name)(), dtype=dtype)
    module, x = build(spec, torch.device("cuda"))
    expected = copy.deepcopy(module).double()(*[each.double() for each in x])
    found = module(*x).double()
    assert found.isfinite().all()
    assert (found - expected).norm() <= {"float16": 5e-3, "bfloat16": 4e-2}[dtype] * expected.norm()


@pytest.mark.cuda
def test_trace_on_the_device_does_not_move_the_module():
    module = torch.nn.MultiheadAttention(32, 4, batch_first=True)
    x = torch.randn(2, 10, 32)
    found = trace(module, x, x, x, device="cuda", time=True, budget=0.1)
    assert found.totals.macs == 2 * (10 * 32 * 4 * 32 + 2 * 10 * 10 * 32)
    assert found.time.whole_interquartile_mean_s > 0
    assert {each.device.type for each in module.parameters()} == {"cpu"}


@pytest.mark.cuda
def test_a_network_of_more_calls_than_the_queue_holds_is_timed_without_its_launches():
    module = torch.nn.Sequential(*[torch.nn.Linear(64, 64) for _ in range(1500)])
    found = trace(module, torch.randn(8, 64), device="cuda", time=True, budget=0.5)
    assert found.time.clean_runs >= FEWEST_CLEAN
    assert found.time.whole_interquartile_mean_s < 1500 * 8e-6  # a launch alone takes about as long


@pytest.mark.cuda
def test_backward_is_timed_on_the_device():
    report = explore(ViTSpec(), device="cuda", budget=0.1, backward=True, audit=True)
    assert report.backward.macs == report.backward.torch
    assert report.backward.time.whole_interquartile_mean_s > 0


@pytest.mark.cuda
def test_freed_memory_that_torch_caches_counts_as_free():
    device = torch.device("cuda")
    tensor = torch.empty(2**28, device=device)
    held = free_memory(device)
    del tensor
    assert torch.cuda.memory_reserved(device) >= 2**30
    assert free_memory(device) - held >= 2**30


@pytest.mark.cuda
def test_the_random_state_is_unchanged_on_cuda():
    before = torch.cuda.get_rng_state()
    explore(ViTSpec(), device="cuda", budget=0.01)
    assert torch.equal(torch.cuda.get_rng_state(), before)


@pytest.mark.mps
def test_the_random_state_is_unchanged_on_mps():
    before = torch.mps.get_rng_state()
    explore(ViTSpec(), device="mps", budget=0.01)
    assert torch.equal(torch.mps.get_rng_state(), before)


@pytest.mark.mps
def test_float64_raises_a_device_error_on_mps():
    with pytest.raises(DeviceError, match="mps does not support float64"):
        explore(ViTSpec(dtype="float64"), device="mps")


@pytest.mark.cuda
def test_kernels_that_do_not_run_give_the_reason(recwarn):
    report = explore(ViTSpec(), device="cuda", budget=0.01, kernels=True)
    flash = next(kernel for kernel in report.kernels if kernel.name == "flash")
    assert "dtype" in flash.why
    assert not [warning for warning in recwarn if "not used because" in str(warning.message)]


@pytest.mark.cuda
def test_peaks_are_measured_on_the_device():
    from attnscope.profiling.peaks import measure_peaks

    peaks, _ = measure_peaks(torch.device("cuda"), torch.float32, 1)
    assert peaks.macs_per_s > 1e11


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_bounds_on_the_device_are_at_most_the_times(dtype):
    report = explore(ViTSpec(batch=8, dtype=dtype), device="cuda", budget=0.2, focus=["roofline"])
    bounded = [row for row in report.steps if row.roofline]
    assert {row.name for row in bounded} >= {"project", "score", "softmax", "mix", "output"}
    for row in bounded:
        assert row.roofline.seconds <= row.time.interquartile_mean_s * (1 + 1e-6)
    for row in report.steps:
        if row.macs:
            assert row.roofline.seconds <= row.alone.warm_s * (1 + 1e-6)
            assert row.alone.cold_s > 0.9 * row.alone.warm_s
    assert len(report.wider_peaks) == (1 if dtype == "float16" else 0)


@pytest.mark.cuda
def test_the_clock_of_the_gpu_is_read_if_nvml_reports_it():
    pytest.importorskip("pynvml", reason="needs nvidia-ml-py")
    gpu = explore(ViTSpec(batch=8), device="cuda", budget=0.2).time.gpu
    assert gpu is None or 100 < gpu.lowest_clock_mhz <= gpu.highest_clock_mhz <= (gpu.max_clock_mhz or 10_000)


@pytest.mark.mps
def test_steps_are_timed_on_mps():
    adds_up(explore(ViTSpec(), device="mps", budget=0.1))
