"""Collectives with gradients, of c10d: each one's backward is the collective that sends the gradient back.

`torch.distributed.nn` and the functional collectives have no gradient for some of them in torch 2.5.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function

Group = Any
"""A process group; its type is private in some releases of torch."""

_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def reduced(x: Tensor, group: Group) -> Tensor:
    """Return the sum of a tensor over ranks, without a gradient."""
    x = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(x, group=group)
    return x


def exchanged(x: Tensor, sends: Sequence[int], receives: Sequence[int], group: Group) -> Tensor:
    """Send consecutive parts of a flat tensor to the ranks, and return those that they send.

    Args:
        x: the parts, one after another.
        sends: elements of the part for each rank.
        receives: elements of the part from each rank.
        group: the process group.
    """
    made = x.new_empty(sum(receives))
    dist.all_to_all_single(made, x.contiguous(), list(receives), list(sends), group=group)
    return made


class AllReduce(Function):
    """The sum over ranks; each rank computes the same from it, so that its gradient is already whole."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        return reduced(x, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class Copy(Function):
    """The same tensor, from which ranks compute different parts; its gradient is the sum over ranks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return reduced(grads[0], ctx.group), None


class AllGather(Function):
    """Equal parts of all ranks, one after another along axis 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return gather(x, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return scatter(grads[0], ctx.group), None


class ReduceScatter(Function):
    """The part of this rank, of equal parts along axis 0, of the sum over ranks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return scatter(x, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return gather(grads[0], ctx.group), None


class AllToAll(Function):
    """Parts of a flat tensor for other ranks, exchanged for theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sends: Sequence[int], receives: Sequence[int], group: Group) -> Tensor:
        ctx.sends, ctx.receives, ctx.group = sends, receives, group
        return exchanged(x, sends, receives, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return exchanged(grads[0], ctx.receives, ctx.sends, ctx.group), None, None, None


def gather(x: Tensor, group: Group) -> Tensor:
    """Return the parts of all ranks along axis 0, without a gradient."""
    made = x.new_empty((x.shape[0] * dist.get_world_size(group), *x.shape[1:]))
    _gather(made, x.contiguous(), group=group)
    return made


def scatter(x: Tensor, group: Group) -> Tensor:
    """Return this rank's part along axis 0 of the sum over ranks, without a gradient."""
    made = x.new_empty((x.shape[0] // dist.get_world_size(group), *x.shape[1:]))
    _scatter(made, x.contiguous(), group=group)
    return made
