"""The same attention by every kernel that runs here."""

import pytest
import torch

from attnscope import SwinSpec, ViTSpec, attentions, explore
from attnscope.attentions.kernels import BACKENDS, fused_attention
from attnscope.errors import DeviceError
from attnscope.probes.kernels import backends_here, compare_kernels

CPU = torch.device("cpu")


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


def test_what_runs_here_is_found_by_trying():
    assert set(backends_here(CPU)) == {"flash", "math"} < BACKENDS.keys()


def test_a_kernel_that_is_not_here_is_one_line():
    with pytest.raises(DeviceError, match=r"kernel efficient does not run here .*; there is: eager, sdpa, flash, math"):
        explore(ViTSpec(dim=12, heads=3, tokens=5, kernel="efficient"), device="cpu", budget=0.01)


def test_a_compiled_kernel_takes_no_dropout():
    tensor = torch.randn(1, 1, 16, 16)
    with pytest.raises(RuntimeError, match="no dropout"):
        fused_attention("flex", tensor, tensor, tensor, drop=0.5)


def test_the_fused_kernel_stands_beside_the_steps():
    report = explore(ViTSpec(dim=32, heads=2, tokens=9), device="cpu", budget=0.02)
    assert [kernel.name for kernel in report.kernels] == ["eager", "sdpa"]
    assert all(kernel.time_s > 0 and kernel.error is None for kernel in report.kernels)
    assert explore(ViTSpec(dim=32, heads=2, tokens=9, kernel="sdpa"), device="cpu", budget=0.02).kernels == []


def test_comparing_tells_errors_and_what_does_not_run():
    specs = {kernel: ViTSpec(dim=32, heads=2, tokens=9, kernel=kernel) for kernel in ("eager", "flash", "efficient")}
    module = attentions.build(specs["eager"]).eval()
    x = (torch.randn(specs["eager"].input_shape),)
    builds = {name: (lambda spec=spec: attentions.build(spec)) for name, spec in specs.items()}
    rows = {row.name: row for row in compare_kernels(builds, module, x, 0.02, errors=True)}
    assert 0 < rows["eager"].error < 1e-5
    assert 0 < rows["flash"].error < 1e-5
    assert rows["efficient"].time_s is None
    assert rows["efficient"].why


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of itself
@pytest.mark.parametrize("kernel", ["flex", "compile"])
def test_compiled_kernels_agree(kernel):
    pytest.importorskip("torch._inductor")
    q, k, v = torch.randn(3, 2, 2, 16, 16)
    bias = torch.randn(1, 2, 16, 16)
    expected = (q @ k.mT * 0.2 + bias).softmax(-1) @ v
    with torch.inference_mode():
        torch.testing.assert_close(fused_attention(kernel, q, k, v, bias, scale=0.2), expected)
