"""The same attention by every kernel that runs on this machine."""

import json
import os
import shutil
import warnings
from dataclasses import replace

import pytest
import torch

from attnscope import SwinSpec, ViTSpec, attentions, explore
from attnscope.analyses import fused, measurement
from attnscope.attentions.kernels import (
    BACKENDS,
    FLEX_KNOWS_THE_PROCESSOR,
    MPS_HEEDS_THEM,
    fused_attention,
    heeded_on_mps,
)
from attnscope.core.errors import DeviceError
from attnscope.profiling import clocks
from attnscope.profiling import devices as devices
from attnscope.profiling.kernels import backends_here, compare_kernels, why_not
from attnscope.render import render
from attnscope.render.screen import Screen

CPU = torch.device("cpu")
TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])
SMALL = ViTSpec(dim=32, heads=2, tokens=9)
compiler = pytest.mark.skipif(
    not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))), reason="no C++ compiler here"
)


def compared(*kernels, spec=SMALL, build_exact=None):
    """Return the rows of these kernels by name; they share the weights of an eager module."""
    specs = {kernel: replace(spec, kernel=kernel) for kernel in kernels}
    module = attentions.build(spec).eval()
    builds = {name: (lambda spec=spec: attentions.build(spec)) for name, spec in specs.items()}
    x = (torch.randn(spec.input_shape),)
    rows, _ = compare_kernels(builds, module, x, 0.02, build_exact)
    return {row.name: row for row in rows}


@pytest.mark.parametrize("kernel", ["sdpa", "flash", "math"])
@pytest.mark.parametrize(
    "spec", [ViTSpec(dim=32, heads=2, tokens=9), SwinSpec(dim=24, resolution=14, shift=True)], ids=str
)
def test_kernels_agree(kernel, spec):
    module = attentions.build(spec).eval()
    other = attentions.build(type(spec)(**{**spec.as_dict(), "kernel": kernel})).eval()
    other.load_state_dict(module.state_dict())
    x = torch.randn(spec.input_shape)
    with torch.no_grad():
        torch.testing.assert_close(other(x), module(x))


def test_flash_and_math_run_on_the_cpu():
    assert set(backends_here(CPU, torch.float32)) == {"flash", "math"} < BACKENDS.keys()


def test_backends_that_mps_ignores_are_not_available():
    assert heeded_on_mps("math")
    assert heeded_on_mps("flash") == heeded_on_mps("efficient") == MPS_HEEDS_THEM
    assert torch._C._dispatch_has_kernel_for_dispatch_key(
        "aten::_fused_sdp_choice", "CPU"
    )  # the query finds the operator on the CPU


def test_an_unavailable_kernel_raises_a_device_error():
    with pytest.raises(DeviceError) as error:
        explore(ViTSpec(dim=12, heads=3, tokens=5, kernel="efficient"), device="cpu", budget=0.01)
    (message,) = error.value.args
    assert message.split("; ") == [
        "{kernel} efficient does not run here (torch has no such kernel for this device, dtype and bias)",
        "available: eager, sdpa, flash, math",
        "{kernels} also tries flex and compile",
    ]


def test_a_kernel_that_fails_is_not_listed_as_available(monkeypatch):
    def failing(q, k, v, **settings):
        if q.shape[-2] == 5:
            raise RuntimeError("it did not run.")
        return q

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", failing)
    with pytest.raises(DeviceError) as error:
        explore(ViTSpec(dim=12, heads=3, tokens=5, kernel="flash"), device="cpu", budget=0.01)
    assert str(error.value).startswith(
        "kernel flash does not run here (it did not run); available: eager, sdpa, efficient, math; "
    )


def test_the_reason_comes_from_the_warnings_if_the_error_has_none():
    q = torch.randn(1, 2, 9, 16)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(RuntimeError) as error:
            fused_attention("flash", q, q, q, drop=0.5)
    assert why_not(error.value, caught) == "Both fused kernels do not support non-zero dropout"
    assert why_not(error.value) == "torch has no such kernel for this device, dtype and bias"
    assert why_not(RuntimeError("Of {Half}.\nMore")) == "Of (Half)"
    assert why_not(RuntimeError("backend='inductor' raised:\nLoweringException: no driver\n")) == "no driver"


@pytest.mark.skipif(TORCH < (2, 6), reason="FlexAttention supports meta before torch 2.6")
def test_the_reason_comes_from_the_compiled_code(attnscope):
    """It runs in a separate process: after a failed compilation, torch's hook on Python calls stays and keeps memory."""
    text = attnscope("vit", "--device", "meta", "--kernel", "flex").stderr
    assert text.startswith("attnscope: --kernel flex does not run here (FlexAttention is only supported on CUDA"), text


def test_flex_reports_that_it_has_no_cpu_kernel(monkeypatch):
    """torch 2.5 has no such kernel; its own error is about a GPU driver."""
    monkeypatch.setattr("attnscope.attentions.kernels.FLEX_KNOWS_THE_PROCESSOR", False)
    why = "FlexAttention has no CPU kernel before torch 2.6"
    with pytest.raises(DeviceError) as error:
        explore(replace(SMALL, kernel="flex"), device="cpu", budget=0.01)
    assert str(error.value).startswith(f"kernel flex does not run here ({why}); available: eager, sdpa, flash, math; ")
    assert compared("flex")["flex"].why == why


def test_a_compiled_kernel_does_not_support_dropout():
    tensor = torch.randn(1, 1, 16, 16)
    with pytest.raises(RuntimeError, match="no dropout"):
        fused_attention("flex", tensor, tensor, tensor, drop=0.5)


def test_the_fused_kernel_is_timed_with_the_steps():
    report = explore(ViTSpec(dim=32, heads=2, tokens=9), device="cpu", budget=0.02)
    assert [kernel.name for kernel in report.kernels] == ["eager", "sdpa"]
    eager, fused = report.kernels
    assert (eager.time_s, eager.iqr_s) == (report.time.whole_interquartile_mean_s, report.time.whole_iqr_s)
    assert 0 < fused.time_s < 10 * eager.time_s
    assert all(kernel.time_s > 0 and kernel.error is None for kernel in report.kernels)
    assert explore(ViTSpec(dim=32, heads=2, tokens=9, kernel="sdpa"), device="cpu", budget=0.02).kernels == []


def test_a_comparison_has_errors_and_reasons_of_kernels_that_do_not_run():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = compared("eager", "flash", "efficient", build_exact=lambda: attentions.build(SMALL))
    assert 0 < rows["eager"].error < 1e-5
    assert 0 < rows["flash"].error < 1e-5
    assert rows["efficient"].time_s is None
    assert rows["efficient"].why


def test_kernels_share_the_weights(monkeypatch):
    modules, real = [], attentions.build

    def build(spec):
        modules.append(real(spec))
        return modules[-1]

    monkeypatch.setattr(attentions, "build", build)
    compared("eager", "sdpa")
    (one, *others) = [{name: weight.data_ptr() for name, weight in module.named_parameters()} for module in modules]
    assert others == [one, one]


def test_the_other_kernels_run_if_one_does_not_fit_in_memory():
    def too_large():
        return torch.empty(2**60)

    module = attentions.build(SMALL).eval()
    builds = {"eager": lambda: attentions.build(SMALL), "math": too_large}
    (eager, math), _ = compare_kernels(builds, module, (torch.randn(SMALL.input_shape),), 0.02, too_large)
    assert eager.time_s > 0
    assert eager.error is None
    assert (math.time_s, math.why) == (None, "it needs more memory than is free")


def test_a_disturbed_comparison_of_kernels_has_a_warning(monkeypatch):
    monkeypatch.setattr(clocks.CpuClock, "is_clean", lambda clock, effort, stamps: False)
    monkeypatch.setattr(measurement, "KERNELS", ("eager", "sdpa"))
    report = explore(SMALL, device="cpu", budget=0.01, kernels=True)
    assert any(text.startswith("in the comparison of kernels, another process was busy") for text in report.warnings)


def test_kernels_that_would_not_fit_in_memory_are_not_built(monkeypatch):
    monkeypatch.setattr(devices, "free_memory", lambda device: 92_000)
    monkeypatch.setattr(measurement, "KERNELS", ("eager", "sdpa", "flash"))
    spec = ViTSpec(dim=32, heads=2, tokens=97, kernel="flash")
    report = explore(spec, device="cpu", budget=0.02, kernels=True)
    rows = {kernel.name: kernel for kernel in report.kernels}
    assert rows["eager"].why == "it needs 212.0 KiB, but cpu has 89.8 KiB free"
    assert rows["sdpa"].time_s > 0
    assert all(kernel.error is None for kernel in report.kernels)
    screen = render(report, "table", Screen(width=120))
    assert "eager  not available: it needs 212.0 KiB, but cpu has 89.8 KiB free" in screen
    assert "error unknown  ?× eager" in screen
    assert "error: largest difference from float64, relative to its largest value" in screen


def test_an_error_that_is_nan_is_unknown(monkeypatch):
    rows = compared("eager", build_exact=lambda: attentions.build(SMALL))
    assert rows["eager"].error is not None
    spec = ViTSpec(dim=32, heads=2, tokens=9, dtype="float16", qk_scale=1e6)
    monkeypatch.setattr(measurement, "KERNELS", ("eager", "sdpa", "flash"))
    kernels = explore(spec, device="cpu", budget=0.01, kernels=True)
    assert kernels.kernels[0].error is None
    assert json.loads(kernels.to_json())["kernels"][0]["error"] is None


@compiler
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler uses deprecated parts of torch
@pytest.mark.parametrize("kernel", ["flex", "compile"])
def test_compiled_kernels_agree(kernel):
    if kernel == "flex" and not FLEX_KNOWS_THE_PROCESSOR:
        pytest.skip("FlexAttention has no CPU kernel before torch 2.6")
    q, k, v = torch.randn(3, 2, 2, 16, 16)
    bias = torch.randn(1, 2, 16, 16)
    expected = (q @ k.mT * 0.2 + bias).softmax(-1) @ v
    with torch.inference_mode():
        torch.testing.assert_close(fused_attention(kernel, q, k, v, bias, scale=0.2), expected)


@compiler
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler uses deprecated parts of torch
def test_the_audit_gives_the_reason_why_fvcore_does_not_count_a_compiled_kernel():
    audit = explore(ViTSpec(dim=12, heads=3, tokens=5, kernel="compile"), device="cpu", time=False, audit=True).audit
    assert audit.agree
    assert audit.fvcore is None
    assert audit.notes[0] == (
        "fvcore is not available: it cannot trace compiled code; use --kernel eager, which has the same counts"
    )


@compiler
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler uses deprecated parts of torch
@pytest.mark.parametrize("shape", [lambda n: (n, 3), lambda n: (7, 3 * n)], ids=["sizes", "strides"])
def test_each_new_size_or_stride_is_compiled_separately(shape):
    from torch._dynamo.utils import counters

    before = counters["stats"]["unique_graphs"]
    for kind in range(2, 11):
        q = torch.randn(1, 1, *shape(kind))[..., :3]
        for _ in range(2):
            with torch.inference_mode():
                torch.testing.assert_close(fused_attention("compile", q, q, q), (q @ q.mT).softmax(-1) @ q)
    assert counters["stats"]["unique_graphs"] - before == 9


@pytest.mark.filterwarnings("ignore")  # torch's compiler uses deprecated parts of torch
@pytest.mark.parametrize("kernel", ["flex", "compile"])
def test_a_compiled_kernel_is_compiled_with_its_caller(kernel):
    def twice(q):
        return 2 * fused_attention(kernel, q, q, q)

    q = torch.randn(1, 1, 16, 16)
    whole = torch.compile(twice, fullgraph=True, backend="eager")
    with torch.inference_mode():
        torch.testing.assert_close(whole(q), 2 * (q @ q.mT).softmax(-1) @ q)


def test_the_fused_kernel_is_not_timed_with_a_long_forward(monkeypatch):
    monkeypatch.setattr(fused, "LONGEST_FUSED_S", 0.0)
    assert explore(ViTSpec(dim=32, heads=2, tokens=9), device="cpu", budget=0.02).kernels == []
