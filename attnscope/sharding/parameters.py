"""The part of a module's parameters that one rank has."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from attnscope.core.axes import Tensor as Letters
from attnscope.plan.plan import place as path_of
from attnscope.plan.routes import HEADS, Placed
from attnscope.plan.sharding import LocalStep, ShardedPlan
from attnscope.sharding.moves import cut, folded, unfolded


def keep_own(module: nn.Module, steps: Sequence[LocalStep], plan: ShardedPlan, place: Sequence[int]) -> None:
    """Replace each parameter of a module by the part that a rank has.

    Args:
        module: the module, with all parameters.
        steps: the steps of the rank.
        plan: the plan of all ranks.
        place: the place of the rank along each axis of the mesh.
    """
    for step in steps:
        for name, letters in step.whole.step.weight_shapes.items():
            owner, last = owner_of(module, path_of(step.whole.path, name))
            whole = getattr(owner, last)
            part = own_part(whole.detach(), letters, step, name, plan, place)
            if part.shape != whole.shape:
                setattr(owner, last, nn.Parameter(part.clone(), requires_grad=whole.requires_grad))
                if last == "weight":
                    own = partial(own_part, letters=letters, step=step, name=name, plan=plan, place=place)
                    _adapt_layer(owner, whole.shape, own)
    for each in module.modules():
        zeros, v_bias = getattr(each, "k_bias", None), getattr(each, "v_bias", None)
        if isinstance(zeros, Tensor) and isinstance(v_bias, Tensor):  # the keys have as many as the bias of v
            each.k_bias = zeros.new_zeros(v_bias.shape)


def own_part(
    whole: Tensor, letters: Letters, step: LocalStep, name: str, plan: ShardedPlan, place: Sequence[int]
) -> Tensor:
    """Return the part of a parameter that a rank has.

    Args:
        whole: the parameter.
        letters: its letters.
        step: the step of the rank that uses it.
        name: its name in the step.
        plan: the plan of all ranks.
        place: the place of the rank along each axis of the mesh.
    """
    part, sizes = whole, dict(step.whole.sizes)
    for index, route in enumerate(step.routes):
        if placed := route.weights.get(name):
            parts = (1,) * placed.groups if route.contracted is not None else parts_of(plan, placed, step.whole.path)
            axis = None if route.contracted is None else -1 if len(letters.axes) == 2 else 1
            part = part_of(part, letters, placed, sizes, place[index], parts, axis)
            sizes[placed.letter] = sizes[placed.letter] * placed.shards[place[index]] // sum(placed.shards)
    return part


def _adapt_layer(layer: nn.Module, shape: Sequence[int], cut_vector: Callable[[Tensor], Tensor]) -> None:
    """Set what a layer has beyond its parameters for a part of its weight.

    Args:
        layer: the layer, which has a part of its weight.
        shape: the shape of the whole weight.
        cut_vector: returns the part of the rank of a tensor with the letters of the weight.
    """
    if isinstance(layer, nn.Conv2d) and shape[1] == 1 and layer.groups == shape[0]:
        layer.groups = layer.weight.shape[0]
    if isinstance(layer, nn.BatchNorm2d):
        for name, buffer in layer.named_buffers():
            if buffer.dim():
                setattr(layer, name, cut_vector(buffer).clone())


def owner_of(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Return the submodule that has a parameter, and the name of the parameter in it."""
    path, _, last = name.rpartition(".")
    return module.get_submodule(path), last


def part_of(
    x: Tensor,
    letters: Letters,
    placed: Placed,
    sizes: dict[str, int],
    rank: int,
    parts: Sequence[int],
    axis: int | None,
) -> Tensor:
    """Return a rank's part of a parameter along one letter.

    Args:
        x: the parameter.
        letters: its letters.
        placed: how it is cut.
        sizes: the sizes of letters.
        rank: the number of the rank.
        parts: sizes of the consecutive parts of the letter, each of which is cut, such as queries, keys and values.
        axis: the axis that is cut if it is not that of the letter.
    """
    at, apart = unfolded(x, letters, sizes) if axis is None else ({}, x)
    axis = at[placed.letter] if axis is None else axis
    sums = [part * apart.shape[axis] // sum(parts) for part in parts]
    cuts = [tuple([size * part // sum(placed.shards) for size in placed.shards]) for part in sums]
    made = [cut(each, axis, shards, rank) for each, shards in zip(apart.split(sums, axis), cuts, strict=True)]
    joined = torch.cat(made, axis) if len(made) > 1 else made[0]
    return folded(joined, letters) if at else joined


def parts_of(plan: ShardedPlan, placed: Placed, path: str) -> tuple[int, ...]:
    """Return the sizes of the consecutive parts of a letter, such as e with queries, keys and values; else one part.

    Args:
        plan: the plan of all ranks.
        placed: how the letter is cut.
        path: the module that has the letter.
    """
    if placed.root == HEADS:
        for step in plan.plan.sized:
            if step.path != path:
                continue
            taken, made = step.step.letters.inputs[0], step.step.letters.outputs
            if (
                len(made) > 1
                and placed.letter in taken.letters
                and all(placed.letter not in each.letters for each in made)
            ):
                total = step.sizes[placed.letter]
                of_one = [each.axes[1].size(step.sizes) for each in made]
                return tuple([count * total // sum(of_one) for count in of_one])
    return (1,)
