"""Options of an attention: the base class of every Spec, and the fields from which flags and checks are derived."""

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, asdict, dataclass, field, fields, replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, ClassVar, Self, Union, get_args, get_origin

from attnscope.attentions.complexity import Complexity
from attnscope.attentions.observed import Observed
from attnscope.core.dtypes import DTYPE_BYTES, SYNONYMS
from attnscope.core.errors import AttnscopeError, FolderError, PlanError, UsageError, did_you_mean, literal, quoted
from attnscope.core.neighbourhood import Neighbourhood
from attnscope.core.reading import integer, ints, number, sides, switch
from attnscope.core.sizes import (
    LARGEST,
    Ints,
    Pair,
    Triple,
    count_sides,
    spell_sides,
)
from attnscope.ops.kernels import KERNELS

if TYPE_CHECKING:
    from torch import nn

    from attnscope.plan.plan import Plan


def option(default: Any, help: str, **rules: Any) -> Any:
    """Declare a field of a Spec: its default, its help text and its rules, from which its flag is derived.

    Args:
        default: default value.
        help: help text of the flag, one short line.
        rules: any of the following.

            - `low` and `high`: inclusive bounds of a number; by default 1 and LARGEST for integers.
            - `below`: exclusive upper bound of a float. All floats must be finite.
            - `choices`: allowed values of text.
            - `synonyms`: other words for some choices, by the word; errors suggest the choice.
            - `shown`: default shown by `--help` if the default None has a meaning.
            - `group`: group of flags in `--help`, by default "Attention", or "Network" for a network.
            - `selects`: whether the field selects a part of a network without changing the network.
            - `follows`: name of the field whose value this one takes in a comparison that sets only that one.
    """
    return field(default=default, metadata={"help": help, **rules})


FRAMES = "frames"
"""The number of frames of a comparison, among the values from which `Spec.on_grid` builds."""


@dataclass(frozen=True, kw_only=True)
class Spec(ABC):
    """Options of an attention; base class of the Specs of all attentions.

    A field of type Pair or Triple accepts an integer for all sides, or an integer for each side.

    Raises:
        UsageError: if a value is invalid.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    SUMMARY: ClassVar[str]
    """One-line description of the attention."""
    EXAMPLES: ClassVar[tuple[str, ...]] = ()
    """Example commands for `--help`."""
    SIZE_FIELD: ClassVar[str]
    """Field that sets the number of tokens."""
    MODULE_FILE: ClassVar[str] = "attention"
    """File in the Spec's folder with the module and its `build(spec)`."""
    SAID: ClassVar[tuple[str, ...]] = ()
    """Fields whose flags a command includes even for the default."""
    LOOKS_AT: ClassVar[str] = ""
    """The keys of a query in words, for `--explain`."""
    GIVES_UP: ClassVar[str] = ""
    """The limits of the attention compared with global attention, for `--explain`."""
    PAPER: ClassVar[str] = ""
    """Authors, title and arXiv number of the paper, for `--explain`."""
    PICTURED: ClassVar[tuple[str, ...]] = ()
    """Fields on which the neighbourhood depends, in addition to SIZE_FIELD; they are flags of its picture."""
    WITHOUT_BLOCK: ClassVar[str] = ""
    """Reason why this attention has no block of norm, attention, residual, norm, MLP and residual; empty if it has one."""
    CHANNEL_AXIS: ClassVar[int] = -1
    """Axis of the channels in the input and the output; 1 for a module that takes channels first."""
    IS_PLAIN: ClassVar[bool] = False
    """A flag: this is softmax attention without extras such as a position bias; its neighbourhood alone then names it."""

    batch: int = option(1, "Batch size.")
    qkv_bias: bool = option(True, "Add a bias to q, k and v.")
    qk_scale: float | None = option(None, "Scale of q·kᵀ.", low=0.0, shown="1/√(dim/heads)")
    attn_drop: float = option(0.0, "Dropout probability of the attention weights (training only).", low=0.0, below=1.0)
    proj_drop: float = option(0.0, "Dropout probability of the output (training only).", low=0.0, below=1.0)
    kernel: str = option("eager", f"Attention kernel: {', '.join(KERNELS)}.", choices=tuple(KERNELS), group="Run")
    dtype: str = option("float32", "Tensor dtype.", choices=tuple(DTYPE_BYTES), synonyms=SYNONYMS, group="Run")

    def __post_init__(self) -> None:
        for name, declared in own_fields(type(self)).items():
            value = getattr(self, name)
            if value is declared.default:
                continue  # defaults are valid
            checked = check_value(declared, value)
            if checked is not value:
                object.__setattr__(self, name, checked)

    @property
    def heads_lie_apart(self) -> bool:
        """Return whether the kernel's output is contiguous by head, so that merging the heads copies it."""
        return self.kernel in ("eager", "math", "compile")

    def is_in(self, library: str) -> bool:
        """Return whether a library has these options, and `attnscope.networks.operations` knows how it calls the steps."""
        return True

    @property
    def code(self) -> str:
        """Return the name of the code that builds it, as `attnscope.networks.operations` knows it; by default its own."""
        return self.name

    @property
    def drops(self) -> bool:
        """Return whether training has dropout."""
        return self.attn_drop > 0 or self.proj_drop > 0

    @property
    def itemsize(self) -> int:
        """Return the size of an element in bytes."""
        return DTYPE_BYTES[self.dtype]

    @property
    @abstractmethod
    def neighbourhood(self) -> Neighbourhood:
        """Return the keys that each query attends to."""

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of the module's input."""

    @classmethod
    def on_grid(cls, grid: Pair, values: Mapping[str, Any]) -> Self:
        """Build a Spec for a grid of tokens, (height, width), and ignore values of fields that it does not have.

        The value FRAMES makes a video of it. A video attention then has a volume, and a sequence has the tokens of all
        frames. An attention with two axes takes each frame as an image of its own, so that its batch is larger. Without
        FRAMES, a video attention has a single frame. A pair for a field with three sides keeps the default of the time.
        """
        own, frames = own_fields(cls), values.get(FRAMES, 1)
        size = cls._size(own[cls.SIZE_FIELD], grid, frames)
        given = {**values, cls.SIZE_FIELD: size}
        for name, declared in own.items():
            followed = str(declared.metadata.get("follows"))
            if followed in values and name not in values:
                given[name] = values[followed]
        if frames > 1 and size == grid:
            given["batch"] = frames * values.get("batch", own["batch"].default)
        return cls(**{name: _with_time(own[name], value) for name, value in given.items() if name in own})

    @classmethod
    def is_of_video(cls) -> bool:
        """Return whether the grid has an axis of time."""
        return count_sides(kind(own_fields(cls)[cls.SIZE_FIELD])) == len(get_args(Triple))

    @classmethod
    def _size(cls, declared: Field[Any], grid: Pair, frames: int) -> int | Pair | Triple:
        """Return the value of SIZE_FIELD for this number of frames, each with this grid."""
        if cls.is_of_video():
            return frames, *grid
        return grid if count_sides(kind(declared)) else frames * math.prod(grid)

    @classmethod
    def candidates(cls, seen: Observed) -> Iterable[dict[str, Any]]:
        """Yield the fields of Specs that could describe an attention observed in a third-party module; by default none.

        `trace` keeps the first Spec that is valid and has the MACs of the module, so that sizes need no checks here.
        """
        return ()

    @classmethod
    def contradictions(cls, given: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return the pairs of given fields that contradict each other."""
        return []

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Return the shapes of all inputs of the module's forward."""
        return (self.input_shape,)

    def of_size(self, size: int) -> "Spec":
        """Return a copy with SIZE_FIELD set to `size`."""
        sized: dict[str, Any] = {self.SIZE_FIELD: size}
        return replace(self, **sized)

    @abstractmethod
    def headline(self) -> list[str]:
        """Describe this Spec in a few words each."""

    @abstractmethod
    def closed_form(self) -> dict[str, int]:
        """Return the MACs of each step with MACs, by the paper's formula and independent of the steps' shapes."""

    @abstractmethod
    def complexity(self) -> Complexity:
        """Return the formulas of this attention and of global attention on the same tokens."""

    def about(self) -> dict[str, str]:
        """Return what the attention looks at, costs and gives up, and its paper, as far as the class says so."""
        if not self.LOOKS_AT:
            return {}
        own = self.complexity().own
        costs = f"{own.name} = {own.formula} MACs in a layer, for one image"
        said = {"looks at": self.LOOKS_AT, "costs": costs, "gives up": self.GIVES_UP, "paper": self.PAPER}
        return {name: words for name, words in said.items() if words}

    def counterpart(self) -> "Spec | None":
        """Return the attention to time as a baseline, or None."""
        return None

    @abstractmethod
    def next_command(self) -> tuple[str, str]:
        """Return the suggested next command and the reason for it."""

    def command(self, **others: Any) -> str:
        """Return the command that explores this Spec, with some fields replaced by `others`."""
        spec = replace(self, **others)
        return " ".join(["attnscope", self.name, *flags_of(type(spec), vars(spec))])

    def cautions(self) -> list[str]:
        """Return notes about effects of this Spec that a user may not expect, one sentence each."""
        return []

    def plan(self) -> "Plan":
        """Return the steps that this Spec runs, with their sizes, without importing torch.

        It calls `steps.plan(spec)` of the Spec's folder.

        Raises:
            FolderError: if the function does not return a plan, or if the plan has no steps or a step that cannot run.
            AttnscopeError: if the same happens in an attention of this package.
        """
        from attnscope.plan.plan import Plan

        plan = self._function("steps", "plan")(self)
        if not isinstance(plan, Plan) or not plan.sized:
            returned = "a plan without steps" if isinstance(plan, Plan) else _spell(plan)
            raise self.fault(f"plan(spec) in steps.py returns {returned}; return Plan.of(steps, sizes, spec.itemsize)")
        if not self.is_built_in():
            try:
                _ = plan.steps  # finds a step that cannot run while the folder is known
            except PlanError as error:
                raise self.fault(error.args[0]) from error.__cause__
        return plan

    def build(self) -> "nn.Module":
        """Build the module of this Spec on torch's default device, with torch's default dtype.

        It calls `attention.build(spec)` of the Spec's folder, or `network.build(spec)` for a network.

        Raises:
            FolderError: if the function does not return a module.
            AttnscopeError: if the same happens in an attention of this package.
        """
        from torch import nn

        module = self._function(self.MODULE_FILE, "build")(self)
        if not isinstance(module, nn.Module):
            raise self.fault(f"build(spec) in {self.MODULE_FILE}.py returns {_spell(module)}; return an nn.Module")
        return module

    @classmethod
    def _function(cls, file: str, name: str) -> Callable[[Self], Any]:
        """Import a function from a file in the folder of this Spec.

        Raises:
            FolderError: if the file does not define the function.
            AttnscopeError: if the same happens in an attention of this package.
        """
        function: Callable[[Self], Any] | None = getattr(import_module(f"{cls.home()}.{file}"), name, None)
        if function is None:
            raise cls.fault(f"{file}.py has no function {name}(spec)")
        return function

    @classmethod
    def home(cls) -> str:
        """Return the package of the `spec.py` that defines this Spec or its nearest base class."""
        return next(each.__module__ for each in cls.__mro__ if each.__module__.endswith(".spec")).removesuffix(".spec")

    @classmethod
    def is_built_in(cls) -> bool:
        """Return whether this is an attention of this package."""
        return cls.home().partition(".")[0] == __name__.partition(".")[0]

    @classmethod
    def fault(cls, problem: str) -> AttnscopeError:
        """Return the error for a contradiction between a Spec, its steps and its module.

        It names the folder of an attention outside this package; within this package it asks for a bug report.
        """
        if cls.is_built_in():
            return AttnscopeError(f"{problem}: please report this as a bug")
        return FolderError(f"{literal(Path(sys.modules[f'{cls.home()}.spec'].__file__ or '').parent)}: {problem}")

    def as_dict(self) -> dict[str, Any]:
        """Return the values of all fields by name."""
        return asdict(self)


def own_fields(spec: type[Spec]) -> dict[str, Field[Any]]:
    """Return the fields of a Spec by name."""
    if spec not in _FIELDS:
        _FIELDS[spec] = {declared.name: declared for declared in fields(spec)}
    return _FIELDS[spec]


_FIELDS: dict[
    type[Spec], dict[str, Field[Any]]
] = {}  # a cache: comparisons over a long range look fields up many times


def own_fields_first(spec: type[Spec]) -> list[Field[Any]]:
    """Return the fields of a Spec, those of the attention itself before those of all attentions."""
    common = [declared.name for declared in fields(Spec)]
    return sorted(fields(spec), key=lambda declared: declared.name in common)


def flags_of(spec: type[Spec], values: Mapping[str, Any]) -> list[str]:
    """Return the flags that set values of fields, without defaults, except those that a command always includes."""
    words = []
    for name, declared in own_fields(spec).items():
        value = values.get(name)
        if value is None or (value == declared.default and name not in spec.SAID):
            continue
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", spell_value(declared, value)]
    return words


def spell_value(declared: Field[Any], value: Any) -> str:
    """Return a value of a field as text that `reader_of` reads: `56x48`, `2,2,6,2`, `on`."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return spell_sides(value, "x") if count_sides(kind(declared)) else ",".join(map(str, value))
    return str(value)


def reader_of(declared: Field[Any]) -> Callable[[Any], Any]:
    """Return a reader of typed values of a field, which checks only their type."""
    base = kind(declared)
    if (count := count_sides(base)) is not None:
        return sides(declared.name, count)
    readers: Mapping[Any, Any] = {int: integer, float: number, bool: switch, Ints: ints}
    return readers[base](declared.name) if base in readers else str


@lru_cache
def kind(declared: Field[Any]) -> Any:
    """Return the type of a field without its `| None`: one of KINDS."""
    is_union = get_origin(declared.type) in (UnionType, Union)
    arms = [arm for arm in get_args(declared.type) if arm is not type(None)] if is_union else []
    return arms[0] if len(arms) == 1 else declared.type


KINDS = (int, float, bool, str, Pair, Triple, Ints)
"""Supported field types; each of them can be combined with `| None`."""


def check_value(declared: Field[Any], value: Any) -> Any:
    """Return the value of a field if it is valid; expand a single number to all sides of a Pair or a Triple.

    Raises:
        UsageError: if the value does not have the field's type, or violates its rules.
    """
    name, rules = declared.name, declared.metadata
    if kind(declared) is bool:
        if not isinstance(value, bool):
            raise UsageError(f"{{{name}}} must be true or false (got {value!r})")
    elif kind(declared) is str:
        choices = rules.get("choices")
        if choices is not None and value not in choices:
            fix = did_you_mean(str(value), choices, synonyms=rules.get("synonyms", {}))
            raise UsageError(f"{{{name}}} {quoted(value)} is unknown; {fix}")
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
            raise UsageError(f"{{{name}}} must have at least one integer (got none)")
        for number in numbers:
            _check_size(name, number, rules)
        return numbers
    else:
        count = count_sides(kind(declared))
        assert count is not None, "the contract of a Spec allows no other type"
        sides = tuple(value) if isinstance(value, tuple | list) else (value,) * count
        if len(sides) != count:
            words = {2: "a pair of integers"}.get(count, f"{count} integers")
            raise UsageError(f"{{{name}}} must be an integer or {words} (got {value})")
        for side in sides:
            _check_size(name, side, rules)
        return sides
    return value


def _with_time(declared: Field[Any], value: Any) -> Any:
    """Return a value of a comparison; a pair for a field of type Triple gets the time of the default, else the lowest."""
    count, default = count_sides(kind(declared)), declared.default
    if not count or not isinstance(value, tuple) or len(value) == count:
        return value
    time = default[0] if isinstance(default, tuple) else declared.metadata.get("low", 1)
    return (time, *value)


def _range(rules: Mapping[str, Any]) -> str:
    """Return the values that the rules of a field allow, as a phrase: `a number of at least 0 and below 1`."""
    phrases = {"low": "of at least", "high": "of at most", "below": "below"}
    limits = [f"{words} {rules[rule]:g}" for rule, words in phrases.items() if rule in rules]
    if not limits:
        return "a finite number"
    if "low" in rules and "high" in rules:
        return f"a number between {rules['low']:g} and {rules['high']:g}"
    return f"a number {' and '.join(limits).replace('and of', 'and')}"


def _check_size(name: str, value: object, rules: Mapping[str, Any]) -> None:
    low, high = rules.get("low", 1), rules.get("high", LARGEST)
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(f"{{{name}}} must be an integer (got {value!r})")
    if value < low:
        raise UsageError(f"{{{name}}} must be at least {low} (got {value})")
    if value > high:
        raise UsageError(f"{{{name}}} must be at most {high} (got {value})")


def _spell(returned: object) -> str:
    """Describe a return value of the wrong type."""
    return "None" if returned is None else f"a value of the type {type(returned).__name__}"
