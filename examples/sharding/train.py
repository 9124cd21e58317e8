"""Train an attention whose tokens are on several ranks, and compare the loss with that of one device.

torchrun --nproc-per-node 2 examples/sharding/train.py
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn

import attnscope

STEPS = 3


def main() -> None:
    """Train the attention on all ranks, and on each of them alone; rank 0 prints both losses of each step."""
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    ranks = dist.get_world_size()
    torch.manual_seed(0)  # all ranks start with the same parameters and have the same data
    whole = attnscope.ViTSpec(tokens=197, dim=96, heads=4).build()
    if torch.cuda.is_available():
        torch.cuda.set_device(dist.get_rank())
        whole.cuda()
    sharded = attnscope.shard(whole, f"sp={ranks}")
    x = torch.randn(sharded.spec.input_shape, device=next(whole.parameters()).device)
    target = torch.randn_like(x)
    for step in range(STEPS):
        loss = train(sharded, sharded.part(x), sharded.part_of_output(target), x.numel())
        dist.all_reduce(loss)  # the loss of all tokens is the sum of those of the ranks
        alone = train(whole, x, target, x.numel())
        if dist.get_rank() == 0:
            print(f"step {step}: loss {loss.item():.6f} on {ranks} ranks, {alone.item():.6f} on one")
    dist.destroy_process_group()


def train(module: nn.Module, x: Tensor, target: Tensor, elements: int) -> Tensor:
    """Make one step of gradient descent, and return the loss: squared errors of these tokens, divided by all elements."""
    loss = (module(x) - target).square().sum() / elements
    module.zero_grad()
    loss.backward()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter -= 10.0 * parameter.grad
    return loss.detach()


if __name__ == "__main__":
    main()
