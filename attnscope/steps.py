"""A step, declared once in axis letters: shapes, cost, memory and meaning follow from it by arithmetic.

    score = Step(
        "q: b h n d, k: b h m d -> scores: b h n m",
        macs="b h n m d", work={"scale": "b h n m"},
        doc="S = q·kᵀ/√d: how much each token looks at each other one",
    )

A Plan is the list of the steps that one Spec runs, in their order, with the sizes of their letters. The method that
computes a step is tied to it by decoration (`@steps.score`); whoever wants to watch a module run puts itself around those
methods with `listening`, and when nobody listens they are the plain methods, at no cost.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, TypeVar

from attnscope.axes import Pattern, Shape, Sizes, Tensor, count, parse_count, parse_pattern, parse_tensor

ELEMENTWISE_FLOPS = {
    "bias": 1,  # an addition
    "scale": 1,  # a multiplication with a number
    "gain": 1,  # a multiplication with a learned factor
    "mask": 1,  # an addition
    "softmax": 5,  # compare for the maximum, subtract it, exponentiate, add to the sum, divide by the sum
    "residual": 1,  # an addition
    "mean": 1,  # an addition
    "layer_norm": 5,  # add to the mean, add to the variance, subtract, divide, scale and shift at once: fvcore's convention
    "normalize": 3,  # square, add to the sum, divide by its root
    "gelu": 5,  # divide by √2, error function, add 1, multiply with x, halve
    "relu": 1,  # compare
    "sigmoid": 4,  # negate, exponentiate, add 1, divide
}
"""FLOPs of one element, for each kind of elementwise work. These never count as MACs."""

FLOAT32_BYTES = 4

Method = TypeVar("Method", bound=Callable[..., Any])
Found = TypeVar("Found")


@dataclass(frozen=True)
class Step:
    """One step of a computation, in axis letters.

    Args:
        pattern: the tensors that go in and come out (see `attnscope.axes`). A tensor that two steps name alike is the
            same tensor: it lives from the step that makes it to the last step that takes it.
        doc: what the step means, in a line.
        macs: multiply-accumulates of matmul-class work.
        work: elementwise work, by kind (a key of ELEMENTWISE_FLOPS): the number of elements.
        weights: parameters that the step uses, by their names in the module: their shapes.
        memory: "new" where the outputs are tensors of their own; "view" where they are the input seen differently;
            "rearrange" where the letters only change places: a view too where they keep their order in memory.
        scratch: elements that the step holds besides its outputs while it runs; of several phases the largest counts.
        transposes: a tensor as it lies in memory, "b m 3 h d": of one of its parts matmul makes a copy, which is in
            `scratch`, with tokens and channels exchanged.
        fused: whether one kernel does it all; what that kernel holds is its own, and not known here.
        saves: which of its tensors the backward needs, by name; they outlive the forward in training.
        keeps: elements that it keeps for the backward besides; None where only its kernel knows.
        keeps_sums: elements that it keeps besides of sums, which are float32 where its own numbers are narrower.
        constants: which of the tensors that it takes never need a gradient, by name.
        passes: tensors that it takes, by name, whose gradient is that of what it makes, as it is or seen differently.
        copied_back: elements of the gradient that comes strided, of which matmul makes a copy before it makes others.
        leaves: elements that its backward leaves behind besides the gradients; less, with a minus, where a gradient is a
            piece of what came.
        back: elements that its backward holds at its fullest moment besides the gradients that it makes; less, with a
            minus, where something is gone before the last of them is made.
    """

    pattern: str
    doc: str = ""
    macs: str = ""
    work: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    memory: str = "new"
    scratch: tuple[str, ...] = ()
    transposes: str = ""
    fused: bool = False
    saves: tuple[str, ...] = ()
    keeps: str | None = ""
    keeps_sums: str = ""
    constants: tuple[str, ...] = ()
    passes: tuple[str, ...] = ()
    copied_back: str = ""
    leaves: str = ""
    back: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        # Everything is read here, so that a slip of the pen shows when the page is imported.
        for text in (
            self.macs,
            self.keeps or "",
            self.keeps_sums,
            *self.work.values(),
            *self.scratch,
            self.copied_back,
            self.leaves,
            self.back,
        ):
            parse_count(text)
        for kind in self.work:
            if kind not in ELEMENTWISE_FLOPS:
                raise ValueError(f"elementwise work {kind!r} has no convention; known: {', '.join(ELEMENTWISE_FLOPS)}")
        if self.memory not in ("new", "view", "rearrange"):
            raise ValueError(f"memory is new, view or rearrange, not {self.memory!r}")
        known = {tensor.name for tensor in (*self.letters.inputs, *self.letters.outputs)}
        if not known.issuperset(self.saves):
            raise ValueError(f"saves {', '.join(self.saves)}, but its tensors are {', '.join(sorted(known))}")

    def __call__(self, method: Method) -> Method:
        """Tie a method to this step: `@steps.score` above `def score(self, q, k)`."""
        method.step = self  # type: ignore[attr-defined]
        method.__doc__ = f"{method.__doc__ or self.doc}\n\n        {self.pattern}\n        "
        return method

    @cached_property
    def letters(self) -> Pattern:
        """The pattern, read."""
        return parse_pattern(self.pattern)

    @cached_property
    def weight_shapes(self) -> dict[str, Tensor]:
        """The shapes of the weights, read."""
        return {name: parse_tensor(axes) for name, axes in self.weights.items()}

    @cached_property
    def saved_places(self) -> tuple[list[int], list[int]]:
        """Which inputs and which outputs the backward needs, by number; a name that it takes and makes is what it takes."""
        (taken, made), saves = (
            ([t.name for t in side] for side in (self.letters.inputs, self.letters.outputs)),
            self.saves,
        )
        return (
            [place for place, name in enumerate(taken) if name in saves],
            [place for place, name in enumerate(made) if name in saves and name not in taken],
        )

    def copying(self, name: str, transposes: str = "") -> "Step":
        """The same step where matmul copies an operand that came strided.

        It holds the copy while it runs, and the backward needs it in place of what came. `transposes` is the tensor in
        which it lies, where the copy exchanges tokens and channels.
        """
        (elements,) = [str(tensor) for tensor in self.letters.inputs if tensor.name == name]
        return replace(
            self,
            scratch=tuple([f"{phase} + {elements}" for phase in self.scratch]) or (elements,),
            transposes=transposes,
            saves=tuple([saved for saved in self.saves if saved != name]),
            keeps=f"{self.keeps} + {elements}" if self.keeps else elements,
        )

    def dropping(self, share: float) -> "Step":
        """The same step where a share of what it makes is dropped out in training: what that keeps is the device's own."""
        return replace(self, keeps=None) if share else self

    def without_bias(self) -> "Step":
        """The same step where its linear layer has no bias."""
        return replace(
            self,
            weights={name: axes for name, axes in self.weights.items() if not name.endswith("bias")},
            work={kind: elements for kind, elements in self.work.items() if kind != "bias"},
            leaves="",
        )


def name_steps(page: MutableMapping[str, Any]) -> None:
    """Give each Step on a page (a module's `globals()`) the name that it is bound to."""
    for name, value in page.items():
        if isinstance(value, Step):
            object.__setattr__(value, "name", name)


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


def step_methods(module_class: type) -> dict[str, Step]:
    """The methods of a class that are tied to a Step, by their names."""
    methods: dict[str, Step] = {}
    for base in reversed(module_class.__mro__):
        methods |= {name: method.step for name, method in vars(base).items() if isinstance(_step(method), Step)}
    return methods


def _step(method: object) -> object:
    return getattr(method, "step", None) if callable(method) else None


Listener = Callable[[str, Any, Step, Callable[..., Any]], Callable[..., Any]]
"""Is given a module's path, the module, a Step and its bound method, and returns what is called in place of the method."""


@contextmanager
def listening(module: Any, listener: Listener) -> Iterator[None]:
    """Put `listener` around every step of `module` and its submodules, for the length of a with block.

    The steps are shadowed on the instances and bared again at the end, also after an error, so that a module to which
    nobody listens pays nothing. A module that is listened to already is a RuntimeError.
    """
    shadowed: list[tuple[dict[str, Any], str]] = []
    try:
        for path, submodule in module.named_modules():
            for name, step in step_methods(type(submodule)).items():
                if name in vars(submodule):
                    raise RuntimeError(f"step {name} of {type(submodule).__name__} is listened to already")
                vars(submodule)[name] = listener(path, submodule, step, getattr(submodule, name))
                shadowed.append((vars(submodule), name))
        yield
    finally:
        for attributes, name in shadowed:
            del attributes[name]
