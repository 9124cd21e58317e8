"""Input without effect, as warnings and errors: a flag without the flag that it requires, a misspelled variable."""

import difflib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from attnscope.cli.flags import Needs, is_typed
from attnscope.cli.messages import say
from attnscope.core.errors import AttnscopeError, UsageError, flag, literal


def warn(message: str) -> None:
    """Print a warning to stderr, with the fields in braces as flags."""
    say(f"attnscope: warning: {UsageError(message).in_flags()}")


def check_gates(context: Any, needs: Mapping[str, Needs]) -> None:
    """Check that each typed gate has the switch that it requires; without it, every check would pass.

    Args:
        context: the command's context.
        needs: what each flag requires, by its name in Python.

    Raises:
        UsageError: a gate is without its switch.
    """
    for name, need in _idle(context, needs):
        if need.is_gate:
            switch = _params(context)[need.switch]
            words = " ".join(filter(None, [flag(need.switch), switch.metavar]))
            raise UsageError(f"{{{name}}} requires {{{need.switch}}}; add {literal(words)}")


def warn_of_flags(context: Any, needs: Mapping[str, Needs]) -> None:
    """Warn about each typed flag that is given without the switch that it requires.

    Args:
        context: the command's context.
        needs: what each flag requires, by its name in Python.
    """
    params = _params(context)
    for name, need in _idle(context, needs):
        if not need.is_gate:
            idle, off = _spell(params[name], context.params[name]), params[need.switch].secondary_opts
            with_off = f"with {off[0]}; remove one of them" if off and params[need.switch].default else None
            warn(f"{idle} has no effect {with_off or f'without {flag(need.switch)}; add it'}")


def _idle(context: Any, needs: Mapping[str, Needs]) -> Iterator[tuple[str, Needs]]:
    """Yield each typed flag without the switch that it requires, and what it requires."""
    for name, need in needs.items():
        if is_typed(context, name) and not context.params[need.switch]:
            yield name, need


def _params(context: Any) -> dict[str, Any]:
    """Return the parameters of a command by their names in Python."""
    return {param.name: param for param in context.command.params}


def warn_of_variables(context: Any) -> None:
    """Warn about each environment variable that begins like those of attnscope but does not exist; name the nearest."""
    root = context.find_root()
    start = f"{root.auto_envvar_prefix}_"
    given = [name for name in os.environ if name.startswith(start)]
    if not given:
        return
    commands = root.command.commands
    starts = {f"{start}{command}_".upper(): command for command in commands}
    of_root = {f"{start}{param.name}".upper() for param in root.command.params}
    for name in sorted({*given} - of_root):
        # The longest prefix, since the name of an attention may begin with the name of another one.
        own = max((each for each in starts if name.startswith(each)), key=len, default=None)
        if own is not None:
            variables = _variables(commands, starts[own], start)
            near = None if name in variables else _nearest(name, variables, len(own), cutoff=0)
        else:  # a misspelled command, or an attention that is not loaded in this run
            variables = {variable: variable for variable in of_root}
            for command in sorted(commands, key=lambda command: command == context.info_name):
                own_variables = _variables(commands, command, start)
                # a name without a command means the flag of the command that runs
                without = {
                    variable.replace(f"{command}_".upper(), "", 1): variable for variable in own_variables.values()
                }
                variables |= own_variables | without
            near = _nearest(name, variables, len(start), cutoff=0.7)
        if near is not None:
            warn(f"the environment variable {name} is unknown and has no effect; did you mean {near}?")


def _variables(commands: Any, name: str, start: str) -> dict[str, str]:
    """Return the environment variables that a command reads, each mapped to the one named like the flag.

    typer also reads variables that are named like parameters in Python. A command that cannot be built has no variables.
    """
    try:
        named = [param for param in commands[name].params if isinstance(param.envvar, str)]
    except AttnscopeError:
        return {}
    in_python = {f"{start}{name}_{param.name}".upper(): param.envvar for param in named}
    return in_python | {param.envvar: param.envvar for param in named}


def _nearest(name: str, variables: Mapping[str, str], start: int, cutoff: float) -> str | None:
    """Return the variable nearest to a name, or None if none is near.

    Args:
        name: misspelled name.
        variables: existing names, each mapped to the name to return.
        start: length of the common prefix, which is not compared.
        cutoff: lowest similarity, as in `difflib.get_close_matches`.
    """
    close = difflib.get_close_matches(name[start:], [each[start:] for each in sorted(variables)], n=1, cutoff=cutoff)
    return variables[name[:start] + close[0]] if close else None


def _spell(param: Any, value: Any) -> str:
    """Return the spelling of a flag that was typed."""
    off = param.secondary_opts and value is False
    return str(max(param.secondary_opts if off else param.opts, key=len))
