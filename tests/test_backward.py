"""The backward: MACs held against torch's count of the real one, what is kept for it, and its times."""

import pytest
import torch
from hypothesis import given, settings

from attnscope import DeviceError, SwinSpec, ViTSpec, attentions, explore
from attnscope.attentions.cross.spec import CrossSpec
from attnscope.attentions.swinv2.spec import SwinV2Spec
from attnscope.auditing import sum_backward
from attnscope.backward import backward_macs
from attnscope.making import build, build_module, plan_of
from attnscope.probes.audit import count_backward_with_torch
from tests.strategies import specs

CPU = torch.device("cpu")


def declared(spec, input_grad):
    plan = plan_of(spec)
    return sum_backward(plan, backward_macs(plan, spec.kernel, input_grad))


@pytest.mark.parametrize(
    ("kernel", "input_grad", "ratio"),
    [("eager", True, "2.000"), ("eager", False, "1.335"), ("sdpa", True, "2.057"), ("sdpa", False, "1.392")],
)
def test_backward_is_not_twice_the_forward(kernel, input_grad, ratio):
    """The four cases of a ViT-B attention."""
    spec = ViTSpec(kernel=kernel)
    assert f"{declared(spec, input_grad) / plan_of(spec).macs:.3f}" == ratio


@given(specs(kernels=("eager",)))
@settings(max_examples=20)
def test_letters_agree_with_torchs_count_of_the_real_backward(spec):
    for input_grad in (True, False):
        assert declared(spec, input_grad) == count_backward_with_torch(*built(spec), input_grad=input_grad)


@pytest.mark.parametrize("spec", [SwinV2Spec(dim=12, resolution=14, shift=True), CrossSpec(dim=12, heads=3)], ids=str)
@pytest.mark.parametrize("input_grad", [True, False])
def test_attentions_with_other_steps_agree_too(spec, input_grad):
    assert declared(spec, input_grad) == count_backward_with_torch(*built(spec), input_grad=input_grad)


@pytest.mark.parametrize(
    "spec", [SwinSpec(dim=12, resolution=14, kernel="sdpa"), ViTSpec(dim=12, heads=3, kernel="math")]
)
def test_kernels_that_keep_the_scores_do_not_compute_them_anew(spec):
    """On the CPU a learned bias takes the plain kernel."""
    assert declared(spec, True) == 2 * plan_of(spec).macs == count_backward_with_torch(*built(spec), input_grad=True)


def built(spec):
    module, x = build(spec, CPU)
    return module, *x


def test_a_kernel_that_does_not_tell_is_unknown():
    assert declared(ViTSpec(kernel="compile"), True) is None


def test_explore_fills_the_backward():
    report = explore(SwinSpec(dim=12, resolution=14, shift=True), device="cpu", budget=0.01, backward=True, audit=True)
    back = report.backward
    assert back is not None
    assert back.macs == back.torch == 2 * report.totals.macs
    assert report.audit.agree
    assert all(row.backward is not None and row.backward.time is not None for row in report.steps)
    assert back.time is not None
    total = sum(row.backward.time.median_s for row in report.steps)
    assert total == pytest.approx(back.time.steps_sum_s)


def test_nothing_goes_back_through_steps_before_the_first_weight():
    spec = SwinSpec(dim=12, resolution=14, shift=True)
    report = explore(spec, device="cpu", budget=0.01, backward=True, input_grad=False)
    timed = {row.name: row.backward.time is not None for row in report.steps}
    assert not timed["shift"]
    assert not timed["partition"]
    assert timed["project"]
    assert report.steps[2].backward.macs == report.steps[2].macs


def test_without_running_the_costs_are_told():
    report = explore(ViTSpec(), time=False, backward=True)
    assert report.backward.macs == 1_048_783_872
    assert report.backward.time is None


def test_watching_leaves_the_module_as_it_was():
    spec = ViTSpec(dim=12, heads=3, tokens=5)
    module, x = build(spec, CPU)
    from attnscope.probes.backward import time_backward

    time_backward(module, x, 0.01, input_grad=True)
    assert all(parameter.grad is None for parameter in module.parameters())
    assert not x[0].requires_grad
    assert type(build_module(spec)).score is type(module).score
    assert "score" not in vars(module)
    assert attentions.plan(spec)


@pytest.mark.parametrize("kernel", ["flex", "flash"])
def test_a_kernel_without_a_backward_is_told_in_a_line(kernel):
    spec = SwinSpec(dim=12, resolution=14, kernel=kernel)
    with pytest.raises(DeviceError, match=f"kernel {kernel} has no backward here"):
        explore(spec, device="cpu", budget=0.01, backward=True)


def test_a_counter_that_fails_is_not_available():
    report = explore(ViTSpec(dim=12, heads=3, tokens=5, kernel="flex"), device="cpu", time=False, audit=True)
    assert report.audit.torch is None
    assert any("FlopCounterMode is not available" in note for note in report.audit.notes)
