"""A plan on a mesh of ranks: what each rank computes, keeps and sends.

Bytes are those that one rank sends with ring algorithms: an all-reduce of x bytes sends 2(P−1)/P·x, an all-gather and a
reduce-scatter send (P−1)/P·x (Thakur et al., "Optimization of Collective Communication Operations in MPICH", 2005).
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

from attnscope.core.axes import Shape, Tensor
from attnscope.core.errors import PlanError
from attnscope.core.neighbourhood import Neighbourhood
from attnscope.ops import movement
from attnscope.ops.recipes import Operands, Result
from attnscope.ops.tape import Tape
from attnscope.plan.halo import overlaps
from attnscope.plan.memory import AtLeast, Memory
from attnscope.plan.mesh import Mesh, Shards, UncuttableError, coordinates, distinct_ranks, ranks_of, spell_mesh
from attnscope.plan.plan import Plan, SizedStep
from attnscope.plan.routes import Move, Placed, Route, inputs_of, route_of
from attnscope.plan.step import Step

BACKWARD = {
    "all-gather": "reduce-scatter",
    "reduce-scatter": "all-gather",
    "all-to-all": "all-to-all",
    "ring": "ring",
    "halo": "halo",
    "copy": "all-reduce",
}
"""The collective of the gradient, by that of the forward; the gradient of an all-reduce needs none."""


@dataclass(frozen=True)
class Transfer:
    """A collective of one rank.

    Args:
        kind: "all-reduce", "reduce-scatter", "all-gather", "all-to-all", "ring" or "halo"; "copy" if only the gradient
            needs one.
        axis: the name of the mesh axis.
        tensor: the name of the tensor.
        bytes_sent: bytes that the rank sends in the forward.
        backward: the collective of the gradient; "" without one.
        backward_bytes_sent: bytes that the rank sends for it.
        messages: the number of messages one after another, with ring algorithms.
        taken: the shape of the tensor on the rank before it.
        shape: the shape of the tensor on the rank after it.
    """

    kind: str
    axis: str
    tensor: str
    bytes_sent: int
    backward: str
    backward_bytes_sent: int
    messages: int
    taken: Shape
    shape: Shape


class Exchange(NamedTuple):
    """A collective as a module runs it.

    Args:
        side: "before" or "after" the step.
        axis: the number of the mesh axis.
        move: what happens.
        tensor: the letters of the tensor.
        sizes: the sizes of letters on this rank before it.
    """

    side: str
    axis: int
    move: Move
    tensor: Tensor
    sizes: dict[str, int]


@dataclass(frozen=True)
class LocalStep:
    """A step of a plan as one rank runs it.

    Args:
        whole: the step on one device.
        local: the step with the sizes of this rank.
        before, after: its collectives.
        shapes: the shapes of its outputs on this rank, after the collectives.
        rounds: the number of blocks of keys that it runs for, one after another.
        gradients: for each parameter that several ranks have, the bytes that the rank sends to sum its gradients.
        params: the number of its parameters on this rank.
        exchanges: its collectives as a module runs them.
        routes: its route along each axis of the mesh.
    """

    whole: SizedStep
    local: SizedStep
    before: tuple[Transfer, ...]
    after: tuple[Transfer, ...]
    shapes: tuple[Shape, ...]
    rounds: int
    gradients: tuple[int, ...]
    params: int
    exchanges: tuple[Exchange, ...]
    routes: tuple[Route, ...]

    @property
    def transfers(self) -> tuple[Transfer, ...]:
        """Return the collectives of the forward."""
        return tuple([each for each in (*self.before, *self.after) if each.kind not in ("copy", "slice")])

    @property
    def gradient_bytes_sent(self) -> int:
        """Return the bytes that this rank sends to sum the gradients of parameters that several ranks have."""
        return sum(self.gradients)

    def arriving(self, number: int) -> Shape:
        """Return the shape of an input on this rank, before its collectives."""
        name = self.whole.step.letters.inputs[number].name
        return next((each.taken for each in self.before if each.tensor == name), self.local.inputs[number])

    @property
    def bytes_sent(self) -> int:
        """Return the bytes that this rank sends in the forward."""
        return sum([each.bytes_sent for each in (*self.before, *self.after)])

    @property
    def backward_bytes_sent(self) -> int:
        """Return the bytes that this rank sends in the backward, without the gradients of parameters."""
        return sum([each.backward_bytes_sent for each in (*self.before, *self.after)])

    @property
    def macs(self) -> int:
        """Return the MACs of this rank."""
        return self.local.macs


@dataclass(frozen=True)
class ShardedPlan:
    """A plan on a mesh of ranks.

    Args:
        plan: the plan on one device.
        mesh: the axes of the mesh.
        routes: the route of each step, for each axis of the mesh.
        around: what each query of the attention looks at.
    """

    plan: Plan
    mesh: Mesh
    routes: tuple[tuple[Route, ...], ...]
    around: Neighbourhood

    @classmethod
    def of(
        cls, plan: Plan, mesh: Mesh, around: Neighbourhood, arriving: Sequence[Shards] | None = None
    ) -> "ShardedPlan":
        """Return a plan on a mesh.

        Args:
            plan: the plan of an attention.
            mesh: the axes of the mesh.
            around: what each query of the attention looks at.
            arriving: for each axis, how a previous part of a network cut the tokens; () if it did not.

        Raises:
            UncuttableError: the attention cannot be sharded like this.
        """
        cuts = arriving or [()] * len(mesh)
        routes = [tuple(route_of(plan, axis, around, cut)) for axis, cut in zip(mesh, cuts, strict=True)]
        found = cls(plan, mesh, tuple(routes), around)
        for number, step in enumerate(found.at((0,) * len(mesh))):
            if not found.is_exact(number, step):
                raise UncuttableError(
                    f"{{plan}} {spell_mesh(mesh)} is not supported for this attention: its letters do not say which part "
                    f"of the step {step.whole.name} a rank computes"
                )
        return found

    def is_exact(self, number: int, step: LocalStep) -> bool:
        """Return whether the MACs of a step on the first rank are its share of those on one device."""
        if {taken.name for taken in step.whole.step.letters.inputs} <= set(step.whole.step.constants):
            return True  # a table for all tokens, such as that of a bias
        share = Fraction(1)
        for routes in self.routes:
            route = routes[number]
            if placed := next((each for each in (*route.takes, *route.weights.values(), *route.makes) if each), None):
                share *= Fraction(placed.shards[0], sum(placed.shards))
        try:
            return step.macs == share * step.whole.macs
        except PlanError:
            return False

    @cached_property
    def inputs(self) -> tuple[tuple[int, int], ...]:
        """Return the place of each input of the module: the number of the step that takes it, and its number there."""
        return tuple(inputs_of(self.plan.sized).values())

    @cached_property
    def busiest(self) -> "list[LocalStep]":
        """Return the steps of the rank that sends the most, and computes the most of those."""
        return max(self.candidates, key=lambda steps: (sum(s.bytes_sent for s in steps), sum(s.macs for s in steps)))

    def of_rank(self, rank: int) -> "list[LocalStep]":
        """Return the steps of a rank, numbered from 0."""
        return self.at(coordinates(self.mesh, rank))

    def at(self, place: tuple[int, ...]) -> "list[LocalStep]":
        """Return the steps of the rank at a place of the mesh, which has a number for each axis."""
        return [
            _Local(step, self.mesh, [routes[number] for routes in self.routes], place).step
            for number, step in enumerate(self.plan.steps)
        ]

    @cached_property
    def candidates(self) -> "list[list[LocalStep]]":
        """Return the steps of ranks that may differ from each other."""
        return [self.at(place) for place in distinct_ranks(self.mesh)]

    @property
    def ranks(self) -> int:
        """Return the number of ranks."""
        return ranks_of(self.mesh)


def messages_of(kind: str, ranks: int) -> int:
    """Return the number of messages one after another of a collective on this number of ranks, with ring algorithms."""
    if ranks == 1 or kind in ("copy", "slice"):
        return 0
    return {"all-reduce": 2 * (ranks - 1), "halo": 1}.get(kind, ranks - 1)


class _Local:
    """One step at one place of the mesh; `step` has the result."""

    def __init__(self, whole: SizedStep, mesh: Mesh, routes: Sequence[Route], place: Sequence[int]) -> None:
        self.whole, self.mesh, self.routes, self.place = whole, mesh, routes, place
        self.exchanges: list[Exchange] = []
        letters, axes = whole.step.letters, range(len(mesh))
        now = [[self.source(index, number) for index in axes] for number in range(len(letters.inputs))]
        before = self.transfers("before", letters.inputs, now)
        made = [[routes[index].makes[number] for index in axes] for number in range(len(letters.outputs))]
        after = self.transfers("after", letters.outputs, made)
        shapes = tuple(
            [self.shape(each, cuts) for each, cuts in zip(letters.outputs, made, strict=True)]
        )  # after moves
        local = self.local()
        self.step = LocalStep(
            whole=whole,
            local=local,
            before=before,
            after=after,
            shapes=shapes,
            rounds=max([each.rounds for each in routes], default=1),
            gradients=tuple([size for index in axes for size in self.gradients(index)]),
            exchanges=tuple(self.exchanges),
            routes=tuple(routes),
            params=sum([self.elements_of(name) for name in whole.step.weight_shapes]),
        )

    def source(self, index: int, number: int) -> Placed | None:
        """Return how an input is cut along a mesh axis when it arrives."""
        route = self.routes[index]
        return next((move.source for move in route.before if move.number == number), route.takes[number])

    def transfers(self, side: str, tensors: Sequence[Tensor], cuts: list[list[Placed | None]]) -> tuple[Transfer, ...]:
        """Return the collectives before or after the step, one mesh axis after another; `cuts` becomes those after."""
        found = []
        for index, axis in enumerate(self.mesh):
            for move in getattr(self.routes[index], side):
                tensor, others = tensors[move.number], cuts[move.number]
                sizes, taken = self.sizes(enumerate(others)), self.shape(tensor, others)
                others[index] = None
                full = self.elements(tensor, others)
                forward, backward = self.sent(move, axis.ranks, self.place[index], full)
                others[index] = move.target
                self.exchanges.append(Exchange(side, index, move, tensor, sizes))
                found.append(
                    Transfer(
                        kind=move.kind,
                        axis=axis.name,
                        tensor=tensor.name,
                        bytes_sent=forward * self.whole.itemsize,
                        backward=BACKWARD.get(move.kind, "") if tensor.name not in self.whole.step.constants else "",
                        backward_bytes_sent=backward * self.whole.itemsize,
                        messages=messages_of(move.kind, axis.ranks),
                        taken=taken,
                        shape=self.shape(tensor, others),
                    )
                )
        return tuple(found)

    def sent(self, move: Move, ranks: int, rank: int, full: int) -> tuple[int, int]:
        """Return the elements that a rank sends for a collective, and for that of its gradient.

        Args:
            move: what happens to the tensor.
            ranks: the number of ranks along the mesh axis.
            rank: the number of this rank among them.
            full: the elements of the tensor if this mesh axis did not cut it.
        """
        reduced = 2 * (ranks - 1) * -(-full // ranks)
        source, target = move.source, move.target
        if move.kind == "all-reduce":
            return reduced, 0
        if move.kind == "copy":
            return 0, reduced
        if move.kind == "slice":
            return 0, 0
        if move.kind == "all-to-all":
            assert source is not None
            assert target is not None
            a, b = source.shards, target.shards
            unit = full // (sum(a) * sum(b))
            return a[rank] * (sum(b) - b[rank]) * unit, b[rank] * (sum(a) - a[rank]) * unit
        placed = source or target
        assert placed is not None
        unit = full // sum(placed.shards)
        if move.kind != "halo":
            padded = (ranks - 1) * max(placed.shards) * unit
            return padded, padded
        return self.halo(move, placed, rank, full)

    def halo(self, move: Move, placed: Placed, rank: int, full: int) -> tuple[int, int]:
        """Return the elements that a rank sends to the ranks that need them, and that it returns as gradients."""
        total = max(part.stop for needs in move.needs for part in needs)
        places = total // sum(placed.shards) if total >= sum(placed.shards) else 1
        of_place = full // (places * sum(placed.shards))
        given = [
            sum(map(len, overlaps(placed.shards, places, move.needs[other], rank)))
            for other in range(len(placed.shards)) if other != rank
        ]  # fmt: skip
        taken = sum(map(len, move.needs[rank])) - sum(map(len, overlaps(placed.shards, places, move.needs[rank], rank)))
        return sum(given) * of_place, taken * of_place

    def sizes(self, cuts: Iterable[tuple[int, Placed | None]]) -> dict[str, int]:
        """Return the sizes of letters on this rank, for the cuts along mesh axes."""
        sizes = dict(self.whole.sizes)
        for index, placed in cuts:
            if placed is not None:
                whole = self.whole.sizes[placed.letter]
                sizes[placed.letter] = sizes[placed.letter] * placed.shards[self.place[index]] // whole
        return sizes

    def shape(self, tensor: Tensor, cuts: Sequence[Placed | None]) -> Shape:
        return tensor.shape(self.sizes(enumerate(cuts)))

    def elements(self, tensor: Tensor, cuts: Sequence[Placed | None]) -> int:
        return tensor.elements(self.sizes(enumerate(cuts)))

    def local(self) -> SizedStep:
        """Return the step with the sizes of this rank.

        An axis that the weights contract may have the letter of an axis of the result; it gets a letter of its own.
        """
        step = self.whole.step
        cuts: list[tuple[int, Placed | None]] = []
        extra: dict[str, int] = {}
        for index, route in enumerate(self.routes):
            for number, placed in enumerate(route.takes):
                if placed is None:
                    continue
                if route.contracted == number:
                    step, letter = _apart(step, number, placed.letter)
                    extra[letter] = self.whole.sizes[placed.letter] // len(placed.shards)
                    cuts.append((index, None))
                else:
                    cuts.append((index, placed))
            if route.contracted is None:
                cuts += [(index, placed) for placed in (*route.weights.values(), *route.makes)]
        unique = dict.fromkeys((index, placed) for index, placed in cuts if placed)
        once = {(index, placed.letter): placed for index, placed in unique}
        sizes = self.sizes([(index, placed) for (index, _), placed in once.items()]) | extra
        return replace(self.whole, step=step, sizes=sizes, layouts=())

    def elements_of(self, weight: str) -> int:
        """Return the number of elements of a parameter on this rank."""
        elements = self.whole.step.weight_shapes[weight].elements(self.whole.sizes)
        for index, route in enumerate(self.routes):
            if placed := route.weights.get(weight):
                elements = elements * placed.shards[self.place[index]] // sum(placed.shards)
        return elements

    def gradients(self, index: int) -> list[int]:
        """Return the bytes that the rank sends along a mesh axis to sum the gradient of each parameter that all have."""
        ranks = self.mesh[index].ranks
        shared = [name for name in self.whole.step.weight_shapes if self.routes[index].shares(name)]
        return [2 * (ranks - 1) * -(-self.elements_of(name) // ranks) * self.whole.itemsize for name in shared]


def live_bytes(steps: Sequence[LocalStep], plan: Plan) -> list[AtLeast]:
    """Return the peak activation memory of one rank during each step, with what collectives receive.

    A step that runs for one block of keys after another has a lower bound: that of its largest block, without the blocks
    that travel and the sums of earlier blocks.

    Args:
        steps: the steps of the rank.
        plan: the plan on one device, whose forward holds tensors in variables.
    """
    rings = [each.move.source for step in steps for each in step.exchanges if each.move.kind == "ring"]
    blocks = {source.letter: max(source.shards) for source in rings if source is not None}
    pieces: list[SizedStep] = []
    starts, places = [], []
    for step in steps:
        starts.append(len(pieces))
        names = dict(zip([each.name for each in step.whole.step.letters.inputs], step.whole.takes, strict=True))
        received = [each for each in step.before if each.taken != each.shape and each.kind not in ("slice", "ring")]
        pieces += [_receiving(step, each, names[each.tensor]) for each in received]
        places.append(len(pieces))
        in_rounds = {letter: size for letter, size in blocks.items() if step.rounds > 1}
        pieces.append(replace(step.local, sizes={**step.local.sizes, **in_rounds}))
        names = dict(zip([each.name for each in step.whole.step.letters.outputs], step.whole.makes, strict=True))
        pieces += [_receiving(step, each, names[each.tensor]) for each in step.after if each.taken != each.shape]
    ends = [start - 1 for start in (*starts[1:], len(pieces))]
    calls = [call._replace(first=starts[call.first], last=ends[call.last]) for call in plan.calls]
    memory = Memory(Plan(tuple(pieces), calls=tuple(calls), holds=plan.holds))
    return [AtLeast(memory.live_at_least[place], memory.live[place] is not None and not blocks) for place in places]


def _receiving(step: LocalStep, transfer: Transfer, name: str) -> SizedStep:
    """Return a step that makes the tensor that a collective leaves.

    Args:
        step: the step that needs the collective.
        transfer: the collective.
        name: the name of the tensor in the whole plan.
    """
    before, after = "abcdefgh"[: len(transfer.taken)], "ijklmnop"[: len(transfer.shape)]
    sizes = dict(zip(before + after, (*transfer.taken, *transfer.shape), strict=True))
    tensor = transfer.tensor
    made = Step(f"{tensor}: {' '.join(before)} -> {tensor}: {' '.join(after)}", op=received, name=transfer.kind)
    return SizedStep(made, sizes, step.local.itemsize, takes=(name,), makes=(name,))


def _apart(step: Step, number: int, cut: str) -> tuple[Step, str]:
    """Return a step whose axis of an input that the weights contract has a letter of its own; and the letter.

    Args:
        step: the step.
        number: the number of the input.
        cut: a letter of the axis: the last one, or the channels of planes.
    """
    letters = step.letters
    used = {letter for each in (*letters.inputs, *letters.outputs) for letter in each.letters}
    fresh = next(letter for letter in "ijkloptuvwz" if letter not in used)
    axis = -1 if cut in letters.inputs[number].axes[-1].letters else 1
    inputs = [
        f"{each.name}: {_respelled(str(each), axis, fresh)}" if at == number else f"{each.name}: {each}"
        for at, each in enumerate(letters.inputs)
    ]
    outputs = [f"{each.name}: {each}" for each in letters.outputs]
    weights = {
        name: _respelled(axes, axis, fresh) if len(step.weight_shapes[name].axes) > 1 else axes
        for name, axes in step.weights.items()
    }
    return replace(step, pattern=f"{', '.join(inputs)} -> {', '.join(outputs)}", weights=weights), fresh


def _respelled(axes: str, axis: int, letter: str) -> str:
    """Return axes of which one is a letter."""
    words = re.findall(r"\([^()]*\)|\S+", axes)
    words[axis] = letter
    return " ".join(words)


def received(tape: Tape, given: Operands) -> Result:
    """Return the tensor that a collective leaves: a new one."""
    return movement.pad(tape, given.x, given.shapes[0])
