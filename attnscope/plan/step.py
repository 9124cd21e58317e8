"""A step, declared once in axis letters: shapes, costs, memory and documentation follow from it by arithmetic.

    score = Step(
        "q: b h n d, k: b h m d -> attn: b h n m", op=matmul(scale=True),
        doc="S = q·kᵀ/√d: how much each token attends to each other",
    )

The operation is named; the registry (`attnscope.ops`) knows the rest. The method that computes a step is tied to it by
decoration (`@steps.score`) and stays a plain method. What a step comes to in numbers is in `attnscope.plan.plan`.
"""

import re
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

from attnscope.core.axes import Pattern, Tensor, parse_pattern, parse_tensor
from attnscope.ops.recipes import Op, dropout

Method = TypeVar("Method", bound=Callable[..., Any])


@dataclass(frozen=True)
class Step:
    """One step of a computation, in axis letters.

    Args:
        pattern: the tensors that go in and come out (see `attnscope.core.axes`). A tensor that two steps name alike is the
            same tensor: it lives from the step that makes it to the last step that takes it.
        op: what it computes, from `attnscope.ops.recipes` or a function of the same form.
        weights: parameters that the step uses, by their names in the module: their shapes. The operation takes them in this
            order.
        doc: what the step means, in a line.
        why: why the step is there, in a line.
        constants: which of the tensors that it takes never need a gradient, by name.
        name: the name that it is bound to on its page.

    Raises:
        AxisError: a pattern that cannot be read.
        TypeError: an operation that is not a function.
    """

    pattern: str
    op: Op
    weights: Mapping[str, str] = field(default_factory=dict)
    doc: str = ""
    why: str = field(default="", kw_only=True)
    constants: tuple[str, ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        # Both are checked here, so that a mistake shows when the page is imported.
        if not callable(self.op):
            raise TypeError(
                f"op is {self.op!r}; give an operation of attnscope.ops.recipes, or a function of that form"
            )
        known = {tensor.name for tensor in self.letters.inputs}
        if not known.issuperset(self.constants):
            raise ValueError(f"constants {', '.join(self.constants)}, but it takes {', '.join(sorted(known))}")
        _ = self.weight_shapes

    def __call__(self, method: Method) -> Method:
        """Tie a method to this step: `@steps.score` above `def score(self, q, k)`."""
        method.step = self  # type: ignore[attr-defined]
        method.__doc__ = f"{method.__doc__ or self.doc}\n\n        {self.pattern}\n        "
        return method

    @cached_property
    def letters(self) -> Pattern:
        """The pattern, parsed."""
        return parse_pattern(self.pattern)

    @cached_property
    def weight_shapes(self) -> dict[str, Tensor]:
        """The shapes of the weights, parsed."""
        return {name: parse_tensor(axes) for name, axes in self.weights.items()}

    def dropping(self, share: float) -> "Step":
        """Return the step with dropout behind it, if there is any."""
        return replace(self, op=dropout(self.op)) if share else self

    def without_bias(self) -> "Step":
        """Return the step where its linear layer has no bias."""
        return replace(self, weights={name: axes for name, axes in self.weights.items() if not name.endswith("bias")})

    def spelled(self, **letters: str) -> "Step":
        """Return the step with other letters for some of its own: `step.spelled(n="y x")` for tokens on a grid."""

        def spell(text: str) -> str:
            parts = re.split(r"(\([^()]*\))", text)
            return "".join([_spelled(part, letters, in_group=part.startswith("(")) for part in parts])

        return replace(
            self,
            pattern=spell(self.pattern),
            weights={name: spell(axes) for name, axes in self.weights.items()},
        )


def _spelled(text: str, letters: Mapping[str, str], in_group: bool) -> str:
    def letter(match: re.Match[str]) -> str:
        other = letters.get(match[0], match[0])
        return other.strip("()") if in_group else other

    return re.sub(r"\b[a-z]\b(?!:)", letter, text)


def name_steps(page: MutableMapping[str, Any]) -> None:
    """Give each Step on a page (a module's `globals()`) the name that it is bound to."""
    for name, value in page.items():
        if isinstance(value, Step):
            object.__setattr__(value, "name", name)
