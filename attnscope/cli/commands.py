"""The commands. Only the command that runs is imported and built, so that it starts fast.

Each command that is not an attention has a file of its name in this folder, with the function `<name>_command(app)`.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from types import MappingProxyType
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from attnscope import attentions
from attnscope.attentions.discovery import find_spec_class, refused
from attnscope.cli.extension import COMMAND_GROUPS, LEARN, OTHERS
from attnscope.cli.flags import Needs, as_text, key_of, needs_of
from attnscope.cli.help import encodable, write_examples, write_flags, write_sections, write_usage
from attnscope.cli.mistakes import fix_of_argument, name_sources, path_of
from attnscope.cli.without_effect import check_gates, warn_of_flags, warn_of_variables
from attnscope.core.errors import AttnscopeError, UsageError, did_you_mean, literal, quoted


class Commands(MutableMapping[str, Any]):
    """A mapping of names to commands, which builds a command when it is first looked up."""

    def __init__(self) -> None:
        self._built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self:
            raise KeyError(name)
        if name not in self._built:
            self._built[name] = build(name)
        return self._built[name]

    def __contains__(self, name: object) -> bool:
        return name in self._built or name in OTHERS or find_spec_class(str(name)) is not None

    def get(self, name: str, default: Any = None) -> Any:
        """Return a command, or the default if the name is unknown. A KeyError raised by a build is not caught."""
        return self[name] if name in self else default  # noqa: SIM401 # dict.get would call itself

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def __setitem__(self, name: str, command: Any) -> None:
        self._built[name] = command

    def __delitem__(self, name: str) -> None:
        del self._built[name]

    def _names(self) -> list[str]:
        """Return all names. Only this method searches for installed attentions, which a single command does not need."""
        return [*(name for name in attentions.names() if name not in OTHERS), *OTHERS]


def _meant(args: list[str], commands: Mapping[str, Any]) -> str:
    """Return how to write what is meant by the name of a flag, a preset or a module, or by `help`, if it is one."""
    from attnscope.cli.modules import is_module
    from attnscope.networks import configs

    name = args[0]
    flag = f"--{name.lower()}"
    if flag in (param.opts[0] for param in commands["vit"].params):
        return f"{flag} is a flag, such as attnscope vit {flag}"
    if name.lower() == "help":
        return f"write {' '.join(['attnscope', *(word for word in args[1:2] if word in commands)])} --help"
    if family := configs.attention_of(name):
        return f"write attnscope {family} --preset {name}"
    return f"write attnscope trace {quoted(name)}" if is_module(name) else ""


class Group(TyperGroup):
    """The root command, whose subcommands are built when they are looked up."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = Commands()  # type: ignore[assignment] # typer only looks up and lists names

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the options of attnscope."""
        with _explained_by(ctx):
            return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the first argument names.

        Raises:
            UsageError: the command is unknown.
        """
        name = args[0]
        if not ctx.resilient_parsing and not name.startswith("-") and name not in self.commands:
            fix = _meant(args, self.commands) or did_you_mean(name, self.commands, many="attnscope --help lists them")
            raise UsageError(f"{quoted(name)} is not a command of attnscope; {fix}")
        return super().resolve_command(ctx, args)

    def get_help(self, ctx: Any) -> str:
        """Return the help in characters that the terminal can show."""
        return encodable(super().get_help(ctx), sys.stdout)

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        """Write the usage line of attnscope."""
        write_usage(self, ctx, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the commands in their groups, then the options."""
        self.format_commands(ctx, formatter)
        write_flags(self.get_params(ctx), ctx, formatter, ungrouped="Options")

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands in their groups, and the installed attentions that cannot be used, each with the reason."""
        sections: dict[str, list[tuple[str, str]]] = {group: [] for group in COMMAND_GROUPS}
        for name in self.commands:
            group, summary = describe(name)
            sections[group].append((name, summary))
        if reasons := refused():
            sections["Installed attentions that cannot be used"] = sorted(reasons.items())
        write_sections(ctx, formatter, sections)

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options, --help and those of shell completion included, as parameters that are read from text."""
        return as_text(super().get_params(ctx))


class Command(TyperCommand):
    """A command whose parameters are read from text and whose help lists the flags in groups.

    `needs` maps a flag, by its name in Python, to what it requires.
    """

    needs: Mapping[str, Needs] = MappingProxyType({})

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments and flags.

        Raises:
            UsageError: there are more arguments than the command has.
        """
        ctx.allow_extra_args = True  # this message has the fix, other than that of typer
        with _explained_by(ctx):
            rest = super().parse_args(ctx, args)
            if rest and not ctx.resilient_parsing:
                extra, them = ("arguments", "them") if len(rest) > 1 else ("an argument", "it")
                words = literal(" ".join(rest))
                fix = fix_of_argument(ctx, rest[0]) or f"remove {them}"
                raise UsageError(f"{path_of(ctx)} got {extra} too many ({words}); {fix}")
        return rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command, then warn about flags and variables without effect, unless the command failed.

        Raises:
            UsageError: a gate has no effect.
        """
        try:
            with _explained_by(ctx):
                check_gates(ctx, self.needs)
                result = super().invoke(ctx)
        except typer.Exit:
            self._warn(ctx)
            raise
        self._warn(ctx)
        return result

    def _warn(self, ctx: Any) -> None:
        warn_of_variables(ctx)
        warn_of_flags(ctx, self.needs)

    def get_help(self, ctx: Any) -> str:
        """Return the help in characters that the terminal can show."""
        return encodable(super().get_help(ctx), sys.stdout)

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        """Write the usage line of the command."""
        write_usage(self, ctx, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and the flags in their groups."""
        write_flags(self.get_params(ctx), ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples."""
        if self.epilog:
            write_examples(self.epilog, ctx, formatter)

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the arguments and the options, --help included."""
        return as_text(super().get_params(ctx))


@contextmanager
def _explained_by(context: Any) -> Iterator[None]:
    """Give errors the context, which has the flags and the source of each value: a flag, a variable or a file."""
    try:
        yield
    except typer.TyperException as error:
        if getattr(error, "ctx", None) is None:
            error.ctx = context  # type: ignore[attr-defined] # typer's parser leaves it out
        raise
    except AttnscopeError as error:
        name_sources(error, context)
        raise


def describe(name: str) -> tuple[str, str]:
    """Return the group and the summary of a command without building it."""
    return OTHERS[name] if name in OTHERS else (LEARN, attentions.spec_class(name).SUMMARY)


def build(name: str) -> TyperCommand:
    """Build the command with this name."""
    if name not in OTHERS:
        return build_attention(name)
    return _built(name, getattr(import_module(f"attnscope.cli.{name}"), f"{name}_command"))


def build_attention(name: str, run: Callable[..., None] | None = None) -> TyperCommand:
    """Build the command of an attention, which calls `run` with a Spec and its flags; by default it reports the Spec."""
    from attnscope.cli.attention import attention_command

    return _built(name, partial(attention_command, name=name, run=run))


def _built(name: str, add_to: Callable[[typer.Typer], None]) -> TyperCommand:
    """Build the command that a function adds to an app."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    add_to(app)
    app.registered_commands[0].cls = Command
    app.registered_commands[0].short_help = describe(name)[1]
    command = typer.main.get_command(app)
    assert isinstance(command, Command)
    command.needs = needs_of(app.registered_commands[0].callback or command.invoke)
    for param in command.params:  # typer derives the variable from the name in Python, which may differ from the flag
        if key := key_of(param.opts):
            param.envvar = f"ATTNSCOPE_{name}_{key}".upper()
    return command
