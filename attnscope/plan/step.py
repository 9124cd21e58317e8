"""Steps, declared in axis letters; shapes, costs, memory and documentation follow from the declaration by arithmetic.

    score = Step(
        "q: b h n d, k: b h m d -> attn: b h n m", op=scaled_matmul(),
        doc="S = q·kᵀ/√d: the score of each query-key pair",
    )

A step names its operation, whose costs are in the registry (`attnscope.ops`). The decorator `@steps.score` ties a
method to the step; the method stays a plain method. `attnscope.plan.plan` computes shapes and costs from steps and
sizes.
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
        pattern: its inputs and outputs (see `attnscope.core.axes`). Tensors of the same name in two steps are the same
            tensor. It lives from the step that makes it to the last step that uses it.
        op: its operation, from `attnscope.ops.recipes` or a function of the same form.
        weights: the shapes of its parameters by their names in the module, in the order in which the operation takes
            them.
        doc: its meaning, in one line.
        why: the reason why it is there, in one line.
        constants: the names of inputs that never need a gradient.
        name: the name of the variable that holds it in `steps.py`.

    Raises:
        AxisError: the pattern or the shape of a weight cannot be parsed.
        TypeError: the operation is not callable.
        ValueError: a constant is not an input.
    """

    pattern: str
    op: Op
    weights: Mapping[str, str] = field(default_factory=dict)
    doc: str = ""
    why: str = field(default="", kw_only=True)
    constants: tuple[str, ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        # Check all arguments here, so that importing steps.py reports a mistake.
        if not callable(self.op):
            raise TypeError(
                "op must be an operation of attnscope.ops.recipes or a function of the same form, "
                f"op(tape, operands) (got {self.op!r})"
            )
        names = {tensor.name for tensor in self.letters.inputs}
        if not names.issuperset(self.constants):
            wrong = ", ".join([name for name in self.constants if name not in names])
            raise ValueError(f"constants must be inputs of the step (got {wrong}); inputs: {', '.join(sorted(names))}")
        _ = self.weight_shapes

    def __call__(self, method: Method) -> Method:
        """Set this step as the step of a method: `@steps.score` above `def score(self, q, k)`."""
        method.step = self  # type: ignore[attr-defined]
        method.__doc__ = f"{method.__doc__ or self.doc}\n\n        {self.pattern}\n        "
        return method

    @cached_property
    def letters(self) -> Pattern:
        """Return the parsed pattern."""
        return parse_pattern(self.pattern)

    @cached_property
    def weight_shapes(self) -> dict[str, Tensor]:
        """Return the parsed shapes of the weights."""
        return {name: parse_tensor(axes) for name, axes in self.weights.items()}

    def dropping(self, share: float) -> "Step":
        """Return the step followed by dropout, or the step itself if the dropout probability is 0."""
        return replace(self, op=dropout(self.op)) if share else self

    def without_bias(self) -> "Step":
        """Return the step without the bias of its linear layer."""
        return replace(self, weights={name: axes for name, axes in self.weights.items() if not name.endswith("bias")})

    def spelled(self, **letters: str) -> "Step":
        """Return the step with some of its letters replaced: `step.spelled(n="y x")` for tokens on a grid.

        A key can also be a whole group: `step.spelled(**{"(r p)": "(o l) (r p)"})`.
        """

        def spell(text: str) -> str:
            parts = re.split(r"(\([^()]*\))", text)
            return "".join([letters.get(part) or _spelled(part, letters, in_group=part[:1] == "(") for part in parts])

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
    """Set the name of each Step of a module to the name of its variable.

    Args:
        page: the `globals()` of the module.
    """
    for name, value in page.items():
        if isinstance(value, Step):
            object.__setattr__(value, "name", name)
