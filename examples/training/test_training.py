"""A short version of the training: the loss falls in float32, in bfloat16 and compiled."""

import pytest
import torch

from examples.training.train import SPECS, train


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("how", ["float32", "bfloat16", "compiled"])
@pytest.mark.parametrize("name", SPECS)
def test_the_loss_falls(name, how):
    torch.manual_seed(0)
    network = SPECS[name].build().train()
    run = torch.compile(network, backend="aot_eager") if how == "compiled" else network
    losses = train(run, 60, amp=how == "bfloat16")
    assert sum(losses[-5:]) / 5 < 0.5 * losses[0]
