"""Modules of TorchScript, which shows its operators, but neither its torch calls nor its submodules."""

import warnings

import pytest
import torch
from torch import nn

import attnscope

X = torch.randn(4, 5)


class Scripted(nn.Module):
    """A linear layer and a layer that does not run."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 6), nn.Linear(5, 6)

    def forward(self, x):
        return self.first(x)


def scripted(how):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates TorchScript
        return torch.jit.script(Scripted()) if how == "script" else torch.jit.trace(Scripted(), X)


@pytest.mark.parametrize("how", ["script", "trace"])
def test_operators_of_torchscript_take_the_parameters_that_they_view(how):
    report = attnscope.trace(scripted(how), X, backward=True)
    assert report.notes[0] == "ran on cpu, since the forward failed on meta (TorchScript does not run there)"
    (row,) = report.steps
    assert (row.inputs, row.params, row.macs, report.unused_params) == ([(4, 5)], 36, 120, 36)
    assert report.backward.macs == 240


def test_a_copy_of_a_scripted_module_keeps_what_is_trainable():
    module = scripted("script")
    module.second.weight.requires_grad_(False)
    report = attnscope.trace(module, X)
    assert (report.totals.params, report.trainable_params) == (72, 42)


class Holder(nn.Module):
    """A module whose part is scripted."""

    def __init__(self):
        super().__init__()
        self.part, self.last = scripted("script"), nn.Linear(6, 1)

    def forward(self, x):
        return self.last(self.part(x))


def test_what_torchscript_runs_has_no_times_and_a_warning_says_so():
    report = attnscope.trace(Holder(), X, time=True, budget=0.01)
    assert [row.time is not None for row in report.steps] == [False, True]
    assert report.warnings[0] == (
        "1 of 2 calls have no times: TorchScript runs them; trace the module before torch.jit.script or torch.jit.trace"
    )
    assert not any("the steps sum to" in warning for warning in report.warnings)


def test_submodules_that_torchscript_hides_cannot_be_traced_alone():
    with pytest.raises(
        attnscope.UsageError, match=r"is never called by the forward; trace the module before torch\.jit"
    ):
        attnscope.trace(scripted("script"), X, submodule="first")
