"""The plan of a run: the steps that a Spec runs, in their order, with the sizes of their letters, and what they come to."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import NamedTuple, TypeVar

from attnscope.core.axes import Shape, Sizes, parse_pattern, spell
from attnscope.core.errors import PlanError, literal
from attnscope.ops.recipes import Op, Operands
from attnscope.ops.tape import Tape
from attnscope.ops.tensor import Tensor, is_contiguous
from attnscope.plan.effects import Forward, forward_of
from attnscope.plan.step import Step

Found = TypeVar("Found")


@dataclass(frozen=True)
class Part:
    """A part of a network, such as a block: its title, its stage (from 1; None outside the stages), and what it sees.

    `sees` is how many patches of the image one of its output tokens can see at most, down and across; of identical parts
    in a row it is that of the last one.
    """

    title: str
    stage: int | None = None
    sees: tuple[int, int] | None = None


@dataclass(frozen=True)
class SizedStep:
    """A Step with the sizes of its letters: what one call of it takes, makes and costs.

    `path` is the module that runs it ("" for the outermost), `also` are others that run it alike, and `times` says how
    many they are together. `itemsize` is the bytes of one element. `takes` and `makes` are the names of its tensors in the
    whole that it stands in, the Step's own unless given, and `part` is the part of it that it belongs to. `layouts` are the
    strides of what it takes, None for a contiguous tensor; all are contiguous unless given.
    """

    step: Step
    sizes: Sizes
    itemsize: int = 4
    path: str = ""
    times: int = 1
    also: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()
    part: Part | None = None
    layouts: tuple[Shape | None, ...] = ()

    def __post_init__(self) -> None:
        letters = self.step.letters
        for names, tensors in (("takes", letters.inputs), ("makes", letters.outputs)):
            if not getattr(self, names):
                object.__setattr__(self, names, tuple([tensor.name for tensor in tensors]))

    @property
    def name(self) -> str:
        return self.step.name

    @property
    def places(self) -> tuple[str, ...]:
        """Where in the module it runs: `blocks.0.attn.score`, for each time that it does."""
        return tuple([place(path, self.name) for path in (self.path, *self.also)])

    @cached_property
    def inputs(self) -> tuple[Shape, ...]:
        """The shapes that go in."""
        return tuple([tensor.shape(self.sizes) for tensor in self.step.letters.inputs])

    @cached_property
    def outputs(self) -> tuple[Shape, ...]:
        """The shapes that come out."""
        return tuple([tensor.shape(self.sizes) for tensor in self.step.letters.outputs])

    @cached_property
    def weights(self) -> dict[str, Shape]:
        """The shapes of the parameters, by name."""
        return {name: tensor.shape(self.sizes) for name, tensor in self.step.weight_shapes.items()}

    @cached_property
    def forward(self) -> Forward:
        """The costs and allocations of its operation.

        Raises:
            PlanError: the operation cannot run on these tensors, or makes other shapes than the letters say.
        """
        try:
            weights, sizes = tuple(self.weights.values()), tuple(self.sizes.items())
            return _forward(self.step.op, self.step.pattern, weights, sizes, self.layouts, self.itemsize)
        except Exception as error:
            name = f"step {self.name}" if self.name else "a step"
            raise PlanError(literal(f"{name}, {self.step.pattern}: {self._why(error)}")) from error

    def _why(self, error: Exception) -> str:
        """Return why the operation failed: letters without a size, or else what the error says."""
        step = self.step
        tensors = (*step.letters.inputs, *step.letters.outputs, *step.weight_shapes.values())
        if unknown := sorted({letter for tensor in tensors for letter in tensor.letters}.difference(self.sizes)):
            return f"no size for {', '.join(unknown)}; add it to the sizes of the plan"
        return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"

    @property
    def macs(self) -> int:
        """Multiply-accumulates of matmul-class work."""
        return self.forward.macs

    @property
    def flops(self) -> int:
        """Two for each MAC."""
        return 2 * self.forward.macs

    @property
    def other_flops(self) -> int:
        """Elementwise FLOPs, by the conventions of `attnscope.ops`."""
        return self.forward.flops

    @cached_property
    def params(self) -> int:
        """Parameters that the step uses."""
        return sum([tensor.elements(self.sizes) for tensor in self.step.weight_shapes.values()])

    @property
    def is_view(self) -> bool:
        """Return whether no operator runs: the outputs are views of the input."""
        return not self.forward.runs

    @property
    def is_fused(self) -> bool:
        """Return whether one kernel does the attention."""
        return self.forward.fused_macs > 0

    @property
    def output_bytes(self) -> int:
        """The size of the outputs, whoever owns their memory."""
        return self.itemsize * sum([tensor.elements(self.sizes) for tensor in self.step.letters.outputs])

    @property
    def bytes_read(self) -> int:
        """Bytes that its operators read: each tensor that one of them takes, once; a view reads nothing."""
        return self.forward.bytes_read

    @property
    def bytes_written(self) -> int:
        """Bytes that its operators write: each tensor that one of them makes, once, hidden copies included."""
        return self.forward.bytes_written

    def moved_to(
        self, path: str, also: tuple[str, ...], takes: tuple[str, ...], makes: tuple[str, ...], part: Part | None
    ) -> "SizedStep":
        """Return the step in another place; what it does stays the same."""
        return SizedStep(
            self.step, self.sizes, self.itemsize, path, 1 + len(also), also, takes, makes, part, self.layouts
        )

    def laid(self, layouts: tuple[Shape | None, ...]) -> "SizedStep":
        """Return the step where what it takes lies with these strides."""
        return SizedStep(
            self.step,
            self.sizes,
            self.itemsize,
            self.path,
            self.times,
            self.also,
            self.takes,
            self.makes,
            self.part,
            layouts,
        )


@lru_cache(
    maxsize=4096
)  # blocks that are alike, kernels of one attention and points of a comparison ask for the same again
def _forward(
    op: Op,
    pattern: str,
    weights: tuple[Shape, ...],
    sizes: tuple[tuple[str, int], ...],
    layouts: tuple[Shape | None, ...],
    itemsize: int,
) -> Forward:
    """Run an operation on a tape, and return what it does; its arguments are those of a SizedStep.

    Raises:
        ValueError: it makes no tensors, or other shapes than the letters say.
    """
    tape, letters, size_of = Tape(itemsize), parse_pattern(pattern), dict(sizes)
    shapes, expected = ([each.shape(size_of) for each in side] for side in (letters.inputs, letters.outputs))
    inputs = [
        tape.external(shape, strides, -index - 1)
        for index, (shape, strides) in enumerate(zip(shapes, layouts or (None,) * len(shapes), strict=True))
    ]
    parameters = [tape.external(shape) for shape in weights]
    made = op(tape, Operands(inputs, parameters, expected, letters, size_of))
    outputs = (made,) if isinstance(made, Tensor) else made
    if not isinstance(outputs, Sequence) or not all(isinstance(each, Tensor) for each in outputs):
        raise ValueError(f"the operation returns {made!r} instead of tensors")
    found = [each.shape for each in outputs]
    if found != expected:
        raise ValueError(f"the operation makes {_spelled(found)}, but the letters say {_spelled(expected)}")
    return forward_of(tape, inputs, parameters, outputs)


def _spelled(shapes: Sequence[Shape]) -> str:
    return ", ".join(map(spell, shapes))


def place(path: str, name: str) -> str:
    """Where a step runs: its name behind the path of its module."""
    return f"{path}.{name}" if path else name


class Call(NamedTuple):
    """One call of a module: its first and its last run, and the names of the tensors that its forward holds to its end."""

    first: int
    last: int
    holds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The steps of one run, in their order; totals are sums over them, each row as often as it stands there.

    Identical modules of a network are one, in the place of the first of them. `runs` tells which step runs when, by its
    number, those of identical modules again and again: each once, in their order, unless given. `calls` are the modules
    that are called: while one runs, Python holds what it was given and what its forward keeps. `holds` are the names of the
    tensors that the forward of the whole keeps.
    """

    sized: tuple[SizedStep, ...]
    runs: tuple[int, ...] = ()
    calls: tuple[Call, ...] = ()
    holds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.runs:
            object.__setattr__(self, "runs", tuple(range(len(self.sized))))

    @cached_property
    def steps(self) -> tuple[SizedStep, ...]:
        """The steps, each of which takes its tensors as they were made to lie in memory."""
        return laid_out(self.sized)

    @classmethod
    def of(cls, steps: Sequence[Step], sizes: Sizes, itemsize: int, holds: Sequence[str] = ()) -> "Plan":
        """Return the plan of steps that share the sizes of their letters.

        Args:
            steps: in the order in which they run.
            sizes: of their letters.
            itemsize: bytes of one element.
            holds: names of tensors that the module's forward keeps in a variable until it returns, beyond their last use.
        """
        return cls(tuple([SizedStep(step, sizes, itemsize) for step in steps]), holds=tuple(holds))

    @classmethod
    def join(cls, plans: Sequence["Plan"], order: Iterable[int] | None = None) -> "Plan":
        """One plan after the other; tensors with the same name are the same.

        Args:
            plans: pieces of the whole, in the order in which they first run.
            order: which of them runs when, by its number; each once unless given.
        """
        starts = list(accumulate([len(plan.sized) for plan in plans], initial=0))
        runs: list[int] = []
        calls: list[Call] = []
        for number in range(len(plans)) if order is None else order:
            plan, now = plans[number], len(runs)
            calls += [Call(now + first, now + last, holds) for first, last, holds in plan.calls]
            runs += [starts[number] + step for step in plan.runs]
        holds = tuple([name for plan in plans for name in plan.holds])
        return cls(tuple([step for plan in plans for step in plan.sized]), tuple(runs), tuple(calls), holds)

    def inside(
        self,
        *paths: str,
        takes: Mapping[str, str] | None = None,
        makes: Mapping[str, str] | None = None,
        part: Part | None = None,
    ) -> "Plan":
        """This plan as a piece of a larger one.

        Args:
            paths: the modules of the whole that run it, the first one first ("": the whole itself). Who joins it to others
                says when the others run.
            takes: what the tensors that come from outside are called in the whole.
            makes: what the tensors that it makes are called there. All others stay its own.
            part: the part of the whole that it is.
        """
        outside, inner = takes or {}, makes or {}
        first = paths[0]
        named: dict[str, str] = {}
        """The names of its own tensors in the whole."""
        steps = []
        for step in self.sized:
            names_in = tuple([named.get(name) or outside.get(name) or place(first, name) for name in step.takes])
            named |= {name: inner.get(name) or place(first, name) for name in step.makes}
            names_out = tuple([named[name] for name in step.makes])
            own, *also = [_within(path, own) for path in paths for own in (step.path, *step.also)]
            steps.append(step.moved_to(own, tuple(also), names_in, names_out, part or step.part))
        holds = tuple([inner.get(name) or place(first, name) for name in self.holds])
        calls = tuple(
            [
                call._replace(holds=tuple([inner.get(name) or place(first, name) for name in call.holds]))
                for call in self.calls
            ]
        )
        if first:
            calls, holds = (*calls, Call(0, len(self.runs) - 1, holds)), ()
        return Plan(tuple(steps), self.runs, calls, holds)

    def by_step(self, of_runs: Iterable[Found]) -> list[list[Found]]:
        """Return the values of the runs, those of each step together."""
        found: list[list[Found]] = [[] for _ in self.steps]
        for number, one in zip(self.runs, of_runs, strict=True):
            found[number].append(one)
        return found

    @cached_property
    def macs(self) -> int:
        return sum([step.times * step.macs for step in self.steps])

    @property
    def flops(self) -> int:
        return 2 * self.macs

    @cached_property
    def other_flops(self) -> int:
        return sum([step.times * step.other_flops for step in self.steps])

    @cached_property
    def params(self) -> int:
        return sum([step.times * step.params for step in self.steps])

    @cached_property
    def input_bytes(self) -> int:
        """The size of what comes from outside: the tensors that some step takes and none before it makes."""
        made: set[str] = set()
        outside: dict[str, int] = {}
        for step in self.steps:
            for name, tensor in zip(step.takes, step.step.letters.inputs, strict=True):
                if name not in made:
                    outside[name] = step.itemsize * tensor.elements(step.sizes)
            made.update(step.makes)
        return sum(outside.values())


def _within(path: str, own: str) -> str:
    return f"{path}.{own}" if path and own else path or own


def laid_out(steps: Sequence[SizedStep]) -> tuple[SizedStep, ...]:
    """Return the steps where each takes its tensors with the strides with which they were made."""
    strides: dict[str, Shape | None] = {}
    laid = []
    for step in steps:
        layouts = tuple([strides.get(name) for name in step.takes])
        if layouts != step.layouts and any(layouts + step.layouts):
            step = step.laid(layouts)
        for name, made, shape in zip(step.makes, step.forward.outputs, step.outputs, strict=True):
            strides[name] = None if is_contiguous(shape, made.strides) else made.strides
        laid.append(step)
    return tuple(laid)
