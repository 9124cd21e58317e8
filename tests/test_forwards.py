"""Forwards of unusual kinds: lazy parameters, generators, tensor subclasses, and settings of the CPU."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import attnscope

X = torch.randn(4, 5)
everywhere = pytest.mark.parametrize(
    "options", [{}, {"device": "cpu"}, {"time": True, "budget": 0.01}], ids=["meta", "cpu", "timed"]
)


class Named(torch.Tensor):
    """A subclass that runs torch's functions as they are."""


class TakesSubclass(nn.Module):
    """A forward that turns its input into a subclass."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 6)

    def forward(self, x):
        return self.layer(x.as_subclass(Named))


class HasSubclass(nn.Module):
    """A module whose parameter is of a subclass."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 5).as_subclass(Named))

    def forward(self, x):
        return F.relu(F.linear(x, self.weight))


class Parts(nn.Module):
    """A forward that is a generator."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 6)

    def forward(self, x):
        for part in x.chunk(2):
            yield self.layer(part)


class Flushes(nn.Linear):
    """A forward that lets the CPU replace subnormal numbers by zero."""

    def forward(self, x):
        torch.set_flush_denormal(True)
        return super().forward(x)


@everywhere
def test_lazy_parameters_have_their_sizes_before_the_forward_that_is_recorded(options):
    module = nn.LazyLinear(6)
    report = attnscope.trace(module, X, **options)
    assert [(row.op, row.params, row.macs) for row in report.steps] == [("linear", 36, 120)]
    assert (report.totals.params, report.unused_params) == (36, 0)
    assert (report.steps[0].time is not None) == ("time" in options)
    assert module.has_uninitialized_params()


@everywhere
def test_a_generator_is_run_to_its_end(options):
    report = attnscope.trace(Parts(), X, **options)
    assert (report.totals.macs, report.unused_params) == (120, 0)
    assert all(row.time is not None for row in report.steps) == ("time" in options)


@pytest.mark.parametrize("module", [TakesSubclass, HasSubclass])
@pytest.mark.parametrize("device", [None, "cpu"])
def test_the_backward_passes_through_subclasses(module, device):
    report = attnscope.trace(module(), X, device=device, backward=True)
    assert (report.totals.macs, report.backward.macs) == (120, 240)


@pytest.mark.parametrize("device", [None, "cpu"])
def test_subnormal_numbers_are_as_before(device):
    if not torch.set_flush_denormal(False):
        pytest.skip("this CPU cannot replace subnormal numbers by zero")
    attnscope.trace(Flushes(5, 6), X, device=device)
    assert torch.tensor([1e-39]).mul(1).item() > 0


@pytest.mark.parametrize("device", [None, "cpu"])
def test_weight_norm_is_known(device):
    module = nn.utils.parametrizations.weight_norm(nn.Linear(5, 6))
    report = attnscope.trace(module, X, device=device, backward=True)
    assert (report.totals.macs, report.unused_params, report.uncounted) == (120, 0, [])
    assert report.backward.macs == 240
    assert next(row for row in report.steps if "weight_norm" in row.op).other_flops == 3 * 30
