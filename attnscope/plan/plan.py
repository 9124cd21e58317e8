"""The plan of a run: the steps of a Spec in order, the sizes of their letters, and the resulting costs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
    """A part of a network, such as a block.

    Args:
        title: its title.
        stage: its stage, counted from 1; None outside the stages.
        sees: the largest receptive field of its output tokens, in patches down and across. Of consecutive identical
            parts it is that of the last one.
    """

    title: str
    stage: int | None = None
    sees: tuple[int, int] | None = None


@dataclass(frozen=True)
class SizedStep:
    """A Step with the sizes of its letters: the inputs, outputs and costs of one call.

    Args:
        step: the step.
        sizes: the sizes of its letters.
        itemsize: bytes of one element.
        path: the module that runs it; empty for the outermost module.
        times: the number of modules that run it, `path` and `also` together.
        also: further modules that run the same step.
        takes: the names of its inputs in the whole plan; by default those of the Step.
        makes: the names of its outputs in the whole plan; by default those of the Step.
        part: the part of a network that it belongs to.
        layouts: the strides of its inputs, None for a contiguous one; by default all are contiguous.
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
        """Return the place of each run of the step in the module: `blocks.0.attn.score`."""
        return tuple([place(path, self.name) for path in (self.path, *self.also)])

    @cached_property
    def inputs(self) -> tuple[Shape, ...]:
        """Return the shapes of the inputs."""
        return tuple([tensor.shape(self.sizes) for tensor in self.step.letters.inputs])

    @cached_property
    def outputs(self) -> tuple[Shape, ...]:
        """Return the shapes of the outputs."""
        return tuple([tensor.shape(self.sizes) for tensor in self.step.letters.outputs])

    @cached_property
    def weights(self) -> dict[str, Shape]:
        """Return the shapes of the parameters, by name."""
        return {name: tensor.shape(self.sizes) for name, tensor in self.step.weight_shapes.items()}

    @cached_property
    def forward(self) -> Forward:
        """Return the costs and allocations of its operation.

        Raises:
            PlanError: the operation cannot run on these tensors, or the shapes of its outputs do not match the letters.
        """
        try:
            weights, sizes = tuple(self.weights.values()), tuple(self.sizes.items())
            return _forward(self.step.op, self.step.pattern, weights, sizes, self.layouts, self.itemsize)
        except Exception as error:
            name = f"step {self.name}" if self.name else "a step"
            raise PlanError(literal(f"{name}, {self.step.pattern}: {self._why(error)}")) from error

    def _why(self, error: Exception) -> str:
        """Return the reason of a failure: letters without a size, or else the message of the error."""
        step = self.step
        tensors = (*step.letters.inputs, *step.letters.outputs, *step.weight_shapes.values())
        if unsized := sorted({letter for tensor in tensors for letter in tensor.letters}.difference(self.sizes)):
            return f"no size for {', '.join(unsized)}; add it to the sizes of the plan"
        return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"

    @property
    def macs(self) -> int:
        """Return the multiply-accumulates of matmuls and convolutions."""
        return self.forward.macs

    @property
    def flops(self) -> int:
        """Return the FLOPs of the MACs, two for each."""
        return 2 * self.forward.macs

    @property
    def other_flops(self) -> int:
        """Return the elementwise FLOPs, by the conventions of `attnscope.ops`."""
        return self.forward.flops

    @cached_property
    def params(self) -> int:
        """Return the number of parameters that the step uses."""
        return sum([tensor.elements(self.sizes) for tensor in self.step.weight_shapes.values()])

    @property
    def is_view(self) -> bool:
        """Return whether no operator runs, so that the outputs are views of the input."""
        return not self.forward.runs

    @property
    def is_fused(self) -> bool:
        """Return whether one fused kernel computes the attention."""
        return self.forward.fused_macs > 0

    @property
    def output_bytes(self) -> int:
        """Return the bytes of the outputs, including those of views."""
        return self.itemsize * sum([tensor.elements(self.sizes) for tensor in self.step.letters.outputs])

    @property
    def bytes_read(self) -> int:
        """Return the bytes that its operators read: each input of each operator once; a view reads nothing."""
        return self.forward.bytes_read

    @property
    def bytes_written(self) -> int:
        """Return the bytes that its operators write: each output of each operator once, including hidden copies."""
        return self.forward.bytes_written

    def moved_to(
        self, path: str, also: tuple[str, ...], takes: tuple[str, ...], makes: tuple[str, ...], part: Part | None
    ) -> "SizedStep":
        """Return the same step at another place.

        Args:
            path, also, takes, makes, part: see `SizedStep`.
        """
        moved = object.__new__(SizedStep)  # half the time of a call, in plans that move each step several times
        moved.__dict__.update(self.__dict__, path=path, times=1 + len(also), also=also)
        moved.__dict__.update(takes=takes, makes=makes, part=part)
        return moved

    def laid(self, layouts: tuple[Shape | None, ...]) -> "SizedStep":
        """Return the step with these strides of its inputs; None for a contiguous input."""
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


# Identical blocks, kernels of one attention and points of a comparison share their entries.
@lru_cache(maxsize=4096)
def _forward(
    op: Op,
    pattern: str,
    weights: tuple[Shape, ...],
    sizes: tuple[tuple[str, int], ...],
    layouts: tuple[Shape | None, ...],
    itemsize: int,
) -> Forward:
    """Run an operation on a tape and return its effects.

    Args:
        op: the operation.
        pattern: the pattern of the step.
        weights: the shapes of the parameters.
        sizes: the sizes of the letters.
        layouts: the strides of the inputs, None for a contiguous one.
        itemsize: bytes of one element.

    Raises:
        ValueError: the operation does not return tensors, or their shapes do not match the letters.
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
        raise ValueError(f"the operation must return tensors (got {made!r})")
    found = [each.shape for each in outputs]
    if found != expected:
        raise ValueError(f"the operation must return {_spelled(expected)}, as the letters say (got {_spelled(found)})")
    return forward_of(tape, inputs, parameters, outputs)


def _spelled(shapes: Sequence[Shape]) -> str:
    return ", ".join(map(spell, shapes))


def place(path: str, name: str) -> str:
    """Return the place of a step: the path of its module, then its name."""
    return f"{path}.{name}" if path else name


class Call(NamedTuple):
    """One call of a module.

    Args:
        first: the index of its first run.
        last: the index of its last run.
        holds: the names of the tensors that its forward holds until it returns.
        is_checkpointed: autograd saves only its inputs, and the backward runs it again (gradient checkpointing; Chen et
            al., arXiv 1604.06174).
    """

    first: int
    last: int
    holds: tuple[str, ...] = ()
    is_checkpointed: bool = False


@dataclass(frozen=True)
class Plan:
    """The steps of one run, in order; totals sum each step as often as it runs.

    Identical modules of a network share their steps, at the place of the first module.

    Args:
        sized: the steps.
        runs: the index of the step of each run; steps of identical modules repeat. By default each step runs once, in
            order.
        calls: the calls of modules. During a call, Python holds its arguments and the tensors that its forward holds.
        holds: the names of the tensors that the forward of the whole holds until it returns.
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
        """Return the steps; the inputs of each have the strides with which they were made."""
        return laid_out(self.sized)

    @classmethod
    def of(cls, steps: Sequence[Step], sizes: Sizes, itemsize: int, holds: Sequence[str] = ()) -> "Plan":
        """Return the plan of steps that share the sizes of their letters.

        Args:
            steps: the steps in the order in which they run.
            sizes: the sizes of their letters.
            itemsize: bytes of one element.
            holds: names of tensors that the module's forward holds in a variable until it returns, beyond their last
                use.
        """
        return cls(tuple([SizedStep(step, sizes, itemsize) for step in steps]), holds=tuple(holds))

    @classmethod
    def join(cls, plans: Sequence["Plan"], order: Iterable[int] | None = None) -> "Plan":
        """Join plans that run one after another; tensors with the same name are the same.

        Args:
            plans: pieces of the whole, in the order in which they first run.
            order: the index of the plan of each run; by default each plan runs once, in order.
        """
        starts = list(accumulate([len(plan.sized) for plan in plans], initial=0))
        runs: list[int] = []
        calls: list[Call] = []
        for number in range(len(plans)) if order is None else order:
            plan, now = plans[number], len(runs)
            calls += [call._replace(first=now + call.first, last=now + call.last) for call in plan.calls]
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
        """Return this plan as a piece of a larger plan.

        Args:
            paths: the modules of the whole that run it, in order; an empty path is the whole itself. `join` sets when
                each of them runs.
            takes: the names of its inputs in the whole.
            makes: the names of its outputs in the whole. All other tensors get the first path as a prefix.
            part: the part of the network that it is.
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

    def checkpointed(self) -> "Plan":
        """Return this plan as the call of a module whose tensors the backward recomputes."""
        return replace(self, calls=(*self.calls, Call(0, len(self.runs) - 1, is_checkpointed=True)))

    @cached_property
    def checkpoints(self) -> tuple[Call, ...]:
        """Return the calls that the backward runs again, in their order."""
        return tuple(sorted([call for call in self.calls if call.is_checkpointed]))

    def part(self, call: Call) -> "Plan":
        """Return the runs of one call, as a plan that has all steps; its calls are those within."""
        runs = self.runs[call.first : call.last + 1]
        within = [each for each in self.calls if call.first <= each.first and each.last <= call.last]
        calls = [
            each._replace(first=each.first - call.first, last=each.last - call.first, is_checkpointed=False)
            for each in within
        ]
        return Plan(self.steps, runs, tuple(calls))

    def by_step(self, of_runs: Iterable[Found]) -> list[list[Found]]:
        """Return the values of the runs, grouped by step."""
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
        """Return the bytes of the inputs of the plan: the tensors that a step takes and no earlier step makes."""
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
    """Return the steps; the inputs of each have the strides with which earlier steps made them."""
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
