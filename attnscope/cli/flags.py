"""The flags of the command line: their declaration, and the parsing of their values."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import Field, dataclass
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperArgument, TyperOption
from typer.models import ParameterInfo

from attnscope.attentions.spec import Spec, kind, own_fields, reader_of, spell_value
from attnscope.core.errors import UsageError, flag, literal
from attnscope.core.sizes import Ints, abbreviate_sides, count_sides

SOURCES = ("DEFAULT", "DEFAULT_MAP", "ENVIRONMENT", "COMMANDLINE")
"""The sources of a value, the weakest first. The default map has the values of a config file and a preset."""
GROUPS = ("Comparison", "Module", "Attention", "Network", "Pictures", "Run", "Measure", "Output")
"""The groups of flags, in the order of the help."""
COMPARISON, MODULE, ATTENTION, NETWORK, PICTURES, RUN, MEASURE, OUTPUT = GROUPS
HELP = ("-h", "--help")
"""The help flags of every command."""
BY_PRESET = "attnscope.by_preset"
"""The key in a context's `meta` for the names of the values in the default map that come from a preset."""


@dataclass(frozen=True)
class Needs:
    """An annotation of a flag that has no effect without a switch.

    Args:
        switch: the name of the switch in Python.
        is_gate: whether the flag decides on the exit code, so that it is an error to forget the switch.
    """

    switch: str
    is_gate: bool = False


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
    """An argument that is read from text. Its metavar is its name in help and in errors."""

    def display_type_rich(self, ctx: Any) -> str | None:
        """Return the type as help shows it next to the name, or None if the metavar already gives it."""
        return super().display_type_rich(ctx) if self.metavar is None else None

    def get_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the name for the usage line; typer puts a required one into braces."""
        return [self.metavar] if self.required and self.metavar else super().get_usage_pieces(ctx)

    def process_value(self, ctx: Any, value: Any) -> Any:
        """Return what the callback makes of the text."""
        return read_text(self, ctx, value, super().process_value)


def read_text(param: Flag | Word, ctx: Any, value: Any, by_typer: Callable[[Any, Any], Any]) -> Any:
    """Return the value that a parameter's callback reads from its text, or from a list of texts if it can be repeated.

    typer builds a pydantic validator for every parameter, given or not, and imports pydantic for the first one. That
    takes longer than the rest of a command without measurements. No parameter of attnscope needs a validator: a switch
    on the command line is a bool, and any other value is text. typer still reads switches that the environment or a file
    sets, and reports missing parameters.
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
    """Convert the parameters of a command to Flags and Words. typer has no setting for the class of a parameter."""
    for param in params:
        param.show_envvar = False  # as in `option`; typer itself declares --help and the flags of shell completion
        if type(param) in (TyperOption, TyperArgument):
            param.__class__ = Flag if type(param) is TyperOption else Word
    return params


def file(value: str | None) -> Path | None:
    """Return the path of a file."""
    return None if value is None else Path(value)


def give_flags(command: Callable[..., Any], parameters: list[Parameter], specs: Iterable[type[Spec]] = ()) -> None:
    """Set the signature of a function with arbitrary keywords, from which typer derives its flags.

    Args:
        command: function to change.
        parameters: its flags, including those of Spec fields.
        specs: Specs that have these fields.

    Raises:
        UsageError: if the flag of a field has the name of another flag.
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
    # Fields of all attentions are last in `own` and keep their names.
    for parameter in (*others, *reversed(own)):
        names = _names_of(parameter)
        if clash := [name for name in names if name in taken]:
            spec = fields[parameter.name]
            where = f"{literal(sys.modules[spec.__module__].__file__)}: {spec.__name__}"
            raise UsageError(
                f"{where}.{parameter.name} must not have the name of another flag (got {clash[0]}); rename the field"
            )
        taken.update(names)


def _names_of(parameter: Parameter) -> list[str]:
    """Return the names of a flag: as typed, such as --time and --no-time, and in Python."""
    declared = [
        name
        for settings in getattr(parameter.annotation, "__metadata__", ())
        if isinstance(settings, ParameterInfo)
        for name in (settings.default, *(settings.param_decls or ()))  # typer stores the first name as the default
        if isinstance(name, str)
    ]
    typed = [name for names in declared for name in names.split("/")]
    return [*(typed or [flag(parameter.name)]), parameter.name]


def flag_of(field: Field[Any], group: str = ATTENTION) -> Parameter:
    """Return the flag of a Spec's field, with its name, type, help and default; `group` applies if the field has none."""
    base, name = kind(field), field.name.replace("_", "-")
    settings: dict[str, Any] = {"help": field.metadata["help"], "group": field.metadata.get("group", group)}
    names = [f"--{name}/--no-{name}"] if base is bool else [f"--{name}"]
    count = count_sides(base)
    metavar = abbreviate_sides(count) if count else {int: "N", float: "X", Ints: "N,N,..."}.get(base)
    if metavar:
        settings |= {"callback": reader_of(field), "metavar": metavar}
    if "choices" in field.metadata:
        settings |= choices(field.metadata["choices"])
    if "shown" in field.metadata:
        settings["show_default"] = field.metadata["shown"]
    default: Any = field.default
    if count or base == Ints:
        base = str  # typer reads a tuple from several arguments
        default = None if default is None else spell_value(field, default)
    annotation: Any = Annotated[base if default is not None else base | None, option(*names, **settings)]
    return Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def option(*names: str, group: str | None, **settings: Any) -> Any:
    """Declare a flag and the group in which help lists it.

    Every flag has an environment variable; help does not repeat its name.
    """
    return typer.Option(*names, rich_help_panel=group, show_envvar=False, **settings)


def key_of(opts: Iterable[str]) -> str | None:
    """Return the name of a flag in TOML and in the environment, kv_heads for `--kv-heads`; None for an argument."""
    return next((opt[2:].replace("-", "_") for opt in opts if opt.startswith("--")), None)


def strength(context: typer.Context, name: str) -> int:
    """Return the precedence of a value by source: flag, environment, config file, preset, default (the lowest)."""
    source = context.get_parameter_source(name)
    if source is None:
        return 0
    by_preset = source.name == "DEFAULT_MAP" and name in context.meta.get(BY_PRESET, ())
    return 2 * SOURCES.index(source.name) - by_preset


def is_typed(context: Any, name: str) -> bool:
    """Return whether a value is given on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def needs_of(command: Callable[..., Any]) -> dict[str, Needs]:
    """Return what each flag of a function requires, if it is annotated with Needs."""
    return {
        name: note
        for name, parameter in signature(command).parameters.items()
        for note in getattr(parameter.annotation, "__metadata__", ())
        if isinstance(note, Needs)
    }


def choices(allowed: Iterable[str]) -> dict[str, Any]:
    """Return the settings of a flag that takes one of these words, for shell completion; they do not check the value."""
    words = list(allowed)
    return {"metavar": "NAME", "autocompletion": lambda: words}


def examples(commands: Iterable[str]) -> str:
    """Return the epilog of a help page: example commands, one on each line."""
    return "\n".join(commands)
