"""Presets and config files: TOML with a table for each command, whose keys are that command's flags."""

import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from attnscope.core.errors import UsageError, did_you_mean, literal, quoted

Tables = dict[str, dict[str, Any]]
"""The tables of a TOML file by their names."""


def presets() -> dict[str, Path]:
    """The presets that ship with attnscope, by name."""
    inside = Path(__file__).parents[1] / "configs"  # in a wheel
    folder = inside if inside.is_dir() else Path(__file__).parents[2] / "configs"  # in a checkout
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def suiting(suits: Callable[[Tables], bool]) -> list[str]:
    """Return the names of the presets whose tables suit."""
    return [name for name, path in presets().items() if suits(read_tables(path))]


def read_preset(name: str, command: str, known: Iterable[str]) -> dict[str, Any]:
    """The flags that a preset sets for a command.

    Raises:
        UsageError: there is no such preset, or it is for another command.
    """
    path = preset_path(name, lambda tables: command in tables)
    commands = list(read_tables(path))
    if command not in commands:
        raise UsageError(f"{{preset}} {name} is no {command}; it is of attnscope {commands[0]}")
    return read_config(path, command, known)


def preset_path(name: str, suits: Callable[[Tables], bool] = lambda tables: True) -> Path:
    """The file of a preset, by its own name or by timm's; a mistake is told the names whose tables suit.

    Raises:
        UsageError: there is no such preset.
    """
    paths = presets()
    if name in paths:
        return paths[name]
    by_timm = {str(read_toml(path).get("timm")): path for path in paths.values()}
    if name in by_timm:
        return by_timm[name]
    known = {paths[each] for each in suiting(suits)}
    ours, timms = ([each for each, path in named.items() if path in known] for named in (paths, by_timm))
    raise UsageError(f"{{preset}} {quoted(name)} is unknown; {did_you_mean(name, ours, timms)}")


def read_config(path: Path, command: str, known: Iterable[str]) -> dict[str, Any]:
    """The flags that a TOML file sets for a command, from its table of that name.

    Raises:
        UsageError: the file cannot be read, has no table for this command, or an unknown key in it.
    """
    sections = read_tables(path)
    if command not in sections:
        has = ", ".join(f"[{name}]" for name in sections) or "no table"
        raise UsageError(f"{path.name} has no table [{command}]; it has {has}")
    known = set(known)
    flags = {key.replace("-", "_"): value for key, value in sections[command].items()}
    for key, value in flags.items():
        if key not in known:
            raise UsageError(
                f"{path.name} sets {key}, which attnscope {command} does not know; {did_you_mean(key, known)}"
            )
        if isinstance(value, dict | float) and not isinstance(value, float):
            raise UsageError(f"{path.name} sets {key} to a table; it takes a single value")
    return {key: "x".join(map(str, value)) if isinstance(value, list) else value for key, value in flags.items()}


def read_tables(path: Path) -> Tables:
    """The tables of a TOML file by their names.

    Raises:
        UsageError: the file cannot be read.
    """
    return {name: table for name, table in read_toml(path).items() if isinstance(table, dict)}


def read_toml(path: Path) -> dict[str, Any]:
    """All that a TOML file says.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{{config}} {literal(path)} cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{{config}} {literal(path)} is no TOML: {literal(error)}") from None
