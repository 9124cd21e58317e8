"""The parameters that a call takes: by identity, and by the views of them that operators take."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import attnscope

X = torch.randn(4, 5)


class Two(nn.Module):
    """A module with two linear layers of 36 parameters each, and a forward that is given."""

    def __init__(self, call):
        super().__init__()
        self.call = call
        self.first, self.second = nn.Linear(5, 6), nn.Linear(5, 6)

    def forward(self, x):
        return self.call(self, x)


class Product(torch.autograd.Function):
    """A linear layer, as an autograd function."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        return torch.addmm(bias, x, weight.t())

    @staticmethod
    def backward(ctx, grad):
        raise NotImplementedError


def branch(self, x):
    return torch.cond(x.sum() < 1e9, self.first, self.second, (x,))


def nested_branches(self, x):
    return torch.cond(x.sum() < 1e9, lambda x: branch(self, x), self.second, (x,))


def while_loop(self, x):
    from torch._higher_order_ops.while_loop import while_loop

    return while_loop(lambda i, x: i < 2, lambda i, x: (i + 1, self.first(x)[:, :5].clone()), (torch.tensor(0), x))


def mapped(self, x):
    module = pytest.importorskip("torch._higher_order_ops.map")
    return module.map(lambda row: self.first(row), x)


def scanned(self, x):
    module = pytest.importorskip("torch._higher_order_ops.scan")
    return module.scan(lambda carry, row: (carry + 1, self.first(row) + carry), torch.zeros(()), x)


USES_FIRST = {
    "cond": branch,
    "cond in cond": nested_branches,
    "while_loop": while_loop,
    "map": mapped,
    "scan": scanned,
    "checkpoint": lambda self, x: checkpoint(self.first, x, use_reentrant=False),
    "autograd function": lambda self, x: Product.apply(x, self.first.weight, self.first.bias),
    "vmap": lambda self, x: torch.vmap(self.first)(x),
    "vmap over parameters": lambda self, x: torch.vmap(F.linear, (None, 0, 0))(
        x, self.first.weight[:, None], self.first.bias[:, None]
    ),
    "functional_call": lambda self, x: torch.func.functional_call(
        self.second, {name: 2 * each for name, each in self.first.named_parameters()}, (x,)
    ),
    "grad": lambda self, x: torch.func.grad(lambda x: self.first(x).sum())(x),
}


@pytest.mark.parametrize("name", USES_FIRST)
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own
def test_parameters_that_only_one_branch_takes_are_used(name):
    report = attnscope.trace(Two(USES_FIRST[name]), X, device="cpu", backward=True)
    assert (report.totals.params, report.unused_params) == (72, 36)
    assert sum(row.new_params for row in report.steps) == 36
    assert not report.uncounted
    assert report.backward.macs == 2 * report.totals.macs  # to the inputs and to the weights


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own
def test_the_calls_of_a_branch_are_rows_of_the_module_that_ran():
    row = attnscope.trace(Two(branch), X, device="cpu").steps[-1]
    assert (row.op, row.path, row.params, row.inputs, row.macs) == ("linear", "first", 36, [(4, 5)], 120)


class Views(nn.Module):
    """A linear layer whose weight and bias are views of one flat parameter, kept as plain attributes."""

    def __init__(self):
        super().__init__()
        self.flat, self.other = nn.Parameter(torch.randn(36)), nn.Parameter(torch.randn(36))
        self.weight, self.bias = self.flat.detach()[:30].view(6, 5), self.flat.detach()[30:]

    def forward(self, x):
        return F.linear(x, self.weight, self.bias)


class Parts(nn.Module):
    """Two parameters in one memory, of which the forward takes a view of the second."""

    def __init__(self):
        super().__init__()
        memory = torch.randn(2, 6, 5)
        self.one, self.two = nn.Parameter(memory[0]), nn.Parameter(memory[1])
        self.turned = self.two.detach().t()

    def forward(self, x):
        return x @ self.turned


@pytest.mark.parametrize("device", [None, "cpu"])
@pytest.mark.parametrize(("module", "unused"), [(Views, 36), (Parts, 30)])
def test_views_kept_outside_of_the_parameters_use_them(module, unused, device):
    report = attnscope.trace(module(), X, device=device)
    assert report.unused_params == unused
