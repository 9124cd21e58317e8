"""The plan of a run: the steps that a Spec runs, in their order, with the sizes of their letters, and what they come to."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import TypeVar

from attnscope.core.axes import Shape, Sizes, count, parse_tensor
from attnscope.plan.step import ELEMENTWISE_FLOPS, Step

FLOAT32_BYTES = 4

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
    whole that it stands in, the Step's own unless given, and `part` is the part of it that it belongs to.
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
    def layers(self) -> list[Shape]:
        """The shapes of the weights of its linear layers: channels out, then in."""
        return [shape for name, shape in self.weights.items() if name.endswith("weight") and len(shape) > 1]

    @cached_property
    def transposed(self) -> Shape:
        """The shape of the tensor of which it copies a part transposed, () where it does not."""
        return parse_tensor(self.step.transposes).shape(self.sizes) if self.step.transposes else ()

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of matmul-class work."""
        return count(self.step.macs, self.sizes)

    @property
    def flops(self) -> int:
        """Two for each MAC."""
        return 2 * self.macs

    @cached_property
    def other_flops(self) -> int:
        """Elementwise FLOPs, by the convention of ELEMENTWISE_FLOPS."""
        return sum([ELEMENTWISE_FLOPS[kind] * count(text, self.sizes) for kind, text in self.step.work.items()])

    @cached_property
    def params(self) -> int:
        """Parameters that the step uses."""
        return sum([tensor.elements(self.sizes) for tensor in self.step.weight_shapes.values()])

    @cached_property
    def is_view(self) -> bool:
        """Whether the outputs are the input's own memory, so that nothing is read, written or allocated."""
        if self.step.memory != "rearrange":
            return self.step.memory == "view"
        before, after = (
            [letter for tensor in tensors for letter in tensor.letters if self.sizes[letter] > 1]
            for tensors in (self.step.letters.inputs, self.step.letters.outputs)
        )
        return before == after

    @cached_property
    def output_sizes(self) -> tuple[int, ...]:
        """The bytes of each output, whoever owns their memory."""
        return tuple([self.itemsize * tensor.elements(self.sizes) for tensor in self.step.letters.outputs])

    @property
    def output_bytes(self) -> int:
        """The size of the outputs, whoever owns their memory."""
        return sum(self.output_sizes)

    @property
    def bytes_read(self) -> int:
        """Each input and each parameter once; a view reads nothing."""
        if self.is_view:
            return 0
        return self.itemsize * (self.params + sum([tensor.elements(self.sizes) for tensor in self.step.letters.inputs]))

    @property
    def bytes_written(self) -> int:
        """Each output once; a view writes nothing."""
        return 0 if self.is_view else self.output_bytes

    @cached_property
    def scratch_bytes(self) -> int | None:
        """What the step holds besides its inputs and outputs while it runs; None where only its kernel knows."""
        if self.step.fused:
            return None
        phases = [self.itemsize * count(text, self.sizes) for text in self.step.scratch]
        return max([*phases, self.number_bytes])

    @property
    def kept_bytes(self) -> int | None:
        """What it keeps for the backward besides its tensors; None where only its kernel knows."""
        if self.step.keeps is None:
            return None
        sums = max(self.itemsize, FLOAT32_BYTES) * count(self.step.keeps_sums, self.sizes)
        return self.itemsize * count(self.step.keeps, self.sizes) + sums

    @property
    def scales_by_number(self) -> bool:
        """Whether its result is multiplied with a number, in a pass of its own behind a matmul."""
        return "scale" in self.step.work and not self.step.weights and not self.step.fused

    @property
    def number_kept_bytes(self) -> int:
        """What the backward keeps of that number: the double."""
        return 8 if "scale" in self.step.work and not self.step.fused else 0

    def passes_to(self, name: str) -> bool:
        """Whether the gradient of what it makes is that of the tensor with this name, which it takes."""
        if self.step.memory != "rearrange":
            return name in self.step.passes
        strides, stride = {}, 1
        for letter in reversed([letter for tensor in self.step.letters.outputs for letter in tensor.letters]):
            strides[letter], stride = stride, stride * self.sizes[letter]
        # what lies in the letters' order can be seen as these axes where the letters of each lie at even distances
        axes = [
            [letter for letter in axis.letters if self.sizes[letter] > 1] for axis in self.step.letters.inputs[0].axes
        ]
        return all([strides[one] == self.sizes[next] * strides[next] for axis in axes for one, next in pairwise(axis)])

    @property
    def arriving_bytes(self) -> int:
        """What the backward makes of the gradient that comes, before it makes others: scaled by a number, or copied."""
        if self.scales_by_number:
            return self.output_bytes + (0 if self.itemsize == 8 else self.itemsize)
        return self.itemsize * count(self.step.copied_back, self.sizes)

    @property
    def number_bytes(self) -> int:
        """What torch makes of the number by which a result is scaled, and then of the same in the result's type.

        The first is a double, of a mean a whole number; a double that is wanted is there already.
        """
        if "mean" in self.step.work:
            return 8 + self.itemsize
        if "scale" not in self.step.work:
            return 0
        return 8 if self.itemsize == 8 else 8 + self.itemsize


def place(path: str, name: str) -> str:
    """Where a step runs: its name behind the path of its module."""
    return f"{path}.{name}" if path else name


@dataclass(frozen=True)
class Plan:
    """The steps of one run, in their order; totals are sums over them, each row as often as it stands there.

    Identical modules of a network are one, in the place of the first of them. `runs` tells which step runs when, by its
    number, those of identical modules again and again: each once, in their order, unless given. `calls` are the first and
    the last run of each module that is called: as long as it runs, Python holds what it was given.
    """

    steps: tuple[SizedStep, ...]
    runs: tuple[int, ...] = ()
    calls: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if not self.runs:
            object.__setattr__(self, "runs", tuple(range(len(self.steps))))

    @classmethod
    def of(cls, steps: list[Step], sizes: Sizes, itemsize: int) -> "Plan":
        """Steps that share the sizes of their letters."""
        return cls(tuple([SizedStep(step, sizes, itemsize) for step in steps]))

    @classmethod
    def join(cls, plans: Sequence["Plan"], order: Iterable[int] | None = None) -> "Plan":
        """One plan after the other; tensors with the same name are the same.

        Args:
            plans: pieces of the whole, in the order in which they first run.
            order: which of them runs when, by its number; each once unless given.
        """
        starts = list(accumulate([len(plan.steps) for plan in plans], initial=0))
        runs: list[int] = []
        calls: list[tuple[int, int]] = []
        for number in range(len(plans)) if order is None else order:
            plan, now = plans[number], len(runs)
            calls += [(now + first, now + last) for first, last in plan.calls]
            runs += [starts[number] + step for step in plan.runs]
        return cls(tuple([step for plan in plans for step in plan.steps]), tuple(runs), tuple(calls))

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
        outside, inner = dict(takes or {}), dict(makes or {})
        made: set[str] = set()
        steps = []
        for step in self.steps:
            names_in = tuple(
                [(inner if name in made else outside).get(name) or place(paths[0], name) for name in step.takes]
            )
            made.update(step.makes)
            steps.append(
                SizedStep(
                    step.step,
                    step.sizes,
                    step.itemsize,
                    _within(paths[0], step.path),
                    len(paths) * step.times,
                    tuple([_within(path, own) for path in paths for own in (step.path, *step.also)][1:]),
                    names_in,
                    tuple([inner.get(name) or place(paths[0], name) for name in step.makes]),
                    part or step.part,
                )
            )
        calls = (*self.calls, (0, len(self.runs) - 1)) if paths[0] else self.calls
        return Plan(tuple(steps), self.runs, calls)

    def by_step(self, of_runs: Iterable[Found]) -> list[list[Found]]:
        """What was found of each run, that of a step's several runs together."""
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
