"""GPUs: what only they can tell. Skipped, with the reason, where there is none."""

import pytest
import torch

from attnscope import DeviceError, SwinSpec, ViTSpec, attentions, explore
from attnscope.making import build
from attnscope.memory import Memory
from attnscope.probes.device import free_memory

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
def test_the_allocator_holds_what_the_plan_says_in_blocks_of_512_bytes(spec):
    from attnscope.probes.memory import allocated_bytes

    module, x = build(spec, torch.device("cuda"))
    plan = attentions.plan(spec)
    for step, held, live in zip(plan.steps, allocated_bytes(module, x), Memory(plan).live, strict=True):
        assert live <= held <= live + 512 * (len(plan.steps) + 4), step.name


@marked(*cuda)
def test_backward_is_timed_on_the_device():
    report = explore(ViTSpec(), device="cuda", budget=0.1, backward=True, audit=True)
    assert report.backward.macs == report.backward.torch
    assert report.backward.time.whole_median_s > 0


@marked(*cuda)
def test_what_torch_keeps_of_freed_memory_is_free():
    device = torch.device("cuda")
    tensor = torch.empty(2**28, device=device)
    held = free_memory(device)
    del tensor
    assert torch.cuda.memory_reserved(device) >= 2**30
    assert free_memory(device) - held >= 2**30


@marked(*cuda)
def test_the_users_random_numbers_are_left_alone_on_cuda():
    before = torch.cuda.get_rng_state()
    explore(ViTSpec(), device="cuda", budget=0.01)
    assert torch.equal(torch.cuda.get_rng_state(), before)


@marked(*mps)
def test_the_users_random_numbers_are_left_alone_on_mps():
    before = torch.mps.get_rng_state()
    explore(ViTSpec(), device="mps", budget=0.01)
    assert torch.equal(torch.mps.get_rng_state(), before)


@marked(*mps)
def test_numbers_of_64_bits_are_one_line_on_mps():
    with pytest.raises(DeviceError, match="mps knows no float64"):
        explore(ViTSpec(dtype="float64"), device="mps")


@marked(*cuda)
def test_kernels_say_why_they_do_not_run(recwarn):
    report = explore(ViTSpec(), device="cuda", budget=0.01, kernels=True)
    flash = next(kernel for kernel in report.kernels if kernel.name == "flash")
    assert "dtype" in flash.why
    assert not [warning for warning in recwarn if "not used because" in str(warning.message)]


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
