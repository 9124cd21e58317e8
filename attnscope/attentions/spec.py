"""What can be asked of an attention: the base of every Spec, and the fields from which flags and checks are derived."""

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import Field, asdict, dataclass, field, fields, replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, ClassVar, Self, Union, get_args, get_origin

from attnscope.attentions.complexity import Complexity
from attnscope.core.dtypes import DTYPE_BYTES
from attnscope.core.errors import AttnscopeError, FolderError, PlanError, UsageError, did_you_mean, literal, quoted
from attnscope.core.neighbourhood import Neighbourhood
from attnscope.core.sizes import LARGEST, Ints, Pair, spell_pair
from attnscope.ops.kernels import KERNELS

if TYPE_CHECKING:
    from torch import nn

    from attnscope.plan.plan import Plan


def option(default: Any, help: str, **rules: Any) -> Any:
    """Declare a field of a Spec once: its flag, its help, its default and its simple rules.

    Rules: `low`, `high` and, of a fraction, `below` for numbers (whole numbers are from 1 to LARGEST, others finite, unless
    it says otherwise), `choices` for words, and `shown`, the default as help shows it where None stands for something.
    `group` is the group of flags in which help lists it, "Attention" or for a network "Network" unless it is given.
    `selects` says that it selects a part of a network, and does not change it.
    """
    return field(default=default, metadata={"help": help, **rules})


@dataclass(frozen=True, kw_only=True)
class Spec(ABC):
    """What every attention can be asked. Values are checked on construction; a wrong one is a UsageError.

    A field with a Pair takes a whole number for both or a pair of them.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    SUMMARY: ClassVar[str]
    """The attention in a few words."""
    EXAMPLES: ClassVar[tuple[str, ...]] = ()
    """Commands worth trying."""
    SIZE_FIELD: ClassVar[str]
    """The field that sets the number of tokens."""
    MODULE_FILE: ClassVar[str] = "attention"
    """The file beside the Spec's own that holds the module and its `build(spec)`."""
    SAID: ClassVar[tuple[str, ...]] = ()
    """Fields whose flags a command needs even with the default."""
    IS_PLAIN: ClassVar[bool] = False
    """Whether it is softmax attention and no more, without a position bias or the like: then its neighbourhood names it."""

    batch: int = option(1, "Batch size.")
    qkv_bias: bool = option(True, "Give q, k and v a bias.")
    qk_scale: float | None = option(None, "Multiply q·kᵀ with this.", low=0.0, shown="1/√(dim/heads)")
    attn_drop: float = option(0.0, "Dropout of the attention weights (in training).", low=0.0, below=1.0)
    proj_drop: float = option(0.0, "Dropout of the output (in training).", low=0.0, below=1.0)
    kernel: str = option(
        "eager", f"How attention is computed: {', '.join(KERNELS)}.", choices=tuple(KERNELS), group="Run"
    )
    dtype: str = option("float32", "Tensor dtype.", choices=tuple(DTYPE_BYTES), group="Run")

    def __post_init__(self) -> None:
        for name, declared in own_fields(type(self)).items():
            value = getattr(self, name)
            if value is declared.default:
                continue  # defaults are legal, and most fields stay at theirs
            checked = check_value(declared, value)
            if checked is not value:
                object.__setattr__(self, name, checked)

    @property
    def heads_lie_apart(self) -> bool:
        """Whether what the kernel makes lies head by head, so that merging the heads copies it."""
        return self.kernel in ("eager", "math", "compile")

    @property
    def itemsize(self) -> int:
        """Bytes of one number."""
        return DTYPE_BYTES[self.dtype]

    @property
    @abstractmethod
    def neighbourhood(self) -> Neighbourhood:
        """What a query attends to."""

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the module's input."""

    @classmethod
    def on_grid(cls, grid: Pair, values: Mapping[str, Any]) -> Self:
        """This attention over a grid of tokens, height and width; values of fields that it does not have are left out."""
        own = own_fields(cls)
        size: dict[str, Any] = {cls.SIZE_FIELD: grid if kind(own[cls.SIZE_FIELD]) == Pair else grid[0] * grid[1]}
        return cls(**{name: value for name, value in values.items() if name in own}, **size)

    @classmethod
    def contradictions(cls, given: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The fields among these that cannot stand beside each other, in pairs."""
        return []

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of all that the module's forward takes."""
        return (self.input_shape,)

    def of_size(self, size: int) -> "Spec":
        """The same with `size` in SIZE_FIELD."""
        sized: dict[str, Any] = {self.SIZE_FIELD: size}
        return replace(self, **sized)

    @abstractmethod
    def headline(self) -> list[str]:
        """What the reader should know of this Spec, in words."""

    @abstractmethod
    def closed_form(self) -> dict[str, int]:
        """MACs of each step that has any, as the paper counts them, independently of the steps' letters."""

    @abstractmethod
    def complexity(self) -> Complexity:
        """Return this attention's formula beside that of global attention on the same tokens."""

    def counterpart(self) -> "Spec | None":
        """The attention that this one should be timed against, if there is one."""
        return None

    @abstractmethod
    def next_command(self) -> tuple[str, str]:
        """The command worth typing next, and why."""

    def command(self, **others: Any) -> str:
        """Return the command that explores this Spec, with `others` in place of some fields."""
        asked = replace(self, **others)
        words = ["attnscope", self.name]
        for name, declared in own_fields(type(asked)).items():
            value = getattr(asked, name)
            if value is None or (value == declared.default and name not in self.SAID):
                continue
            flag = name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{flag}" if value else f"--no-{flag}")
            elif isinstance(value, tuple):
                words += [f"--{flag}", spell_pair(value, "x") if kind(declared) == Pair else ",".join(map(str, value))]
            else:
                words += [f"--{flag}", str(value)]
        return " ".join(words)

    def cautions(self) -> list[str]:
        """What might surprise the reader of this Spec, a sentence each."""
        return []

    def plan(self) -> "Plan":
        """Return the steps that this Spec runs, with their sizes: `steps.plan(spec)` of the Spec's folder. No torch.

        Raises:
            FolderError: it returns no plan, a plan without steps, or one with a step that cannot run.
            AttnscopeError: the same in an attention of this package.
        """
        from attnscope.plan.plan import Plan

        plan = self._function("steps", "plan")(self)
        if not isinstance(plan, Plan) or not plan.sized:
            returned = "a plan without steps" if isinstance(plan, Plan) else _spell(plan)
            raise self.fault(f"plan(spec) in steps.py returns {returned}; return Plan.of(steps, sizes, spec.itemsize)")
        if not self.is_built_in():
            try:
                _ = plan.steps  # so that a step that cannot run is found here, where the folder is known
            except PlanError as error:
                raise self.fault(error.args[0]) from error.__cause__
        return plan

    def build(self) -> "nn.Module":
        """Build the module of this Spec, on torch's default device and with torch's default dtype.

        It is `attention.build(spec)` of the Spec's folder, and `network.build(spec)` of a network's.

        Raises:
            FolderError: it returns no module. It is another AttnscopeError for an attention of this package.
        """
        from torch import nn

        module = self._function(self.MODULE_FILE, "build")(self)
        if not isinstance(module, nn.Module):
            raise self.fault(f"build(spec) in {self.MODULE_FILE}.py returns {_spell(module)}; return an nn.Module")
        return module

    @classmethod
    def _function(cls, file: str, name: str) -> Callable[[Self], Any]:
        """Import a function of a file in the folder of this Spec.

        Raises:
            FolderError: the file has no such function. It is another AttnscopeError for an attention of this package.
        """
        function: Callable[[Self], Any] | None = getattr(import_module(f"{cls.home()}.{file}"), name, None)
        if function is None:
            raise cls.fault(f"{file}.py has no function {name}(spec)")
        return function

    @classmethod
    def home(cls) -> str:
        """Return the package that is this Spec's folder: that of the `spec.py` that defines it, or else its base."""
        return next(each.__module__ for each in cls.__mro__ if each.__module__.endswith(".spec")).removesuffix(".spec")

    @classmethod
    def is_built_in(cls) -> bool:
        """Return whether this is an attention of this package."""
        return cls.home().partition(".")[0] == __name__.partition(".")[0]

    @classmethod
    def fault(cls, what: str) -> AttnscopeError:
        """Return the error of a Spec, its steps and its module that contradict each other.

        It names the folder of an attention outside this package. In this package it is a bug.
        """
        if cls.is_built_in():
            return AttnscopeError(f"{what}: please report this as a bug")
        return FolderError(f"{literal(Path(sys.modules[f'{cls.home()}.spec'].__file__ or '').parent)}: {what}")

    def as_dict(self) -> dict[str, Any]:
        """The fields and their values."""
        return asdict(self)


def own_fields(spec: type[Spec]) -> dict[str, Field[Any]]:
    """The fields of a Spec by their names."""
    if spec not in _FIELDS:
        _FIELDS[spec] = {declared.name: declared for declared in fields(spec)}
    return _FIELDS[spec]


_FIELDS: dict[type[Spec], dict[str, Field[Any]]] = {}  # a long range asks again and again


def own_fields_first(spec: type[Spec]) -> list[Field[Any]]:
    """The fields of a Spec, those of the attention itself before those that all have."""
    common = [declared.name for declared in fields(Spec)]
    return sorted(fields(spec), key=lambda declared: declared.name in common)


@lru_cache
def kind(declared: Field[Any]) -> Any:
    """Return the type of a field without its `| None`: one of KINDS."""
    is_union = get_origin(declared.type) in (UnionType, Union)
    arms = [arm for arm in get_args(declared.type) if arm is not type(None)] if is_union else []
    return arms[0] if len(arms) == 1 else declared.type


KINDS = (int, float, bool, str, Pair, Ints)
"""The types that a field can have, each also with `| None`."""


def check_value(declared: Field[Any], value: Any) -> Any:
    """Return the value of one field if it is legal, a pair from a single number.

    Raises:
        UsageError: it is not of the field's type, or breaks its rules.
    """
    name, rules = declared.name, declared.metadata
    if kind(declared) is bool:
        if not isinstance(value, bool):
            raise UsageError(f"{{{name}}} must be true or false (got {value!r})")
    elif kind(declared) is str:
        choices = rules.get("choices")
        if choices is not None and value not in choices:
            raise UsageError(f"{{{name}}} {quoted(value)} is unknown; {did_you_mean(str(value), choices)}")
        if not isinstance(value, str):
            raise UsageError(f"{{{name}}} must be text (got {quoted(value)})")
    elif kind(declared) is float:
        low, high, below = rules.get("low", -math.inf), rules.get("high", math.inf), rules.get("below", math.inf)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not low <= value <= high or not -math.inf < value < below:
            raise UsageError(f"{{{name}}} must be {_range(rules)} (got {quoted(value)})")
        return float(value)
    elif kind(declared) is int:
        _check_size(name, value, rules)
    elif kind(declared) == Ints:
        numbers = tuple(value) if isinstance(value, tuple | list) else (value,)
        if not numbers:
            raise UsageError(f"{{{name}}} is empty; give a whole number for each stage, such as 2,2,6,2")
        for number in numbers:
            _check_size(name, number, rules)
        return numbers
    else:
        sides = value if isinstance(value, tuple | list) else (value, value)
        if len(sides) != 2:
            raise UsageError(f"{{{name}}} must be a whole number or a pair of them (got {value})")
        for side in sides:
            _check_size(name, side, rules)
        return tuple(sides)
    return value


def _range(rules: Mapping[str, Any]) -> str:
    """Return the numbers that the rules of a field allow, in words: `a number of at least 0 and below 1`."""
    known = {"low": "of at least", "high": "of at most", "below": "below"}
    limits = [f"{words} {rules[rule]:g}" for rule, words in known.items() if rule in rules]
    if not limits:
        return "a finite number"
    return f"a number {' and '.join(limits).replace('and of', 'and')}"


def _check_size(name: str, value: object, rules: Mapping[str, Any]) -> None:
    low, high = rules.get("low", 1), rules.get("high", LARGEST)
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(f"{{{name}}} must be a whole number (got {value!r})")
    if value < low:
        raise UsageError(f"{{{name}}} {value} is too small; the smallest is {low}")
    if value > high:
        raise UsageError(f"{{{name}}} {value} is too large; the largest is {high}")


def _spell(returned: object) -> str:
    """Return what a function returned instead of what it should, in words."""
    return "None" if returned is None else f"a value of the type {type(returned).__name__}"
