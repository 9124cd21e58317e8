"""Presets and config files: TOML with one table for each command, whose keys are the command's flags."""

import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from attnscope import attentions
from attnscope.core.errors import UsageError, did_you_mean, literal, quoted
from attnscope.core.files import text_of

CLASSES = {"in1k": 1000, "in12k": 11821, "augreg_in21k": 21843, "ms_in22k": 21841, "ft_in22k": 21841}
"""Number of classes of timm's checkpoints, by the end of their tags: `.augreg_in21k_ft_in1k` has 1000."""
CLASSES_OF_TAGS = {"in21k": 21843}
"""Number of classes by a whole tag: `.orig_in21k` has none."""

MOST_BITS = 1024
"""Bits of an integer; more exceed every flag."""

LARGEST = 2**16
"""Characters of a TOML file, which takes time that grows with the square of its levels."""

Tables = dict[str, dict[str, Any]]
"""Tables of a TOML file by name."""


def presets() -> dict[str, Path]:
    """Return the paths of the presets in this package, by name."""
    inside = Path(__file__).parents[1] / "configs"  # in a wheel
    folder = inside if inside.is_dir() else Path(__file__).parents[2] / "configs"  # in a checkout
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def attention_of(preset: str) -> str | None:
    """Return the name of the attention of a preset; None for an unknown one."""
    path = presets().get(preset)
    return None if path is None else next(iter(read_tables(path)))


def suiting(suits: Callable[[Tables], bool]) -> list[str]:
    """Return the names of the presets whose tables satisfy a condition."""
    return [name for name, path in presets().items() if suits(read_tables(path))]


def read_preset(name: str, command: str, fields: Iterable[str]) -> dict[str, Any]:
    """Return the flags that a preset sets for a command.

    Args:
        name: name of the preset, in attnscope or in timm.
        command: name of the command.
        fields: fields of the command.

    Raises:
        UsageError: if the preset is unknown or belongs to another command.
    """
    path = preset_path(name, lambda tables: command in tables)
    commands = list(read_tables(path))
    if command not in commands:
        raise UsageError(f"{{preset}} must be a preset of {command} (got {name}); use attnscope {commands[0]}")
    flags = read_config(path, command, fields)
    return flags | _head_of(name, path, flags.get("classes"))


def _head_of(name: str, path: Path, own: int | None) -> dict[str, Any]:
    """Return the classes of a timm checkpoint with a tag, unless it has the number of the preset.

    Args:
        name: name of the preset.
        path: its file.
        own: the number of classes that it sets, 0 without a head; None for the default.

    Raises:
        UsageError: if the head of the checkpoint is unknown; many have none.
    """
    tag = name.partition(".")[2]
    if not tag:
        return {}
    by_end = next((number for end, number in CLASSES.items() if tag.endswith(end)), own)
    classes = CLASSES_OF_TAGS.get(tag, by_end)
    if classes is None:
        raise UsageError(
            f"{{preset}} must name a checkpoint with a known head (got {literal(name)}; many have none); "
            f"use {{preset}} {path.stem}, with {{classes}} for another head than 1000 classes"
        )
    return {} if classes == (1000 if own is None else own) else {"classes": classes}


def preset_path(name: str, suits: Callable[[Tables], bool] = lambda tables: True) -> Path:
    """Return the file of a preset, by its name in attnscope or in timm, with or without the tag of a checkpoint.

    Raises:
        UsageError: if the preset is unknown; the error suggests names of presets whose tables satisfy `suits`.
    """
    paths = presets()
    if name in paths:
        return paths[name]
    by_timm = {str(timm): path for path in paths.values() if (timm := read_toml(path).get("timm"))}
    if (architecture := name.partition(".")[0]) in by_timm:
        return by_timm[architecture]
    suggested = {paths[each] for each in suiting(suits)}
    own, timms = ([each for each, path in named.items() if path in suggested] for named in (paths, by_timm))
    near = did_you_mean(name, own, timms, many="attnscope presets lists all")
    raise UsageError(f"{{preset}} {quoted(name)} is unknown; {near}")


def read_config(path: Path, command: str, fields: Iterable[str]) -> dict[str, Any]:
    """Return the flags that a TOML file sets for a command, from the table with the command's name.

    Args:
        path: path of the file.
        command: name of the command.
        fields: fields of the command.

    Raises:
        UsageError: if the file cannot be read, has no table for the command, or has an unknown key in it.
    """
    content = read_toml(path)
    table = content.get(command)
    if not isinstance(table, dict):
        has = ", ".join(_shown(name, value) for name, value in content.items()) or "nothing"
        fix = f"write [{command}]" if command in content else _misspelled(command, content) or "add it"
        raise UsageError(f"{{config}} {literal(path)} must have a table [{command}] (got {literal(has)}); {fix}")
    fields = set(fields)
    flags = {key.replace("-", "_"): value for key, value in table.items()}
    for key, value in flags.items():
        if key == "config":
            raise UsageError(
                f"{{config}} {literal(path)}: a config file must not set config; write its keys in this file"
            )
        if key not in fields:
            raise UsageError(
                f"{{config}} {literal(path)}: {quoted(key)} is not a flag of attnscope {command}; "
                f"{did_you_mean(key, fields)}"
            )
        if isinstance(value, int) and value.bit_length() > MOST_BITS:  # Python refuses to spell it, as in 0xff...
            raise UsageError(f"{{config}} {literal(path)}: {key} must have at most {MOST_BITS} bits")
        if isinstance(value, dict):
            raise UsageError(
                f"{{config}} {literal(path)}: {key} must be a single value (got a table); set {key} = VALUE"
            )
    return {key: "x".join(map(str, value)) if isinstance(value, list) else value for key, value in flags.items()}


def _misspelled(command: str, content: Iterable[str]) -> str:
    """Return the suggestion to rename a table whose name is nearly that of a command; an empty text without one."""
    others = set(content) - {*attentions.names()}
    is_near = any(did_you_mean(name, [command]).startswith("did you mean") for name in others)
    return f"did you mean [{command}]?" if is_near else ""


def _shown(name: str, value: Any) -> str:
    """Return what a TOML file has at its top: a table, a list of tables, or a key outside of them."""
    if isinstance(value, dict):
        return f"[{name}]"
    return f"[[{name}]]" if isinstance(value, list) and value and isinstance(value[0], dict) else f"{name} = …"


def read_tables(path: Path) -> Tables:
    """Return the tables of a TOML file by name.

    Raises:
        UsageError: if the file cannot be read.
    """
    return {name: table for name, table in read_toml(path).items() if isinstance(table, dict)}


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file.

    Raises:
        UsageError: if the file cannot be read.
    """
    name = f"{{config}} {literal(path)}"
    text = text_of(path, name)
    if len(text) > LARGEST:
        raise UsageError(f"{name} must have at most {LARGEST:,} characters (got {len(text):,})")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also for an integer with too many digits
        raise UsageError(f"{name} is not valid TOML: {literal(error)}") from None
