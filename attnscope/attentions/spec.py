"""What can be asked of an attention: the base of every Spec, and the fields from which flags and checks are derived."""

import math
from collections.abc import Callable, Mapping
from dataclasses import Field, asdict, dataclass, field, fields, replace
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Self, get_args

from attnscope.attentions.complexity import Complexity
from attnscope.core.dtypes import DTYPE_BYTES
from attnscope.core.errors import AttnscopeError, UsageError, did_you_mean, quoted
from attnscope.core.neighbourhood import Neighbourhood
from attnscope.core.sizes import LARGEST, Ints, Pair
from attnscope.ops.kernels import KERNELS

if TYPE_CHECKING:
    from torch import nn

    from attnscope.plan.plan import Plan


def option(default: Any, help: str, **rules: Any) -> Any:
    """Declare a field of a Spec once: its flag, its help, its default and its simple rules.

    Rules: `low`, `high` and, of a fraction, `below` for numbers (sizes are whole numbers from 1 to LARGEST unless it says
    otherwise), `choices`, and `shown`, the default as help shows it where None stands for something.
    """
    return field(default=default, metadata={"help": help, **rules})


@dataclass(frozen=True, kw_only=True)
class Spec:
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
    IS_PLAIN: ClassVar[bool] = False
    """Whether it is softmax attention and no more, without a position bias or the like: then its neighbourhood names it."""

    batch: int = option(1, "Images at a time.")
    qkv_bias: bool = option(True, "Give q, k and v a bias.")
    qk_scale: float | None = option(None, "Multiply q·kᵀ with this.", low=0.0, shown="1/√(dim/heads)")
    attn_drop: float = option(0.0, "Dropout of the attention weights (in training).", low=0.0, below=1.0)
    proj_drop: float = option(0.0, "Dropout of the output (in training).", low=0.0, below=1.0)
    kernel: str = option("eager", f"How attention is computed: {', '.join(KERNELS)}.", choices=tuple(KERNELS))
    dtype: str = option("float32", "Type of the numbers.", choices=tuple(DTYPE_BYTES))

    def __post_init__(self) -> None:
        for name, declared in own_fields(type(self)).items():
            value = getattr(self, name)
            if value is declared.default:
                continue  # defaults are legal, and most fields stay at theirs
            checked = _checked(declared, value)
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
    def neighbourhood(self) -> Neighbourhood:
        """What a query attends to."""
        raise NotImplementedError

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the module's input."""
        raise NotImplementedError

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

    def headline(self) -> list[str]:
        """What the reader should know of this Spec, in words."""
        raise NotImplementedError

    def closed_form(self) -> dict[str, int]:
        """MACs of each step that has any, as the paper counts them, independently of the steps' letters."""
        raise NotImplementedError

    def complexity(self) -> Complexity:
        """Return this attention's formula beside that of global attention on the same tokens."""
        raise NotImplementedError

    def counterpart(self) -> "Spec | None":
        """The attention that this one should be timed against, if there is one."""
        return None

    def next_command(self) -> tuple[str, str]:
        """The command worth typing next, and why."""
        raise NotImplementedError

    def cautions(self) -> list[str]:
        """What might surprise the reader of this Spec, a sentence each."""
        return []

    def plan(self) -> "Plan":
        """Return the steps that this Spec runs, with their sizes: `steps.plan(spec)` of the Spec's folder. No torch."""
        plan: Plan = self._function("steps", "plan")(self)
        return plan

    def build(self) -> "nn.Module":
        """Build the module of this Spec, on torch's default device and with torch's default dtype.

        It is `attention.build(spec)` of the Spec's folder, and `network.build(spec)` of a network's.
        """
        module: nn.Module = self._function(self.MODULE_FILE, "build")(self)
        return module

    @classmethod
    def _function(cls, file: str, name: str) -> Callable[[Self], Any]:
        """Import a function of a file beside the `spec.py` that defines this Spec, or else the one it is derived from.

        Raises:
            AttnscopeError: the file has no such function.
        """
        home = next(each.__module__ for each in cls.__mro__ if each.__module__.endswith(".spec"))
        module = import_module(f"{home.removesuffix('.spec')}.{file}")
        function: Callable[[Self], Any] | None = getattr(module, name, None)
        if function is None:
            raise AttnscopeError(f"{module.__file__} has no function {name}(spec)")
        return function

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
    """The type of a field without its `| None`: int, float, bool, str, Pair or Ints."""
    if declared.type in (Pair, Ints):
        return declared.type
    return next((arm for arm in get_args(declared.type) if arm is not type(None)), declared.type)


def _checked(declared: Field[Any], value: Any) -> Any:
    """The value of one field if it is legal, a pair from a single number."""
    name, rules = declared.name, declared.metadata
    if kind(declared) is bool:
        if not isinstance(value, bool):
            raise UsageError(f"{{{name}}} is {value!r}; it is true or false")
    elif kind(declared) is str:
        if value not in rules["choices"]:
            raise UsageError(f"{{{name}}} {quoted(value)} is unknown; {did_you_mean(str(value), rules['choices'])}")
    elif kind(declared) is float:
        low, high, below = rules["low"], rules.get("high"), rules.get("below", math.inf)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not low <= value < below or (high is not None and value > high):
            to = f"to {high:g}" if high is not None else f"to below {below:g}" if below < math.inf else "on"
            raise UsageError(f"{{{name}}} {value} is no number from {low:g} {to}")
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
            raise UsageError(f"{{{name}}} {value} is neither a whole number nor a pair of them")
        for side in sides:
            _check_size(name, side, rules)
        return tuple(sides)
    return value


def _check_size(name: str, value: object, rules: Mapping[str, Any]) -> None:
    low, high = rules.get("low", 1), rules.get("high", LARGEST)
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(f"{{{name}}} {value!r} is no whole number")
    if value < low:
        raise UsageError(f"{{{name}}} {value} is too small; the smallest is {low}")
    if value > high:
        raise UsageError(f"{{{name}}} {value} is too large; the largest is {high}")
