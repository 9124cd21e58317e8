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

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

from attnscope.axes import Pattern, Shape, Sizes, Tensor, count, parse_count, parse_pattern, parse_tensor

ELEMENTWISE_FLOPS = {
    "bias": 1,  # an addition
    "scale": 1,  # a multiplication
    "mask": 1,  # an addition
    "softmax": 5,  # compare for the maximum, subtract it, exponentiate, add to the sum, divide by the sum
}
"""FLOPs of one element, for each kind of elementwise work. These never count as MACs."""

Method = TypeVar("Method", bound=Callable[..., Any])


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
        fused: whether one kernel does it all; what that kernel holds is its own, and not known here.
    """

    pattern: str
    doc: str = ""
    macs: str = ""
    work: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    memory: str = "new"
    scratch: tuple[str, ...] = ()
    fused: bool = False
    name: str = ""

    def __post_init__(self) -> None:
        # Everything is read here, so that a slip of the pen shows when the page is imported.
        for text in (self.macs, *self.work.values(), *self.scratch):
            parse_count(text)
        for kind in self.work:
            if kind not in ELEMENTWISE_FLOPS:
                raise ValueError(f"elementwise work {kind!r} has no convention; known: {', '.join(ELEMENTWISE_FLOPS)}")
        if self.memory not in ("new", "view", "rearrange"):
            raise ValueError(f"memory is new, view or rearrange, not {self.memory!r}")
        assert self.letters  # reads the pattern and the weights

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

    def without_bias(self) -> "Step":
        """The same step where its linear layer has no bias."""
        return replace(
            self,
            weights={name: axes for name, axes in self.weights.items() if not name.endswith(".bias")},
            work={kind: elements for kind, elements in self.work.items() if kind != "bias"},
        )


def name_steps(page: MutableMapping[str, Any]) -> None:
    """Give each Step on a page (a module's `globals()`) the name that it is bound to."""
    for name, value in page.items():
        if isinstance(value, Step):
            object.__setattr__(value, "name", name)


@dataclass(frozen=True)
class SizedStep:
    """A Step with the sizes of its letters: what one call of it takes, makes and costs.

    `path` is the module that runs it ("" for the outermost), `itemsize` the bytes of one element, `times` how often the
    row stands in the network.
    """

    step: Step
    sizes: Sizes
    itemsize: int = 4
    path: str = ""
    times: int = 1

    @property
    def name(self) -> str:
        return self.step.name

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
    def output_bytes(self) -> int:
        """The size of the outputs, whoever owns their memory."""
        return self.itemsize * sum([tensor.elements(self.sizes) for tensor in self.step.letters.outputs])

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
        if "scale" in self.step.work:
            # the result is scaled in place, by a number of which torch makes a tensor: a double, then one of its type
            phases.append(8 if self.itemsize == 8 else 8 + self.itemsize)
        return max(phases, default=0)


@dataclass(frozen=True)
class Plan:
    """The steps of one run, in their order; totals are sums over them, each row as often as it stands there."""

    steps: tuple[SizedStep, ...]

    @classmethod
    def of(cls, steps: list[Step], sizes: Sizes, itemsize: int) -> "Plan":
        """Steps that share the sizes of their letters."""
        return cls(tuple([SizedStep(step, sizes, itemsize) for step in steps]))

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
            for tensor in step.step.letters.inputs:
                if tensor.name not in made:
                    outside[tensor.name] = step.itemsize * tensor.elements(step.sizes)
            made |= {tensor.name for tensor in step.step.letters.outputs}
        return sum(outside.values())

    @cached_property
    def _live(self) -> tuple[tuple[int, int | None], ...]:
        """For each step, the bytes of all tensors that live while it runs, and these with its scratch, where known."""
        owners, last_use, sizes = self._ownership()
        made: set[int] = set()
        live = []
        for index, step in enumerate(self.steps):
            held = sum([sizes[owner] for owner in made if last_use[owner] >= index])
            made |= owners[index]
            tensors = held + sum([sizes[owner] for owner in owners[index]])
            live.append((tensors, None if step.scratch_bytes is None else tensors + step.scratch_bytes))
        return tuple(live)

    @property
    def live_bytes(self) -> tuple[int | None, ...]:
        """For each step, the bytes that the forward holds at its fullest moment, beyond its input and its parameters.

        A tensor lives from the step that makes it to the last step that takes it, or a view of it. None where a fused
        kernel holds what only it knows. Workspaces of the processor's matmul library, which it takes for bfloat16 and
        float16, are not in it.
        """
        return tuple([live for _, live in self._live])

    @property
    def peak_bytes(self) -> int | None:
        """The most bytes that the forward holds at once, beyond its input and its parameters; None where not known."""
        known = [live for live in self.live_bytes if live is not None]
        return max(known) if len(known) == len(self.steps) else None

    @property
    def least_peak_bytes(self) -> int:
        """What the forward holds at once at the least: its tensors, without what a fused kernel takes."""
        return max([tensors for tensors, _ in self._live])

    def _ownership(self) -> tuple[list[set[int]], dict[int, int], list[int]]:
        """Who owns memory: the owners that each step makes, the last step that uses each, and their bytes."""
        owner_of: dict[str, int | None] = {}
        owners: list[set[int]] = []
        last_use: dict[int, int] = {}
        sizes: list[int] = []
        for index, step in enumerate(self.steps):
            taken = [owner_of.get(tensor.name) for tensor in step.step.letters.inputs]
            last_use |= {owner: index for owner in taken if owner is not None}
            owners.append(set())
            for tensor in step.step.letters.outputs:
                if step.is_view:
                    owner_of[tensor.name] = taken[0]
                    continue
                owner_of[tensor.name] = owner = len(sizes)
                sizes.append(step.itemsize * tensor.elements(step.sizes))
                owners[index].add(owner)
                last_use[owner] = index
        return owners, last_use, sizes


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
