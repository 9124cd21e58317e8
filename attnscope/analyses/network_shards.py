"""A network on several ranks: the sum over its parts, with what moves the tokens between them. No torch."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

from attnscope.core.axes import Factors, Shape
from attnscope.core.errors import UsageError
from attnscope.core.neighbourhood import Neighbourhood
from attnscope.networks.spec import NetworkSpec
from attnscope.plan.mesh import Mesh, Shards, UncuttableError, distinct_ranks
from attnscope.plan.plan import Part, Plan, SizedStep
from attnscope.plan.routes import Placed, Route, whole_route
from attnscope.plan.sharding import LocalStep, ShardedPlan, Transfer, messages_of

REASONS = {
    "is not supported for this attention: ": "",
    "this attention": "this part",
    "cuts the heads, and this part has none": "it has no heads",
    "must leave no rank empty (got ": "a rank would be empty (",
    "must divide ": "the ranks do not divide ",
    "(got ": "(",
}
"""The words of an attention's error, and those of a part that cannot be cut, replaced in this order."""


class Cut(NamedTuple):
    """A cut of the tokens between two parts: the number of the axis, and its size on each rank."""

    axis: int
    shards: Shards


@dataclass(frozen=True)
class NetworkPart:
    """A part of a network on a mesh.

    Args:
        title: its title, with its stage.
        times: the number of modules that are alike.
        sharded: its plan.
        whole: for the number of each axis of the mesh along which each rank computes all of it, the reason.
    """

    title: str
    times: int
    sharded: ShardedPlan
    whole: Mapping[int, str]

    def entry(self, axis: int) -> Cut | None:
        """Return how its input is cut along an axis of the mesh; None if it is whole."""
        at, number = self.sharded.inputs[0]
        route, step = self.sharded.routes[axis][at], self.sharded.plan.sized[at]
        source = next((move.source for move in route.before if move.number == number), route.takes[number])
        return _cut(source, step.step.letters.inputs[number].axes, step)

    def exit(self, axis: int) -> Cut | None:
        """Return how its output is cut along an axis of the mesh; None if it is whole."""
        route, step = self.sharded.routes[axis][-1], self.sharded.plan.sized[-1]
        targets = [move.target for move in route.after if move.number == 0]
        return _cut(targets[-1] if targets else route.makes[0], step.step.letters.outputs[0].axes, step)

    @property
    def input_shape(self) -> Shape:
        """Return the shape of its input on one device."""
        at, number = self.sharded.inputs[0]
        return self.sharded.plan.sized[at].inputs[number]


def _cut(placed: Placed | None, axes: Sequence[Factors], step: SizedStep) -> Cut | None:
    """Return the places of an axis on each rank, of which a letter is cut."""
    if placed is None:
        return None
    index = next(index for index, axis in enumerate(axes) if placed.letter in axis.letters)
    size = axes[index].size(step.sizes)
    return Cut(index, tuple([size * each // sum(placed.shards) for each in placed.shards]))


class PartOnRank(NamedTuple):
    """A part as one rank runs it: its steps, and what moves its input to the rank."""

    part: NetworkPart
    steps: "list[LocalStep]"
    moves: "list[Transfer]"

    @property
    def bytes_sent(self) -> int:
        """Return the bytes that the rank sends in the forward of all modules of this part."""
        moved = sum(move.bytes_sent for move in self.moves)
        return moved + self.part.times * sum(step.bytes_sent for step in self.steps)

    @property
    def transfers(self) -> "list[Transfer]":
        """Return the collectives of the forward of all modules of this part."""
        moved = [move for move in self.moves if move.kind != "slice"]
        return moved + self.part.times * [each for step in self.steps for each in step.transfers]

    @property
    def macs(self) -> int:
        """Return the MACs of the rank in all modules of this part."""
        return self.part.times * sum(step.macs for step in self.steps)


class ShardedNetwork:
    """A network on a mesh of ranks.

    Args:
        spec: the network, or a stage of it.
        mesh: the axes of the mesh.

    Raises:
        UsageError: no part can be cut along an axis of the mesh.
    """

    def __init__(self, spec: NetworkSpec, mesh: Mesh) -> None:
        self.spec, self.mesh, self.plan = spec, mesh, spec.plan()
        self.parts: list[NetworkPart] = []
        number_of: dict[int, int] = {}
        first = 0
        for (part, times), steps in groupby(self.plan.sized, key=lambda step: (step.part, step.times)):
            sized = tuple(steps)
            before = self.parts[-1] if self.parts else None
            self.parts.append(self._part(part, times, self._plan_of(first, sized), before))
            number_of |= dict.fromkeys(range(first, first + len(sized)), len(self.parts) - 1)
            first += len(sized)
        self.order = [number for number, _ in groupby(number_of[run] for run in self.plan.runs)]
        for index, axis in enumerate(mesh):
            blocks = [part for part in self.parts if "block" in part.title]
            if all(index in part.whole for part in blocks) and axis.ranks > 1:
                block = blocks[0]
                why = f"in {block.title}, {block.whole[index]}"
                raise UncuttableError(f"{{plan}} {axis.name} cuts no part of this network: {why}")

    def _part(self, part: Part | None, times: int, plan: Plan, before: NetworkPart | None) -> NetworkPart:
        """Return a part; it keeps the cut of the part before it if it can."""
        steps, around = plan.sized, self._around(part, plan.sized)
        routes: list[tuple[Route, ...]] = []
        whole: dict[int, str] = {}
        for index, axis in enumerate(self.mesh):
            left = before.exit(index) if before else None
            try:
                routes += ShardedPlan.of(plan, (axis,), around, [left.shards if left else ()]).routes
            except UsageError as error:
                whole[index] = _why(error)
                routes.append(tuple([whole_route(step) for step in steps]))
        name = part.title if part else "network"
        title = f"stage {part.stage}, {name}" if part and part.stage else name
        return NetworkPart(title, times, ShardedPlan(plan, self.mesh, tuple(routes), around), whole)

    def _plan_of(self, first: int, steps: tuple[SizedStep, ...]) -> Plan:
        """Return the plan of a part, with the calls of its first run.

        Args:
            first: the number of its first step in the network.
            steps: its steps.
        """
        start = self.plan.runs.index(first)
        stop = start + len(steps) - 1
        within = [call for call in self.plan.calls if start <= call.first and call.last <= stop]
        return Plan(steps, calls=tuple([c._replace(first=c.first - start, last=c.last - start) for c in within]))

    def _around(self, part: Part | None, steps: Sequence[SizedStep]) -> Neighbourhood:
        """Return what each query of a part's attention looks at; that of the first block for a part without attention."""
        blocks = [int(found[1]) for step in steps if (found := re.search(r"blocks\.(\d+)", step.path))]
        if not blocks:
            return self.spec.neighbourhood
        stage = part.stage if part else None
        of_stage = [
            int(found[1])
            for step in self.plan.sized
            if step.part is not None and step.part.stage == stage and (found := re.search(r"blocks\.(\d+)", step.path))
        ]
        own: dict[str, Any] = {} if stage is None else {"stage": stage}
        number = blocks[0] - min(of_stage) + 1
        return replace(self.spec, scope="block", block=number, **own).neighbourhood

    def at(self, place: tuple[int, ...]) -> list[PartOnRank]:
        """Return the parts of the rank at a place of the mesh."""
        steps = [part.sharded.at(place) for part in self.parts]
        moves: list[list[Transfer]] = [[] for _ in self.parts]
        before = [self.parts[self.order[0]].entry(axis) for axis in range(len(self.mesh))]
        for number in self.order:
            moves[number] += self._moves(self.parts[number], before, place)
            before = [self.parts[number].exit(axis) for axis in range(len(self.mesh))]
        return [PartOnRank(*each) for each in zip(self.parts, steps, moves, strict=True)]

    def _moves(self, part: NetworkPart, before: Sequence[Cut | None], place: Sequence[int]) -> list[Transfer]:
        """Return what moves the tokens from the cut of the last part to that of the next one, on one rank."""
        found, now = [], list(before)
        for index, axis in enumerate(self.mesh):
            then = part.entry(index)
            if now[index] == then:
                continue
            shape = _local(part.input_shape, [cut for at, cut in enumerate(now) if at != index], place, self.mesh)
            kind, sent, returned = _sent(now[index], then, place[index], shape)
            taken, made = (_local(shape, [cut], (place[index],), (axis,)) for cut in (now[index], then))
            now[index] = then
            if kind:
                size = self.plan.sized[0].itemsize
                backward = {"all-gather": "", "slice": "all-gather"}.get(kind, kind)
                messages = messages_of(kind, axis.ranks)
                found.append(
                    Transfer(kind, axis.name, "x", sent * size, backward, returned * size, messages, taken, made)
                )
        return found

    @cached_property
    def candidates(self) -> list[list[PartOnRank]]:
        """Return the parts of ranks that may differ from each other."""
        return [self.at(place) for place in distinct_ranks(self.mesh)]

    @cached_property
    def busiest(self) -> list[PartOnRank]:
        """Return the parts of the rank that sends the most, and computes the most of those."""
        return max(self.candidates, key=lambda parts: (sum(p.bytes_sent for p in parts), sum(p.macs for p in parts)))


def _why(error: UsageError) -> str:
    """Return the rule of a part that cannot be cut, without the name of the plan and the fix."""
    text = error.in_flags().removeprefix("--plan ").partition("; ")[0].partition(" ")[2]
    for rule, reason in REASONS.items():
        text = text.replace(rule, reason)
    return text


def _local(shape: Shape, cuts: Sequence[Cut | None], place: Sequence[int], mesh: Mesh) -> Shape:
    """Return the shape of a tensor on a rank."""
    sizes = list(shape)
    for cut, at in zip(cuts, place, strict=False):
        if cut is not None:
            sizes[cut.axis] = cut.shards[at]
    return tuple(sizes)


def _sent(now: Cut | None, then: Cut | None, rank: int, shape: Shape) -> tuple[str, int, int]:
    """Return the collective from one cut to another, and the elements that a rank sends in forward and backward.

    A part that each rank computes as a whole has the whole gradient on each rank, so that its gather sends nothing back.
    """
    cut = now or then
    assert cut is not None
    elements = 1
    for axis, size in enumerate(shape):
        elements *= 1 if axis == cut.axis else size
    others = len(cut.shards) - 1
    if now is None or then is None:
        padded = others * max(cut.shards) * elements
        return ("all-gather", padded, 0) if then is None else ("slice", 0, padded)
    own, wanted = (range(sum(each.shards[:rank]), sum(each.shards[: rank + 1])) for each in (now, then))
    kept = len(range(max(own.start, wanted.start), min(own.stop, wanted.stop)))
    sent, returned = (len(own) - kept) * elements, (len(wanted) - kept) * elements
    return ("all-to-all", sent, returned) if now.shards != then.shards else ("", 0, 0)
