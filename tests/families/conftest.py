"""Comparison of a module with a reference implementation: outputs, gradients and MACs with the same weights."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


def macs_of(call) -> int:
    """Return the MACs of a call on the meta device, counted by torch."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return counter.get_total_flops() // 2


def gradients(module, x, out):
    """Return the gradients of the input and of all parameters by name, for a fixed direction of the output."""
    direction = torch.arange(out.numel(), dtype=out.dtype).cos().view_as(out)
    names, parameters = zip(*module.named_parameters(), strict=True)
    found = torch.autograd.grad((out * direction).sum(), (x, *parameters))
    return dict(zip(("input", *names), found, strict=True))


@pytest.fixture
def hold_equal():
    """Return a function that compares the module of a Spec with a reference, which takes what `given` makes of x."""

    def hold(
        spec, reference, given=lambda x: (x,), dtype=torch.float64, loaded=lambda state: state, result=lambda y: y
    ):
        torch.manual_seed(0)
        reference, module = reference.to(dtype).eval(), spec.build().to(dtype).eval()
        for parameter in reference.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        module.load_state_dict(loaded(reference.state_dict()))
        x, other = (torch.randn(2, *spec.input_shape[1:], dtype=dtype).requires_grad_() for _ in range(2))
        other = x.detach().clone().requires_grad_()
        ours, theirs = module(x), result(reference(*given(other)))
        close = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
        torch.testing.assert_close(ours, theirs.reshape(ours.shape), **close)
        mine = gradients(module, x, ours)
        their_gradients = gradients(reference, other, theirs)
        torch.testing.assert_close(mine.pop("input"), their_gradients.pop("input"), **close)
        for name, gradient in loaded(their_gradients).items():
            torch.testing.assert_close(
                mine[name], gradient.reshape(mine[name].shape), **close, msg=lambda m, n=name: f"{n}: {m}"
            )

    return hold
