"""A step, declared once in axis letters: shapes, cost, memory and meaning follow from it by arithmetic.

    score = Step(
        "q: b h n d, k: b h m d -> scores: b h n m",
        macs="b h n m d", work={"scale": "b h n m"},
        doc="S = q·kᵀ/√d: how much each token looks at each other one",
    )

The method that computes a step is tied to it by decoration (`@steps.score`), and stays a plain method. What a step comes to
in numbers is in `attnscope.plan`, and how a module is watched step by step in `attnscope.profiling.hooks`.
"""

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

from attnscope.core.axes import Pattern, Tensor, parse_count, parse_pattern, parse_tensor

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

Method = TypeVar("Method", bound=Callable[..., Any])


@dataclass(frozen=True)
class Step:
    """One step of a computation, in axis letters.

    Args:
        pattern: the tensors that go in and come out (see `attnscope.core.axes`). A tensor that two steps name alike is the
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
