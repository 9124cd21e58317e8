"""Mistakes on the command line that typer reports, as messages with the fix."""

import difflib
import os
from functools import partial
from typing import Any

import typer

from attnscope import attentions
from attnscope.cli.flags import BY_PRESET, key_of
from attnscope.core.errors import AttnscopeError, UsageError, flag, literal, quoted

OTHER_WAYS = {
    (
        "trace",
        "--save",
    ): "use -o FILE.json; to compare with another version, use --against REV or attnscope compare OLD NEW",
}
"""The way of a command that replaces a flag of other commands."""

NEAR = 0.65
"""The lowest similarity of a flag that is suggested."""

OTHER_WORDS = {
    "--tokens": "seq-len sequence-length num-tokens resolution length",
    "--resolution": "tokens grid size input-resolution",
    "--dim": "embed-dim embedding-dim hidden hidden-size hidden-dim d-model channels",
    "--heads": "num-attention-heads nhead n-head",
    "--batch": "bs b",
    "--image": "input-size",
    "--neighborhood": "kernel-size window",
    "--stripe": "split-size window",
    "--partition": "window",
    "--keys": "context kv-tokens",
    "--no-input-grad": "no-grad",
    "--no-time": "notime skip-time",
    "--format": "output-format",
    "--qkv-bias": "bias",
    "--no-qkv-bias": "no-bias",
    "--layer-scale": "layerscale init-values",
    "--scope": "model network whole",
    "--wide": "width columns",
    "--details": "verbose",
    "--plan": "devices ranks tp sp ulysses ring context",
    "--kernel": "attention-implementation attn-implementation impl backend",
    "--dtype": "precision fp16 half bf16 bfloat16 float16",
    "--mlp-ratio": "ffn-ratio",
    "--depth": "layers num-layers n-layers",
    "--input": "shape input-shape",
    "--arg": "args kwargs",
    "--where": "filter",
}
"""Words of other programs and libraries for a flag, which is suggested if the command has it."""


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
    word = name.lstrip("-").lower().replace("_", "-")
    meant = [each for each, words in OTHER_WORDS.items() if word in words.split() and each in flags]
    begun = [bare[each] for each in bare if each.startswith(word)]
    others = _commands_with(name, context)
    near = [] if others else [bare[each] for each in difflib.get_close_matches(word, bare, n=1, cutoff=NEAR)]
    close = [*meant, *begun, *near]
    of = f", but of {others}" if others and not close else ""
    other = OTHER_WAYS.get((str(context.command.name), name), f"{path_of(context)} --help lists its flags")
    fix = f"did you mean {close[0]}?" if close else other
    return f"{name} is not a flag of {path_of(context)}{of}; {fix}"


def _commands_with(name: str, context: Any) -> str:
    """Return the attentions that have a flag, `swin, swin3d and others`; an empty text if none has it."""
    known = getattr(getattr(context.parent, "command", None), "commands", {})
    first = sorted(attentions.names(), key=lambda each: (each not in ("vit", "swin"), each))
    having = [each for each in first if each in known and name in _names(known[each])]
    return ", ".join(having) if len(having) <= 2 else f"{having[0]}, {having[1]} and others"


def path_of(context: Any) -> str:
    """Return the words of a command as a user types them: `attnscope explore vit`, without the names of arguments."""
    names = [str(context.info_name)]
    while (context := context.parent) is not None:
        names.insert(0, str(context.info_name))
    return " ".join(names)


def fix_of_argument(context: Any, word: str) -> str:
    """Return how to write an argument that should be a flag, such as `window=7`; an empty text if that is not known."""
    names = _names(context.command)
    field, sign, value = word.partition("=")
    known = f"--{field.replace('_', '-')}"
    if sign and value and known in names:
        return f"write {known} {quoted(value)}"
    if context.command.name == "presets" and word in attentions.names():
        return f"write --where command={word}"
    return ""


def _names(command: Any) -> set[str]:
    return {name for param in command.params for name in (*param.opts, *param.secondary_opts)}


def _wrong_use(context: Any, name: str) -> str:
    """Return the message for a switch that is given a value, or for a flag without its value."""
    param = next(each for each in context.command.get_params(context) if name in (*each.opts, *each.secondary_opts))
    if getattr(param, "is_flag", False):
        return f"{name} must not have a value; write {' or '.join([*param.opts[-1:], *param.secondary_opts[-1:]])}"
    return f"{name} must have a value; write {name} {param.metavar or 'VALUE'}"


def _missing_argument(context: Any, missing: Any) -> str:
    arguments = [param for param in context.command.params if param.param_type_name == "argument"]
    words = " ".join([path_of(context), *(str(param.metavar) for param in arguments if param.required)])
    return f"{missing.metavar} is missing; write {words}"


def _wrong_switch(error: typer.BadParameter) -> str:
    """Return the rule and the value of a switch that the environment or a file sets to another word."""
    param, defaults = error.param, getattr(error.ctx, "default_map", None) or {}
    name = param.envvar if param is not None and getattr(param, "is_bool_flag", False) else None
    if param is None or not isinstance(name, str):
        return error.format_message()
    value = os.environ.get(name) or defaults.get(param.name)
    wrong = UsageError(f"{{{param.name}}} must be true or false (got {literal(repr(value))})")
    name_sources(wrong, error.ctx)
    return wrong.in_flags()


def name_sources(error: AttnscopeError, context: Any) -> None:
    """Give an error the names under which the user set its fields, and the config file of those that it sets."""
    error.spell = partial(_name_by_source, context)
    error.locate = partial(_file_of, context)


def _name_by_source(context: Any, field: str) -> str:
    """Return the name under which the user set a field: its flag, its variable, or its key in a config file."""
    param = _param(context, field)
    if param is not None and _source(context, field) == "ENVIRONMENT" and isinstance(param.envvar, str):
        return str(param.envvar)
    return str(key_of(param.opts)) if param is not None and _file_of(context, field) else flag(field)


def _file_of(context: Any, field: str) -> str:
    """Return the config file that sets a field, `--config mine.toml`; an empty text if none does."""
    is_set = _source(context, field) == "DEFAULT_MAP" and field not in context.meta.get(BY_PRESET, ())
    path = context.params.get("config")
    return f"--config {path}" if is_set and path and _param(context, field) is not None else ""


def _param(context: Any, field: str) -> Any:
    """Return the parameter of a field; None if the command does not have it."""
    return next((each for each in context.command.params if each.name == field), None)


def _source(context: Any, field: str) -> str | None:
    """Return the name of the source of a value; None if it is unknown."""
    source = context.get_parameter_source(field)
    return None if source is None else str(source.name)
