"""An attention on several ranks as a module: the steps of the attention, with the collectives of the plan around them."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, cast

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from attnscope.attentions.linear.attention import LinearAttention
from attnscope.attentions.spec import Spec
from attnscope.core.axes import Sizes
from attnscope.core.axes import Tensor as Letters
from attnscope.core.errors import UsageError
from attnscope.plan.mesh import Mesh, coordinates, mesh_of, ranks_of, spell_mesh
from attnscope.plan.plan import Plan, SizedStep
from attnscope.plan.plan import place as path_of
from attnscope.plan.routes import Placed
from attnscope.plan.sharding import Exchange, LocalStep, ShardedPlan
from attnscope.sharding.collectives import reduced
from attnscope.sharding.geometry import adapt
from attnscope.sharding.moves import Ranks, cut, folded, moved, unfolded
from attnscope.sharding.parameters import keep_own, owner_of
from attnscope.sharding.ring import ring_attention

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

Watcher = Callable[[str, tuple[Tensor, ...]], None]
"""A function of the name of a step and of its outputs, after its collectives."""


class ShardedAttention(nn.Module):
    """The part of an attention that one rank computes; `shard` makes it.

    Its input and its output are the parts of this rank: `part(x)` cuts a whole input. Parameters that several ranks have
    get the sum of the gradients of all ranks. The loss of all ranks is therefore the sum of theirs.

    Args:
        module: the whole attention, which stays as it is.
        spec: its Spec, with the sizes of the whole input.
        mesh: the axes of the mesh.
        ranks: the ranks along each of them.
    """

    def __init__(self, module: nn.Module, spec: Spec, mesh: Mesh, ranks: Sequence[Ranks]) -> None:
        super().__init__()
        self.spec, self.mesh_axes, self.ranks = spec, mesh, tuple(ranks)
        self.plan = ShardedPlan.of(spec.plan(), mesh, spec.neighbourhood)
        self.place = tuple([each.own for each in ranks])
        self.steps = self.plan.at(self.place)
        self.local = copy.deepcopy(module)
        self.local.spec = spec  # type: ignore[assignment]
        self.watcher: Watcher | None = None
        keep_own(self.local, self.steps, self.plan, self.place)
        for part in self.local.modules():
            for axis, each in zip(mesh, ranks, strict=True):
                if axis.kind.cuts_heads:
                    for count in ("heads", "kv_heads"):
                        if hasattr(part, count):
                            setattr(part, count, getattr(part, count) // each.count)
            if hasattr(part, "check_shape"):
                vars(part)["check_shape"] = lambda *given, **named: None  # `forward` checks this rank's part
        for path, part in self.local.named_modules():
            plan, steps = self._inside(path)
            if steps:
                adapt(part, plan, steps, self.place)
        self.late = nn.ParameterDict()
        for step in self.steps:
            self._add_late(step)
            self._share_gradients(step)
            owner = self.local.get_submodule(step.whole.path)
            name = method_of(owner, step.whole.name)
            vars(owner)[name] = self._wrapped(step, getattr(owner, name))
        self._travel()

    def extra_repr(self) -> str:
        """Return the plan and the place of this rank."""
        return f"plan={spell_mesh(self.mesh_axes)!r}, place={self.place}"

    def _inside(self, path: str) -> tuple[ShardedPlan, list[LocalStep]]:
        """Return the plan of all ranks for the steps of a submodule, and these steps of this rank."""
        inside = [
            number
            for number, step in enumerate(self.steps)
            if not path or step.whole.path == path or step.whole.path.startswith(f"{path}.")
        ]
        routes = tuple([tuple([each[number] for number in inside]) for each in self.plan.routes])
        plan = Plan(tuple([self.plan.plan.sized[number] for number in inside]))
        return replace(self.plan, plan=plan, routes=routes), [self.steps[number] for number in inside]

    def part(self, x: Tensor, number: int = 0) -> Tensor:
        """Return this rank's part of an input of the whole attention.

        Args:
            x: the whole input.
            number: its number among the inputs, from 0.
        """
        at, place = self.plan.inputs[number]
        taking = self.plan.plan.sized[at]
        moves = [[move.source for move in routes[at].before if move.number == place] for routes in self.plan.routes]
        cuts = [
            found[0] if found else routes[at].takes[place]
            for found, routes in zip(moves, self.plan.routes, strict=True)
        ]
        return self._cut(x, taking.step.letters.inputs[place], taking.sizes, cuts)

    def part_of_output(self, y: Tensor) -> Tensor:
        """Return this rank's part of the output of the whole attention."""
        last = self.plan.plan.sized[-1]
        moves = [[move.target for move in routes[-1].after if move.number == 0] for routes in self.plan.routes]
        cuts = [
            found[-1] if found else routes[-1].makes[0] for found, routes in zip(moves, self.plan.routes, strict=True)
        ]
        return self._cut(y, last.step.letters.outputs[0], last.sizes, cuts)

    def _cut(self, x: Tensor, letters: Letters, sizes: Sizes, cuts: Sequence[Placed | None]) -> Tensor:
        """Return this rank's part of a tensor for the cuts along the axes of the mesh.

        Raises:
            UsageError: the tensor has another shape than the whole attention.
        """
        whole = letters.shape(sizes)
        if not isinstance(x, Tensor) or tuple(x.shape) != whole:
            got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise UsageError(f"a whole tensor must have the shape {whole} (got {got}); shape= of shard sets its sizes")
        now = dict(sizes)
        for each, placed in zip(self.ranks, cuts, strict=True):
            if placed is not None:
                at, apart = unfolded(x, letters, now)
                x = folded(cut(apart, at[placed.letter], placed.shards, each.own), letters)
                now[placed.letter] = placed.shards[each.own]
        return x.contiguous()

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return this rank's part of the output for its part of the input.

        Raises:
            UsageError: an input has another shape than the part of this rank.
        """
        for x, shape in zip(inputs, self.input_shapes, strict=False):
            if tuple(x.shape) != shape:
                raise UsageError(
                    f"the input on the rank at {self.place} must have the shape {shape} "
                    f"(got {tuple(x.shape)}); part(x) cuts a whole input, and shape= sets its sizes"
                )
        return self.local(*inputs)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of this rank's part of the first input."""
        return self.input_shapes[0]

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Return the shapes of this rank's parts of the inputs."""
        return tuple([self.steps[at].arriving(number) for at, number in self.plan.inputs])

    def own_parameters(self) -> dict[str, nn.Parameter]:
        """Return this rank's parameters by their names in the whole attention."""
        late = {name: each for step in self.steps for name, each in self._late_of(step).items()}
        return {**dict(self.local.named_parameters()), **late}

    def _add_late(self, step: LocalStep) -> None:
        """Take the bias out of a layer whose outputs are partial sums; it is added once, after the collective."""
        if not any(route.is_partial for route in step.routes):
            return
        for name in step.whole.step.weight_shapes:
            if not any(name in route.weights for route in step.routes):
                owner, last = owner_of(self.local, path_of(step.whole.path, name))
                self.late[_late_name(step, name)] = getattr(owner, last)
                owner.register_parameter(last, None)

    def _late_of(self, step: LocalStep) -> dict[str, nn.Parameter]:
        """Return the parameters of a step that are added after its collective, by their names in the module."""
        names = [name for name in step.whole.step.weight_shapes if _late_name(step, name) in self.late]
        return {path_of(step.whole.path, name): self.late[_late_name(step, name)] for name in names}

    def _share_gradients(self, step: LocalStep) -> None:
        """Sum the gradients of parameters that several ranks have and use for different parts."""
        late = self._late_of(step)
        for name in step.whole.step.weight_shapes:
            path = path_of(step.whole.path, name)
            owner, last = owner_of(self.local, path)
            parameter = late.get(path, getattr(owner, last, None))
            for each, route in zip(self.ranks, step.routes, strict=True):
                if route.shares(name) and parameter is not None and parameter.requires_grad:
                    parameter.register_hook(partial(reduced, group=each.group))

    def _wrapped(self, step: LocalStep, method: Callable[..., Any]) -> Callable[..., Any]:
        """Return the method of a step with its collectives around it."""
        # `_travel` sends keys around a ring, and `adapt` makes a rank's part of a constant
        elsewhere = {"ring"} | ({"slice"} if step.whole.step.constants else set())
        own = [each for each in step.exchanges if each.move.kind not in elsewhere]
        before, after = ([each for each in own if each.side == side] for side in ("before", "after"))
        rolls = any(each.move.kind == "halo" for each in before) and is_roll(step.whole)
        borders = None if rolls else self._convolved_rows(step, before)
        late = self._late_of(step)
        is_of_planes = any(len(each.axes) == 4 for each in step.whole.step.weight_shapes.values())

        def call(*given: Any) -> Any:
            arguments = list(given)
            places = [place for place, each in enumerate(arguments) if isinstance(each, Tensor)]
            for each in before:
                place = places[each.move.number]
                arguments[place] = moved(arguments[place], each, self.ranks[each.axis])
            if borders is not None:
                arguments[places[0]] = F.pad(arguments[places[0]], borders)
            is_rolled = rolls and not any(arguments[-1].roll)
            result = arguments[0] if is_rolled else method(*arguments)
            made = [result] if isinstance(result, Tensor) else list(result)
            for each in after:
                number = each.move.number
                made[number] = moved(made[number], each, self.ranks[each.axis])
            for parameter in late.values():
                made[0] = made[0] + (parameter[:, None, None] if is_of_planes else parameter)
            if self.watcher is not None:
                self.watcher(step.whole.places[0], tuple(made))
            return made[0] if isinstance(result, Tensor) else tuple(made)

        return call

    def _convolved_rows(self, step: LocalStep, before: Sequence[Exchange]) -> tuple[int, ...] | None:
        """Return the zeros around the rows of a rank with their halo, if a convolution of the step reads them.

        The convolution then has no padding of its own along rows.
        """
        owner = self.local.get_submodule(step.whole.path)
        layers = [owner_of(owner, name)[0] for name in step.whole.step.weight_shapes if name.endswith("weight")]
        wide = [layer for layer in layers if isinstance(layer, nn.Conv2d) and layer.kernel_size[0] > 1]
        halo = next((each for each in before if each.move.kind == "halo" and each.move.source), None)
        if halo is None or len(wide) != 1 or isinstance(wide[0].padding, str) or isinstance(owner, LinearAttention):
            return None
        assert halo.move.source is not None
        shards, needs = halo.move.source.shards, halo.move.needs[self.ranks[halo.axis].own]
        first = sum(shards[: self.ranks[halo.axis].own])
        stop, reach = first + shards[self.ranks[halo.axis].own], wide[0].kernel_size[0] // 2
        above, below = first - min(each.start for each in needs), max(each.stop for each in needs) - stop
        wide[0].padding = (0, wide[0].padding[1])
        return 0, 0, reach - above, reach - below

    def _travel(self) -> None:
        """Compute the attention of heads around a ring, if keys and values travel."""
        for index, each in enumerate(self.ranks):
            for step in self.steps:
                for exchange in step.exchanges:
                    if exchange.axis == index and exchange.move.kind == "ring" and each.count > 1:
                        assert exchange.move.source is not None
                        owner = cast(Any, self.local.get_submodule(step.whole.path))
                        shards = exchange.move.source.shards
                        attend = partial(ring_attention, shards=shards, ranks=each, score=owner.score)
                        vars(owner)["attention"] = attend


def shard(
    module: nn.Module,
    plan: str | Mesh,
    mesh: "DeviceMesh | None" = None,
    *,
    shape: Sequence[int] | None = None,
    spec: Spec | None = None,
) -> ShardedAttention:
    """Return the part of an attention that this rank computes, for `torchrun`.

    Batch norm has the running statistics of the whole only in eval mode; in training each rank has those of its tokens.

    Args:
        module: an attention of attnscope, with the same parameters on all ranks.
        plan: what the ranks cut, such as "tp=4" or "tp=2,windows=2x2".
        mesh: the ranks as a mesh with an axis for each of the plan; by default all ranks, the last axis consecutive.
        shape: the shape of the whole input; by default that of the module's Spec.
        spec: the Spec that built the module, for a block; by default that of an attention.

    Raises:
        UsageError: the plan is illegal for this attention, ranks do not match, or the module has dropout.

    Example:
        >>> import torch, torch.distributed
        >>> import attnscope
        >>> store = torch.distributed.HashStore()  # torchrun starts the processes and needs no store
        >>> torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        >>> sharded = attnscope.shard(attnscope.ViTSpec(tokens=5, dim=8, heads=2).build(), "tp=1")
        >>> sharded(torch.zeros(1, 5, 8)).shape
        torch.Size([1, 5, 8])
        >>> torch.distributed.destroy_process_group()
    """
    spec = getattr(module, "spec", None) if spec is None else spec
    if not isinstance(spec, Spec):
        raise UsageError(
            f"module must be an attention of attnscope (got {type(module).__name__}); see attnscope.attentions"
        )
    if spec.drops:
        raise UsageError("a sharded attention must have no dropout, since ranks would drop differently; set it to 0")
    axes = mesh_of(plan)
    return ShardedAttention(module, sized(spec, shape), axes, ranks_along(axes, mesh))


def sized(spec: Spec, shape: Sequence[int] | None) -> Spec:
    """Return a Spec for inputs of a shape.

    Raises:
        UsageError: the shape has another number of axes, or other channels.
    """
    if shape is None:
        return spec
    own = spec.input_shape
    if len(shape) != len(own) or shape[-1] != own[-1]:
        raise UsageError(f"shape must be that of the module's input, such as {own} (got {tuple(shape)})")
    batch, *sides, _ = shape
    if tuple(shape[1:]) == own[1:]:
        return replace(spec, batch=batch)
    size: Any = sides[0] if len(sides) == 1 else tuple(sides)
    return replace(spec.of_size(size), batch=batch)


def ranks_along(axes: Mesh, mesh: "DeviceMesh | None") -> list[Ranks]:
    """Return the ranks along each axis of a mesh.

    Raises:
        UsageError: torch.distributed is not initialized, or the ranks do not match.
    """
    if not dist.is_initialized():
        raise UsageError("torch.distributed must be initialized; call torch.distributed.init_process_group first")
    counts = tuple([axis.ranks for axis in axes])
    if mesh is None:
        world, needed = dist.get_world_size(), ranks_of(axes)
        if world != needed:
            raise UsageError(
                f"plan {spell_mesh(axes)} needs {needed} ranks (got {world}); change the plan or the ranks"
            )
        if len(axes) == 1:
            return [Ranks(dist.group.WORLD, counts[0], dist.get_rank())]
        places = coordinates(axes, dist.get_rank())
        return [Ranks(group_along(counts, places, index), count, places[index]) for index, count in enumerate(counts)]
    if not hasattr(mesh, "get_local_rank"):
        raise UsageError(
            f"mesh must be a DeviceMesh (got {mesh!r}); see torch.distributed.device_mesh.init_device_mesh"
        )
    if tuple(mesh.shape) != counts:
        raise UsageError(f"mesh must have the shape {counts} of plan {spell_mesh(axes)} (got {tuple(mesh.shape)})")
    return [Ranks(mesh.get_group(index), count, mesh.get_local_rank(index)) for index, count in enumerate(counts)]


def group_along(counts: Sequence[int], places: Sequence[int], index: int) -> Any:
    """Return the process group of the ranks that differ from this one along one axis only; all ranks make all groups."""
    own = None
    others = [range(1) if axis == index else range(count) for axis, count in enumerate(counts)]
    for start in product(*others):
        members = []
        for place in range(counts[index]):
            at, rank = [*start[:index], place, *start[index + 1 :]], 0
            for count, number in zip(counts, at, strict=True):
                rank = rank * count + number
            members.append(rank)
        group = dist.new_group(members)
        if all(axis == index or start[axis] == places[axis] for axis in range(len(counts))):
            own = group
    return own


def method_of(module: nn.Module, step: str) -> str:
    """Return the name of a module's method that runs a step; it may have another name, such as that of a submodule."""
    methods = {name: getattr(type(module), name, None) for name in dir(type(module))}
    named = [name for name, method in methods.items() if getattr(getattr(method, "step", None), "name", "") == step]
    return step if step in methods else named[0]


def _late_name(step: LocalStep, weight: str) -> str:
    """Return the name of a parameter that is added after the collective of its step."""
    return path_of(step.whole.path, weight).replace(".", "_")


def is_roll(step: SizedStep) -> bool:
    """Return whether a step rolls a grid."""
    return any(run.name == "roll" for run in step.forward.runs)
