"""Warnings about what was given and has no effect: a flag that needs another one, a misspelt environment variable."""

import difflib
import os
from collections.abc import Mapping
from typing import Any

import typer

from attnscope.cli.flags import is_typed
from attnscope.core.errors import AttnscopeError, UsageError, flag


def warn(message: str) -> None:
    """Print a warning to stderr, with flags in place of fields in braces."""
    typer.echo(f"attnscope: warning: {UsageError(message).in_flags()}", err=True)


def warn_of_flags(context: Any, needs: Mapping[str, str]) -> None:
    """Warn of each flag that was typed without the flag that it needs.

    Args:
        context: the command's context.
        needs: the switch that a flag needs, both by their names in Python.
    """
    params = {param.name: param for param in context.command.params}
    for name, needed in needs.items():
        if is_typed(context, name) and not context.params[needed]:
            idle, off = _spell(params[name], context.params[name]), params[needed].secondary_opts
            why = f"with {off[0]}; leave one of them out" if off and params[needed].default else None
            warn(f"{idle} has no effect {why or f'without {flag(needed)}; add it'}")


def warn_of_variables(context: Any) -> None:
    """Warn of each environment variable that is named like those of attnscope and that no flag has, with the nearest."""
    root = context.find_root()
    start = f"{root.auto_envvar_prefix}_"
    given = [name for name in os.environ if name.startswith(start)]
    if not given:
        return
    commands = root.command.commands
    starts = {f"{start}{command}_".upper(): command for command in commands}
    of_root = {f"{start}{param.name}".upper() for param in root.command.params}
    for name in sorted({*given} - of_root):
        # the longest, since the name of one attention may begin with that of another
        own = max((each for each in starts if name.startswith(each)), key=len, default=None)
        if own is not None:
            known = _variables(commands, starts[own], start)
            near = None if name in known else _nearest(name, known, len(own), cutoff=0)
        else:  # a misspelt command, or an attention that is not loaded now
            known = {variable: variable for variable in of_root}
            for command in commands:
                known |= _variables(commands, command, start)
            near = _nearest(name, known, len(start), cutoff=0.7)
        if near is not None:
            warn(f"the environment variable {name} is unknown and has no effect; did you mean {near}?")


def _variables(commands: Any, name: str, start: str) -> dict[str, str]:
    """Return the environment variables that a command reads, each with the one that is named like the flag.

    typer also reads variables that are named like parameters in Python. A command that cannot be built has none.
    """
    try:
        named = [param for param in commands[name].params if isinstance(param.envvar, str)]
    except AttnscopeError:
        return {}
    in_python = {f"{start}{name}_{param.name}".upper(): param.envvar for param in named}
    return in_python | {param.envvar: param.envvar for param in named}


def _nearest(name: str, known: Mapping[str, str], start: int, cutoff: float) -> str | None:
    """Return the known name that is most like another behind what both start with; None if none is alike enough."""
    close = difflib.get_close_matches(name[start:], [each[start:] for each in sorted(known)], n=1, cutoff=cutoff)
    return known[name[:start] + close[0]] if close else None


def _spell(param: Any, value: Any) -> str:
    """Return a flag as it was typed."""
    off = param.secondary_opts and value is False
    return str(max(param.secondary_opts if off else param.opts, key=len))
