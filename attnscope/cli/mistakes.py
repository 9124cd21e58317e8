"""Mistakes on the command line that typer reports, as messages with the fix."""

import difflib
import os
from typing import Any

import typer

from attnscope.cli.flags import BY_PRESET, key_of
from attnscope.core.errors import flag

NEAR = 0.6
"""The lowest similarity of a flag that is suggested."""


def message_of(error: typer.TyperException) -> str:
    """Return the message of an error of typer: the flag or the argument, the rule, and the fix.

    typer does not export the classes of these errors, so that only their attributes distinguish them.
    """
    context: Any = getattr(error, "ctx", None)
    if context is None:
        return error.format_message()
    if hasattr(error, "possibilities"):
        return _unknown_flag(context, error.option_name)  # type: ignore[attr-defined]
    if hasattr(error, "option_name"):
        return _wrong_use(context, error.option_name)
    if hasattr(error, "param_type"):
        return _missing_argument(context, error.param)  # type: ignore[attr-defined]
    if isinstance(error, typer.BadParameter):
        return _wrong_switch(error)
    return error.format_message()


def _unknown_flag(context: Any, name: str) -> str:
    flags = [each for param in context.command.get_params(context) for each in (*param.opts, *param.secondary_opts)]
    bare = {each.lstrip("-"): each for each in flags if each.startswith("--")}
    begun = [each for each in bare if each.startswith(name.lstrip("-"))]
    close = begun or difflib.get_close_matches(name.lstrip("-"), bare, n=1, cutoff=NEAR)
    fix = f"did you mean {bare[close[0]]}?" if close else f"{context.command_path} --help lists its flags"
    return f"{name} is not a flag of {context.command_path}; {fix}"


def _wrong_use(context: Any, name: str) -> str:
    """Return the message for a switch that is given a value, or for a flag without its value."""
    param = next(each for each in context.command.get_params(context) if name in (*each.opts, *each.secondary_opts))
    if getattr(param, "is_flag", False):
        return f"{name} must not have a value; write {' or '.join([*param.opts[-1:], *param.secondary_opts[-1:]])}"
    return f"{name} must have a value; write {name} {param.metavar or 'VALUE'}"


def _missing_argument(context: Any, missing: Any) -> str:
    arguments = [param for param in context.command.params if param.param_type_name == "argument"]
    words = " ".join([context.command_path, *(str(param.metavar) for param in arguments if param.required)])
    return f"{missing.metavar} is missing; write {words}"


def _wrong_switch(error: typer.BadParameter) -> str:
    """Return the rule and the value of a switch that the environment or a file sets to another word."""
    param, defaults = error.param, getattr(error.ctx, "default_map", None) or {}
    name = param.envvar if param is not None and getattr(param, "is_bool_flag", False) else None
    if param is None or not isinstance(name, str):
        return error.format_message()
    value = os.environ.get(name) or defaults.get(param.name)
    return f"{name_by_source(error.ctx, str(param.name))} must be true or false (got {value!r})"


def name_by_source(context: Any, field: str) -> str:
    """Return the name under which the user set a field: its flag, its variable, or its key in a config file."""
    param = next((each for each in context.command.params if each.name == field), None)
    source = context.get_parameter_source(field)
    kind = None if param is None or source is None else source.name
    if kind == "ENVIRONMENT" and isinstance(param.envvar, str):  # type: ignore[union-attr]
        return str(param.envvar)  # type: ignore[union-attr]
    if kind == "DEFAULT_MAP" and field not in context.meta.get(BY_PRESET, ()) and context.params.get("config"):
        return f"{key_of(param.opts)} in --config {context.params['config']}"  # type: ignore[union-attr]
    return flag(field)
