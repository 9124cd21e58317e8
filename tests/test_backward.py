"""The backward: MACs against torch's count, tensors saved for it, and times."""

import csv
import io
import sys

import pytest
import torch
from hypothesis import given, settings
from torch import nn

from attnscope import DeviceError, SwinSpec, ViTSpec, attentions, explore
from attnscope.attentions.cross.spec import CrossSpec
from attnscope.attentions.kernels import FLEX_KNOWS_THE_PROCESSOR
from attnscope.attentions.swinv2.spec import SwinV2Spec
from attnscope.core.optional import sum_of
from attnscope.networks.swin.spec import SwinNetworkSpec, SwinV2NetworkSpec
from attnscope.networks.vit.spec import ViTNetworkSpec
from attnscope.plan.backward import backward_macs, recomputes_scores
from attnscope.profiling.building import build
from attnscope.profiling.counters import count_backward_with_torch
from attnscope.profiling.verification import CountedBackward, compare_backward
from attnscope.render import render
from attnscope.render.screen import Screen
from attnscope.testing import hold_backward_macs
from tests.strategies import small_swins, small_vits, specs

CPU = torch.device("cpu")
needs_flex = pytest.mark.skipif(not FLEX_KNOWS_THE_PROCESSOR, reason="FlexAttention has no CPU kernel before torch 2.6")


def declared(spec, input_grad):
    return sum_of(backward_macs(spec.plan(), spec.kernel, input_grad))


@pytest.mark.parametrize(
    ("kernel", "input_grad", "ratio"),
    [("eager", True, "2.000"), ("eager", False, "1.335"), ("sdpa", True, "2.057"), ("sdpa", False, "1.392")],
)
def test_backward_is_not_twice_the_forward(kernel, input_grad, ratio):
    """Check all four cases of a ViT-B attention."""
    spec = ViTSpec(kernel=kernel)
    assert f"{declared(spec, input_grad) / spec.plan().macs:.3f}" == ratio


@given(specs(kernels=("eager",)))
@settings(max_examples=20)
def test_backward_macs_of_an_attention_equal_torchs_count(spec):
    for input_grad in (True, False):
        hold_backward_macs(spec, input_grad)


@pytest.mark.parametrize("spec", [SwinV2Spec(dim=12, resolution=14, shift=True), CrossSpec(dim=12, heads=3)], ids=str)
@pytest.mark.parametrize("input_grad", [True, False])
def test_backward_macs_of_swinv2_and_cross_attention_equal_torchs_count(spec, input_grad):
    hold_backward_macs(spec, input_grad)


SMALL = {"dim": 12, "heads": 3, "classes": 5}
ALIKE = [
    kind(depths=depths, image=image, window=7, **SMALL, **scope)
    for kind in (SwinNetworkSpec, SwinV2NetworkSpec)
    for depths, image, scope in (
        ((4, 3), (56, 56), {}),
        ((4, 3), (56, 56), {"stage": 1}),
        ((4, 3), (28, 28), {"stage": 1}),  # a single window: the partition is a view, not a copy
        ((3, 5), (60, 44), {"stage": 1}),
        ((4, 3), (56, 56), {"stage": 2}),
        ((4, 3), (56, 56), {"stage": 1, "block": 2}),
        ((4, 3), (56, 56), {"scope": "block"}),
    )
] + [ViTNetworkSpec(dim=12, heads=3, depth=3, classes=5, image=(32, 48), scope=scope) for scope in ("model", "block")]
"""Networks of identical blocks, as a whole and by stage and block."""


@pytest.mark.parametrize("spec", ALIKE, ids=lambda spec: f"{spec.name}-{'x'.join(map(str, spec.input_shape))}")
@pytest.mark.parametrize("input_grad", [True, False])
def test_each_of_several_identical_blocks_is_counted(spec, input_grad):
    """The first block may get an input without a gradient; the others never do."""
    hold_backward_macs(spec, input_grad)


@given(small_vits | small_swins)
@settings(max_examples=15)
def test_backward_macs_of_a_network_equal_torchs_count(spec):
    for input_grad in (True, False):
        hold_backward_macs(spec, input_grad)


def test_rows_add_up_if_the_first_of_several_blocks_has_a_smaller_backward():
    spec = SwinV2NetworkSpec(stage=1, depths=(4,), image=(28, 28), window=7, **SMALL)
    report = explore(spec, device="cpu", time=False, backward=True, input_grad=False, audit=True, focus=["memory"])
    assert report.audit.agree
    assert report.backward.macs == report.backward.torch
    project = next(row for row in report.steps if row.name == "project")
    assert (project.times, project.backward.macs) == (4, 2 * project.macs)
    assert project.backward.macs_together == 7 * project.macs  # 1 + 2 + 2 + 2
    saved = spec.itemsize * 7 * 7 * 12
    assert (project.bytes_saved, project.bytes_saved_together) == (saved, 3 * saved)
    for totals, of_row in (
        (report.backward.macs, [row.backward.macs_together for row in report.steps]),
        (report.totals.kept_bytes, [row.bytes_saved_together for row in report.steps]),
    ):
        assert sum(of_row) == totals
    *rows, foot = csv.DictReader(io.StringIO(render(report, "csv", Screen())))
    for key, total in (("backward_macs", report.backward.macs), ("bytes_saved", report.totals.kept_bytes)):
        assert sum(int(row[key]) for row in rows) == int(foot[key]) == total
    lines = render(report, "md", Screen()).splitlines()
    assert f" {7 * project.macs:,} |" in next(line for line in lines if "| project ×4 |" in line)
    assert f" {report.backward.macs:,} |" in lines[-1]


@pytest.mark.parametrize(
    "spec", [SwinSpec(dim=12, resolution=14, kernel="sdpa"), ViTSpec(dim=12, heads=3, kernel="math")]
)
def test_kernels_that_save_the_scores_do_not_recompute_them(spec):
    """On the CPU, torch uses the math kernel for a learned bias."""
    assert declared(spec, True) == 2 * spec.plan().macs == count_backward_with_torch(*built(spec), input_grad=True)


def built(spec):
    module, x = build(spec, CPU)
    return module, *x


def test_backward_macs_of_a_compiled_kernel_are_unknown():
    assert declared(ViTSpec(kernel="compile"), True) is None
    report = explore(ViTSpec(kernel="compile"), time=False, backward=True)
    assert report.backward.macs is None
    assert report.notes == ["the MACs of the backward are unknown: compile does not expose what it computes"]
    assert "MACs unknown; with the input's gradient" in render(report, "table", Screen())


def test_unknown_backward_macs_do_not_disagree_with_torch():
    plan = ViTSpec(kernel="compile").plan()
    assert compare_backward(plan, backward_macs(plan, "compile"), 1) == CountedBackward(1)


def test_the_backward_kernel_is_the_same_with_and_without_times(monkeypatch):
    spec = SwinSpec(dim=12, resolution=14, kernel="sdpa")
    timed = explore(spec, device="cpu", budget=0.01, backward=True)
    assert timed.backward.macs == 2 * timed.totals.macs
    assert explore(spec, device="cpu", time=False, backward=True).backward.macs == timed.backward.macs
    for platform, devices in (("linux", "cuda and cpu"), ("win32", "cuda and cpu")):
        monkeypatch.setattr(sys, "platform", platform)
        report = explore(spec, time=False, backward=True)
        assert report.backward.macs is None
        assert [row.name for row in report.steps if row.backward.macs is None] == ["attend"]
        assert report.notes == [
            f"the MACs of the backward are unknown: {devices} use different kernels for it; choose one with --device"
        ]
    monkeypatch.setattr(sys, "platform", "darwin")
    assert explore(spec, time=False, backward=True).backward.macs == timed.backward.macs


@pytest.mark.parametrize(
    ("spec", "device", "recomputed"),
    [
        (ViTSpec(kernel="sdpa"), "cpu", True),
        (ViTSpec(kernel="sdpa", dtype="float64"), "cpu", True),
        (ViTSpec(kernel="sdpa"), "cuda", True),
        (ViTSpec(kernel="sdpa"), "mps", False),
        (ViTSpec(kernel="sdpa"), "meta", False),
        (ViTSpec(kernel="sdpa", dtype="float64"), "cuda", False),
        (ViTSpec(kernel="sdpa", dim=36), "cuda", None),
        (SwinSpec(kernel="sdpa"), "cpu", False),
        (SwinSpec(kernel="sdpa"), "cuda", True),
        (SwinSpec(kernel="sdpa"), "mps", False),
        (SwinV2Spec(kernel="sdpa"), "cpu", False),
        (SwinV2Spec(kernel="sdpa"), "cuda", True),
        (SwinSpec(kernel="efficient"), "cuda", True),
        (SwinSpec(kernel="math"), "cuda", False),
        (SwinSpec(kernel="flex"), "cuda", None),
    ],
)
def test_fused_kernels_recompute_the_scores_and_the_math_kernel_does_not(spec, device, recomputed):
    attend = next(step for step in spec.plan().steps if step.name == "attend")
    assert recomputes_scores(attend, spec.kernel, device) is recomputed


@pytest.mark.parametrize(
    "device",
    [
        pytest.param(
            "cuda", marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
        ),
        pytest.param(
            "mps",
            marks=[pytest.mark.mps, pytest.mark.skipif(not torch.backends.mps.is_available(), reason="no MPS device")],
        ),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("kind", [ViTSpec, SwinSpec, SwinV2Spec])
def test_the_backward_kernel_of_a_gpu_is_predicted(kind, dtype, device):
    if (device, dtype) == ("mps", "float64"):
        pytest.skip("MPS does not support float64")
    report = explore(kind(kernel="sdpa", dtype=dtype), device=device, time=False, audit=True, backward=True)
    assert report.audit.agree
    assert report.backward.macs == report.backward.torch


@pytest.mark.parametrize("spec", [ViTSpec(dim=12, heads=3, kernel="sdpa"), SwinSpec(dim=12, kernel="sdpa")])
def test_torch_uses_its_math_kernel_on_meta(spec):
    report = explore(spec, device="meta", audit=True, backward=True)
    assert report.audit.agree
    assert report.backward.macs == report.backward.torch == 2 * report.totals.macs


def test_explore_fills_the_backward():
    report = explore(SwinSpec(dim=12, resolution=14, shift=True), device="cpu", budget=0.01, backward=True, audit=True)
    back = report.backward
    assert back is not None
    assert back.macs == back.torch == 2 * report.totals.macs
    assert report.audit.agree
    assert all(row.backward is not None and row.backward.time is not None for row in report.steps)
    assert back.time is not None
    total = sum(row.backward.time.interquartile_mean_s for row in report.steps)
    assert total == pytest.approx(back.time.steps_sum_s)


def test_steps_before_the_first_weight_have_no_backward_without_an_input_gradient():
    spec = SwinSpec(dim=12, resolution=14, shift=True)
    report = explore(spec, device="cpu", budget=0.01, backward=True, input_grad=False)
    timed = {row.name: row.backward.time is not None for row in report.steps}
    assert not timed["shift"]
    assert not timed["partition"]
    assert timed["project"]
    assert report.steps[2].backward.macs == report.steps[2].macs


def test_backward_macs_are_reported_without_running():
    report = explore(ViTSpec(), time=False, backward=True)
    assert report.backward.macs == 1_048_783_872
    assert report.backward.time is None


def test_timing_the_backward_leaves_no_hooks_on_the_module():
    spec = ViTSpec(dim=12, heads=3, tokens=5)
    module, x = build(spec, CPU)
    from attnscope.profiling.backward import time_backward

    time_backward(module, x, 0.01, input_grad=True)
    assert all(parameter.grad is None for parameter in module.parameters())
    assert not x[0].requires_grad
    assert type(spec.build()).score is type(module).score
    assert "score" not in vars(module)
    assert attentions.plan(spec)


@pytest.mark.parametrize("kernel", [pytest.param("flex", marks=needs_flex), "flash"])
def test_a_kernel_without_a_backward_raises_a_device_error(kernel):
    spec = SwinSpec(dim=12, resolution=14, kernel=kernel)
    with pytest.raises(DeviceError, match=f"kernel {kernel} has no backward here"):
        explore(spec, device="cpu", budget=0.01, backward=True)


@needs_flex
def test_a_counter_that_fails_is_not_available():
    report = explore(ViTSpec(dim=12, heads=3, tokens=5, kernel="flex"), device="cpu", time=False, audit=True)
    assert report.audit.torch is None
    assert any("FlopCounterMode is not available" in note for note in report.audit.notes)


@pytest.mark.parametrize("groups", [1, 3, 12])
@pytest.mark.parametrize("input_grad", [True, False])
def test_the_gradient_of_a_weight_is_counted_in_its_groups(groups, input_grad):
    """The gradients of weight and input each cost as many MACs as the forward."""
    convolution = nn.Conv2d(12, 12, 3, padding=1, groups=groups)
    forward = 12 * 4 * 5 * 12 // groups * 9
    found = count_backward_with_torch(convolution, torch.randn(1, 12, 4, 5), input_grad=input_grad)
    assert found == forward * (1 + input_grad)
