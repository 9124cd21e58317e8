"""Grids of which a rank has some rows and columns: what modules ask about windows and neighbourhoods there."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnscope.attentions.cswin.attention import StripeAttention
from attnscope.attentions.hiera.attention import MaskUnitAttention
from attnscope.attentions.linear.attention import LinearAttention
from attnscope.attentions.maxvit.attention import MaxViTAttention
from attnscope.attentions.nat.attention import NeighbourhoodAttention, nearest
from attnscope.attentions.nat.spec import Nearest
from attnscope.attentions.pvt.attention import SpatialReductionAttention
from attnscope.attentions.sam.attention import RelativePositionAttention
from attnscope.attentions.swin.attention import WindowAttention, shift_mask
from attnscope.attentions.twins.attention import LocallyGroupedAttention
from attnscope.core.axes import Shape
from attnscope.core.sizes import Pair
from attnscope.core.windows import GridWindows, Windows
from attnscope.plan.mesh import Shards
from attnscope.plan.routes import TOKENS
from attnscope.plan.sharding import LocalStep, ShardedPlan


@dataclass(frozen=True, slots=True)
class LocalWindows(Windows):
    """The windows of a rank, which rolls only along axes that the mesh does not cut; halos roll along the others.

    Args:
        whole: the windows of all ranks.
        is_cut: flags of the axes that the mesh cuts.
    """

    whole: Windows = Windows(1, 1, (1, 1))
    is_cut: tuple[bool, bool] = (False, False)

    @property
    def roll(self) -> Pair:
        """Return the shift along axes that are not cut."""
        down, across = (0 if cut else shift for cut, shift in zip(self.is_cut, self.whole.roll, strict=True))
        return down, across

    @property
    def is_shifted(self) -> bool:
        """Return whether the windows of all ranks are shifted."""
        return self.whole.is_shifted

    @property
    def is_padded(self) -> bool:
        """Return whether the grid of all ranks is padded."""
        return self.whole.is_padded


def adapt(module: nn.Module, plan: ShardedPlan, steps: Sequence[LocalStep], place: Sequence[int]) -> None:
    """Replace what a module derives from its whole input by what holds for the part of a rank.

    Args:
        module: the module.
        plan: the plan of all ranks.
        steps: the steps of the rank.
        place: the place of the rank along each axis of the mesh.
    """
    if isinstance(module, SpatialReductionAttention):
        vars(module).update(_of_reduction(steps))
    if isinstance(module, LocallyGroupedAttention) and not module.grid.is_padded:  # a padded grid is not cut
        vars(module).update(_of_groups(steps, module.grid.window))
    if isinstance(module, StripeAttention):
        _in_stripes(module, steps)
    if isinstance(vars(module).get("grid"), tuple):
        vars(module).update(_of_planes(steps))
    exchanging = [index for index, axis in enumerate(plan.mesh) if axis.kind.enters == "grid" and axis.ranks > 1]
    shards = {plan.mesh[index].place: placed_of(plan, index) for index in exchanging}
    if not shards:
        return
    ranks = {plan.mesh[index].place: place[index] for index in exchanging}
    attributes: dict[str, Any] = vars(module)
    around = plan.around
    if isinstance(module, WindowAttention | RelativePositionAttention) and isinstance(around, Windows):
        _in_windows(attributes, around, shards, ranks)
    elif isinstance(module, LinearAttention):
        attributes["aggregate"] = partial(_aggregate, module, shards[1], ranks[1])
    elif isinstance(module, MaxViTAttention):
        sizes = steps[-1].local.sizes
        attributes["blocks"] = lambda x: (sizes["r"], sizes["s"])
    elif isinstance(module, MaskUnitAttention):
        attributes["resolution"] = steps[0].arriving(0)[1:3]
    elif isinstance(module, NeighbourhoodAttention) and isinstance(around, Nearest):
        _in_neighbourhoods(attributes, around, shards[1], ranks[1])


def _of_reduction(steps: Sequence[LocalStep]) -> dict[str, Any]:
    """Return the grids of the tokens and of the keys of a rank that has whole patches; nothing without a reduction."""
    names = {"unflatten": "resolution", "reduce": "reduced", "pool": "reduced"}
    return {names[step.whole.name]: step.local.outputs[0][2:] for step in steps if step.whole.name in names}


def _of_groups(steps: Sequence[LocalStep], window: Pair) -> dict[str, Any]:
    """Return the grids of a rank before and after attention in windows; ranks may cut the tokens, or then the heads."""
    outputs = {step.whole.name: step.local.outputs[0] for step in steps}
    (rows, columns), (height, width) = outputs["unflatten"][1:3], outputs["reverse"][1:3]
    return {"resolution": (rows, columns), "grid": Windows(height, width, window)}


def _in_stripes(module: StripeAttention, steps: Sequence[LocalStep]) -> None:
    """Set the grid into which a branch merges its stripes; ranks may have all rows of some vertical stripes."""
    grid = next(step.local.outputs[0][1:3] for step in steps if step.whole.name == "merge_stripes")
    vars(module)["merge_stripes"] = partial(_merged, cast(Any, module.merge_stripes), grid)


def _of_planes(steps: Sequence[LocalStep]) -> dict[str, Any]:
    """Return the grid of the planes of a rank that a step makes of a sequence of tokens; nothing without such a step."""
    for step in steps:
        tokens, planes = step.local.inputs[0], step.local.outputs[0]
        if len(tokens) == 3 and len(planes) == 4:
            return {"grid": planes[2:]}
    return {}


def _merged(merge: Callable[[Tensor, Shape], Tensor], grid: Shape, heads: Tensor, _: Shape) -> Tensor:
    return merge(heads, grid)


def placed_of(plan: ShardedPlan, index: int) -> Shards:
    """Return the sizes of the windows, or of the rows, of the ranks along an axis of the mesh."""
    routes = plan.routes[index]
    return next(
        placed.shards for route in reversed(routes) for placed in route.takes if placed and placed.root == TOKENS
    )


def _in_windows(attributes: dict[str, Any], whole: Windows, shards: dict[int, Shards], ranks: dict[int, int]) -> None:
    is_cut = (1 in shards, 2 in shards)
    kept: dict[Any, Tensor] = {}

    def grid_of(x: Tensor) -> LocalWindows:
        return LocalWindows(x.shape[1], x.shape[2], whole.window, whole.shift, whole, is_cut)

    def mask(grid: GridWindows, like: Tensor) -> Tensor:
        key = like.dtype, like.device
        if key not in kept:
            found = shift_mask(whole, like).unflatten(0, whole.counts)
            for axis, sizes in shards.items():
                found = found.narrow(axis - 1, sum(sizes[: ranks[axis]]), sizes[ranks[axis]])
            kept[key] = found.flatten(0, 1).contiguous()
        return kept[key]

    attributes |= {"grid_of": grid_of, "mask": mask}


def _aggregate(module: LinearAttention, shards: Shards, rank: int, qkv: Tensor) -> Tensor:
    """Return the tokens of a rank at all scales, from its rows and those around them that the convolutions also read.

    Args:
        module: the attention.
        shards: the rows of the ranks.
        rank: the number of the rank.
        qkv: the tokens of the rank with their halo.
    """
    first, reach = sum(shards[:rank]), max(module.scales, default=1) // 2
    above, below = min(reach, first), min(reach, sum(shards[rank + 1 :]))

    def around(side: int) -> Tensor:
        """Return the tokens with `side` more on each side: rows of the halo, and zeros outside of the image."""
        return F.pad(qkv, (side, side, side - above, side - below))

    made = [around(0)]
    for spatial, mixed in cast("Iterable[tuple[nn.Conv2d, nn.Conv2d]]", module.aggreg):
        rows = around(spatial.kernel_size[0] // 2)
        made.append(mixed(F.conv2d(rows, spatial.weight, spatial.bias, groups=spatial.groups)))
    return torch.cat(made, dim=1)


def _in_neighbourhoods(attributes: dict[str, Any], whole: Nearest, shards: Shards, rank: int) -> None:
    first = sum(shards[:rank])
    rows = whole.reach(0, whole.height)[first : first + shards[rank]]
    start = min(min(row) for row in rows) * whole.width
    part = slice(first * whole.width, (first + shards[rank]) * whole.width)
    kept: dict[Any, tuple[Tensor, Tensor]] = {}

    def index(grid: Nearest, like: Tensor) -> tuple[Tensor, Tensor]:
        if like.device not in kept:
            keys, offsets = nearest(whole, like.device)
            kept[like.device] = keys[part] - start, offsets[part]
        return kept[like.device]

    attributes |= {"grid": lambda height, width: whole, "index": index}
