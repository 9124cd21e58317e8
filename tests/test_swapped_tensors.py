"""A forward may swap the contents of tensors, which torch refuses for tensors that have weak references."""

import pytest
import torch
from torch import nn

import attnscope
from tests.test_isolation import short_measurements, ways  # noqa: F401


class Swaps(nn.Linear):
    """A layer that uses a weight and then swaps it, as layers that load their weights late do."""

    def forward(self, x):
        y = super().forward(x)
        torch.utils.swap_tensors(self.weight, nn.Parameter(self.weight * 2))
        z = y * 2
        torch.utils.swap_tensors(z, y + 1)
        return super().forward(x) + y + z


class Converts(nn.Linear):
    """A layer whose conversions swap its parameters."""

    def forward(self, x):
        y = super().forward(x)
        torch.__future__.set_swap_module_params_on_conversion(True)
        self.double().float()
        return super().forward(x) + y


@ways
@pytest.mark.parametrize("kind", [Swaps, Converts])
def test_a_forward_that_swaps_tensors_is_counted(kind, settings):
    module, x = kind(4, 4), torch.randn(2, 4)
    before = module.weight.tolist()
    assert attnscope.trace(module, x, **settings).totals.macs == 64
    assert module.weight.tolist() == before


@ways
def test_torch_still_refuses_tensors_with_references_of_others(settings):
    class Refers(nn.Linear):
        def forward(self, x):
            reference = torch.utils.weakref.ref(self.weight)
            with pytest.raises(RuntimeError, match="weakref"):
                torch.utils.swap_tensors(self.weight, nn.Parameter(self.weight * 2))
            return super().forward(x) + reference().sum()

    assert attnscope.trace(Refers(4, 4), torch.randn(2, 4), **settings).totals.macs == 32
