"""How the words of the command line become values, and how a word that cannot be read is refused."""

import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import Field, dataclass
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperArgument, TyperOption
from typer.models import ParameterInfo

from attnscope.attentions.spec import Spec, kind, own_fields
from attnscope.core.errors import AttnscopeError, UsageError, flag, literal, quoted
from attnscope.core.sizes import Ints, Pair, parse_ints, parse_pair

SOURCES = ("DEFAULT", "DEFAULT_MAP", "ENVIRONMENT", "COMMANDLINE")
"""Where a value comes from, the weaker first; the default map is a config file's and a preset's."""
GROUPS = ("Comparison", "Module", "Attention", "Network", "Pictures", "Run", "Measure", "Output")
"""The groups of flags, in the order in which help lists them."""
COMPARISON, MODULE, ATTENTION, NETWORK, PICTURES, RUN, MEASURE, OUTPUT = GROUPS
HELP = ("-h", "--help")
"""The flags of help, which every command has."""
BY_PRESET = "attnscope.by_preset"
"""Where a context keeps the names of the values that a preset put into the default map."""


@dataclass(frozen=True)
class Needs:
    """Annotates a flag that has no effect without a switch, by the switch's name in Python."""

    switch: str


class FlagError(AttnscopeError):
    """A word on the command line that is not of its flag's kind."""

    exit_code = 2


class Flag(TyperOption):
    """An option that is read from text."""

    def process_value(self, ctx: Any, value: Any) -> Any:
        """Return what the callback makes of the text."""
        return read_text(self, ctx, value, super().process_value)

    def _get_default_string(self, *, show_default_is_str: bool, **settings: Any) -> str:
        """Return the default as help shows it; typer puts a default in words into parentheses."""
        default = super()._get_default_string(show_default_is_str=show_default_is_str, **settings)
        return str(self.show_default) if show_default_is_str else default


class Word(TyperArgument):
    """An argument that is read from text."""

    def display_type_rich(self, ctx: Any) -> str | None:
        """Return the type as help shows it beside the name; none where the name says what to give."""
        return super().display_type_rich(ctx) if self.metavar is None else None

    def process_value(self, ctx: Any, value: Any) -> Any:
        """Return what the callback makes of the text."""
        return read_text(self, ctx, value, super().process_value)


def read_text(param: Flag | Word, ctx: Any, value: Any, by_typer: Callable[[Any, Any], Any]) -> Any:
    """Return what the callback of a parameter makes of its text, or of its texts where it may be repeated.

    typer builds a pydantic validator for every parameter, given or not, and imports pydantic for the first one. That
    takes longer than everything else that a command without measurements does. No parameter of attnscope needs one: a
    switch is a bool when it comes from the command line, and everything else is text. typer still reads switches that
    the environment or a file sets, and reports parameters that are missing.
    """
    if isinstance(value, list | tuple):
        value = [str(each) for each in value]
    elif value is None:
        if param.required:
            return by_typer(ctx, value)
    elif param.nargs != 1 or getattr(param, "multiple", False) or getattr(param, "is_flag", False):
        return by_typer(ctx, value)
    else:
        value = str(value)
    return value if param.callback is None else param.callback(ctx, param, value)


def as_text(params: list[Any]) -> list[Any]:
    """Turn the parameters of a command into Flags and Words; typer has no place to name a class for them."""
    for param in params:
        param.show_envvar = False  # as in `option`; typer declares --help and the flags of completion itself
        if type(param) in (TyperOption, TyperArgument):
            param.__class__ = Flag if type(param) is TyperOption else Word
    return params


def whole(name: str) -> Callable[[Any], int]:
    """Read a whole number for the flag of this name."""
    return _reader(name, lambda text: int(text, 10), "a whole number")


def number(name: str) -> Callable[[Any], float]:
    """Read a number for the flag of this name."""
    return _reader(name, _finite, "a number")


def pair(name: str) -> Callable[[Any], Pair]:
    """Read `56` or `56x48` for the flag of this name."""
    return _reader(name, parse_pair, "a whole number or height x width, such as 56 or 56x48")


def place(name: str) -> Callable[[Any], Pair]:
    """Read `5,9`, a row and a column, for the flag of this name."""

    def parse(text: str) -> Pair:
        row, column = text.split(",")
        return int(row, 10), int(column, 10)

    return _reader(name, parse, "a row and a column, such as 5,9")


def file(value: str | None) -> Path | None:
    """Read the name of a file."""
    return None if value is None else Path(value)


def give_flags(command: Callable[..., Any], parameters: list[Parameter], specs: Iterable[type[Spec]] = ()) -> None:
    """Let a function that takes any keywords have these flags, as typer sees it.

    Args:
        command: the function.
        parameters: its flags, those of fields of Specs included.
        specs: the Specs that have these fields.

    Raises:
        UsageError: two flags have the same name, and one of them is that of a field.
    """
    _check_names(parameters, specs)
    flags = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in parameters]
    command.__signature__ = Signature(flags)  # type: ignore[attr-defined]
    command.__annotations__ = {flag.name: flag.annotation for flag in flags}


def _check_names(parameters: list[Parameter], specs: Iterable[type[Spec]]) -> None:
    taken = set(HELP)
    fields = {name: spec for spec in specs for name in own_fields(spec)}
    others = [parameter for parameter in parameters if parameter.name not in fields]
    own = [parameter for parameter in parameters if parameter.name in fields]
    for parameter in (
        *others,
        *reversed(own),
    ):  # the fields that all attentions have are the last, and keep their names
        names = _names_of(parameter)
        if clash := [name for name in names if name in taken]:
            spec = fields[parameter.name]
            where = f"{literal(sys.modules[spec.__module__].__file__)}: {spec.__name__}"
            raise UsageError(
                f"{where} has a field {parameter.name}, and another flag is called {clash[0]}; rename the field"
            )
        taken.update(names)


def _names_of(parameter: Parameter) -> list[str]:
    """Return how a flag is called: as it is typed, such as --time and --no-time, and in Python."""
    declared = [
        name
        for settings in getattr(parameter.annotation, "__metadata__", ())
        if isinstance(settings, ParameterInfo)
        for name in (settings.default, *(settings.param_decls or ()))  # typer has the first name as the default
        if isinstance(name, str)
    ]
    typed = [name for names in declared for name in names.split("/")]
    return [*(typed or [flag(parameter.name)]), parameter.name]


def ints(name: str) -> Callable[[Any], Ints]:
    """Read `2,2,6,2` for the flag of this name."""
    return _reader(name, parse_ints, "a list of whole numbers, such as 2,2,6,2")


def flag_of(field: Field[Any], group: str = ATTENTION) -> Parameter:
    """The flag of a Spec's field: its name, type, help and default are the field's, and its group unless it names none."""
    base, name = kind(field), field.name.replace("_", "-")
    settings: dict[str, Any] = {"help": field.metadata["help"], "group": field.metadata.get("group", group)}
    names = [f"--{name}/--no-{name}"] if base is bool else [f"--{name}"]
    read = {int: (whole, "N"), float: (number, "X"), Pair: (pair, "N|HxW"), Ints: (ints, "N,N,...")}.get(base)
    if read is not None:
        settings |= {"callback": read[0](field.name), "metavar": read[1]}
    if "choices" in field.metadata:
        settings |= choices(field.metadata["choices"])
    if "shown" in field.metadata:
        settings["show_default"] = field.metadata["shown"]
    default: Any = field.default
    if base == Pair:
        base = str  # typer would want two words for a pair
        default = None if default is None else "x".join(map(str, dict.fromkeys(default)))
    if base == Ints:
        base = str
        default = None if default is None else ",".join(map(str, default))
    annotation: Any = Annotated[base if default is not None else base | None, option(*names, **settings)]
    return Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def option(*names: str, group: str | None, **settings: Any) -> Any:
    """Declare a flag and the group in which help lists it.

    Every flag has an environment variable of its name; help need not say so each time.
    """
    return typer.Option(*names, rich_help_panel=group, show_envvar=False, **settings)


def key_of(opts: Iterable[str]) -> str | None:
    """What a flag is called in TOML and in the environment: `--kv-heads` is kv_heads. None where it is no flag."""
    return next((opt[2:].replace("-", "_") for opt in opts if opt.startswith("--")), None)


def strength(context: typer.Context, name: str) -> int:
    """How much a value counts: a flag's more than the environment's, a config file's, a preset's, and last a default."""
    source = context.get_parameter_source(name)
    if source is None:
        return 0
    by_preset = source.name == "DEFAULT_MAP" and name in context.meta.get(BY_PRESET, ())
    return 2 * SOURCES.index(source.name) - by_preset


def is_typed(context: Any, name: str) -> bool:
    """Return whether a value stands on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def needs_of(command: Callable[..., Any]) -> dict[str, str]:
    """Return which switch a flag needs, for each flag of a function that is annotated with Needs."""
    return {
        name: note.switch
        for name, parameter in signature(command).parameters.items()
        for note in getattr(parameter.annotation, "__metadata__", ())
        if isinstance(note, Needs)
    }


def choices(known: Iterable[str]) -> dict[str, Any]:
    """Settings of a flag that takes one of these words: shells complete them. The words are checked where they are used."""
    words = list(known)
    return {"metavar": "NAME", "autocompletion": lambda: words}


def examples(commands: Iterable[str]) -> str:
    """Return the end of a help page: commands worth trying, one a line."""
    return "\n".join(commands)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _reader(name: str, read: Callable[[str], Any], rule: str) -> Callable[[Any], Any]:
    def parse(value: Any) -> Any:
        try:
            return None if value is None else read(value)
        except ValueError:
            raise FlagError(f"{{{name}}} must be {rule} (got {quoted(value)})") from None

    return parse
