"""`--attention FOLDER`: attentions that are loaded for one run, and suggested commands that load them again."""

import re
import shlex
from collections.abc import Container
from pathlib import Path

import typer
from typer.core import TyperOption

from attnscope import attentions
from attnscope.core.errors import UsageError, literal
from attnscope.core.sizes import spell_sides

COMMAND_GROUPS = ("Learn", "Compare", "Measure and guard", "Other")
"""The groups of commands, in the order of the help."""
LEARN, COMPARE, GUARD, OTHER = COMMAND_GROUPS

OTHERS: dict[str, tuple[str, str]] = {
    "explore": (LEARN, "Explore an attention live: keys change options, and costs and pictures follow."),
    "windows": (LEARN, "Draw the keys of a query, and the shift, mask and positions of windows."),
    "compare": (COMPARE, "Compare attentions by formula and by measurement: MACs, memory, time, break-even."),
    "shard": (COMPARE, "Plan an attention on several devices: local shapes, collectives, bytes sent."),
    "trace": (GUARD, "Trace any module: timm, torchvision, Hugging Face, or your own."),
    "diff": (GUARD, "Compare two saved runs: environment, costs and times."),
    "peaks": (GUARD, "Measure the peaks of this machine: matmul, softmax, copies."),
    "presets": (OTHER, "List the published networks with their parameters and MACs."),
}
"""Commands other than those of attentions, each with its group and summary. An attention cannot have their names."""

_folders: dict[str, Path] = {}
"""The folders on this command line, by the name of the attention in them."""


def load_attentions(context: typer.Context, folders: list[Path] | None) -> list[Path] | None:
    """Load the attention in each folder.

    Raises:
        UsageError: if an attention cannot be loaded, or has the name of another command.
    """
    source = context.get_parameter_source("attention")
    is_typed = source is not None and source.name == "COMMANDLINE"
    origin = "{attention}" if is_typed else f"{context.auto_envvar_prefix}_ATTENTION:"
    for folder in folders or ():
        if not is_typed and not str(folder):
            continue  # as in PATH, a leading or trailing separator is allowed
        try:
            name = attentions.load(folder).name
        except UsageError as error:
            raise UsageError(f"{origin} {error.args[0]}") from error.__cause__
        if name in OTHERS:
            raise UsageError(
                f"{origin} {literal(folder)}: the name {name} must not be that of another command; rename the attention"
            )
        if is_typed:
            _folders[name] = folder
    return folders


def typed_again(context: typer.Context, without: Container[str]) -> str:
    """Return the command line as typed, without the arguments and flags that have these names in Python.

    A flag without effect is left out: the switch that it requires is not given, nor among those names.
    """
    needs = getattr(context.command, "needs", {})
    words = ["attnscope", str(context.info_name)]
    for param in context.command.params:
        name = str(param.name)
        source = context.get_parameter_source(name)
        if name in without or source is None or source.name != "COMMANDLINE":
            continue
        switch = needs[name].switch if name in needs else None
        if switch is not None and switch not in without and not context.params[switch]:
            continue
        value = context.params[name]
        flag = max(param.opts, key=len) if isinstance(param, TyperOption) else None
        if isinstance(value, bool):
            words.append(str(flag) if value else max(param.secondary_opts, key=len))
            continue
        for each in value if isinstance(value, list) else [value]:
            words += [flag] if flag else []
            words.append(spell_sides(each, "x") if isinstance(each, tuple) else str(each))
    return shlex.join(words)


def typed(command: str) -> str:
    """Return a suggested command with `--attention` for each attention that it must load."""
    named = set(re.split(r"[\s:]", command))
    flags = [f"--attention {shlex.quote(str(folder))}" for name, folder in _folders.items() if name in named]
    program, _, rest = command.partition(" ")
    return " ".join([program, *flags, rest])
