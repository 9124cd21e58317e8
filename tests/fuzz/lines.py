"""Command lines from the flags of the commands themselves: legal, boundary, wrong, huge, Unicode, paths of every kind."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnscope.cli.commands import Commands

INTEGERS = ("1", "2", "3", "4", "7", "8", "12", "14", "16", "24", "49", "56", "64", "96", "224")
NUMBERS = ("0.5", "1", "2", "4", "0.25", "1e-3", "10%", "2%")
SIDES = ("7", "14", "56", "7x7", "14x7", "8x14x14", "56x48")
LISTS = ("2,2", "2,2,6,2", "3,6,12,24", "1,197,768", "1,56,56,96")
WRONG = (
    *("", " ", "-1", "0", "00", "1.5", "abc", "nan", "inf", "-inf", "1e3", "1e400", "0x10", "٣", "³", "１２", "1_000"),
    *(
        "99999999999999999999",
        "1000000000000",
        "999999999999",
        "2147483648",
        "9223372036854775808",
        "7x",
        "x7",
        "7x7x7x7",
    ),
    *(
        ",",
        "1,,2",
        "1,2,",
        "x",
        "×",
        "None",
        "true",
        "--",
        "-",
        "%",
        "5%%",
        "{dim}",
        "{",
        "}}",
        "=1+1",
        "\x1b[2J",
        "\u202e",
    ),
    *("é", "日本語", "🎉", "\udc80", "a" * 300, "a" * 5000, "'", '"', "$(true)", "a\nb", "[bold]x[/bold]", "vit:dim"),
)
NAMES = (
    "vit",
    "swin",
    "pvt",
    "nat",
    "cpu",
    "meta",
    "auto",
    "float16",
    "bfloat16",
    "json",
    "csv",
    "md",
    "svg",
    "html",
    "block",
    "model",
)
OVERS = (
    "resolution=7:56:7",
    "dim=96:192:96",
    "tokens=4:64:2x",
    "window=7,8",
    "resolution=7:56:0",
    "x=1:2:3",
    "dim=1:1e9:1",
)
PRESETS = ("vit-b-16-224", "swin-t-224", "deit-ti-224", "swin_tiny_patch4_window7_224", "vit-x")
CONTENDERS = (
    "vit",
    "swin",
    "swin:shift",
    "vit:kernel=eager",
    "swin:window=8",
    "swin:window",
    "vit:",
    ":",
    "pvt",
    "xca",
)
SLOW = ("--processes", "--kernels", "--rerun", "--against", "--time", "--audit", "--until", "--backward")
"""Flags that take seconds or more; most lines leave them out."""
MOST_WORDS = 7


@dataclass(frozen=True)
class Place:
    """A folder with files of every kind, for flags and arguments that take one.

    Args:
        folder: the folder.
        files: the paths, most of which are not what a command expects.
        targets: what `trace` can take.
    """

    folder: Path
    files: tuple[str, ...]
    targets: tuple[str, ...]


def command_line(rng: random.Random, place: Place) -> list[str]:
    """Return the words of a random command line, without `attnscope`."""
    commands = Commands()
    name = rng.choice([*commands, *(("", "help", "vitt", "-x") if rng.random() < 0.03 else ())])
    if name not in commands:
        return [name, *_wrong(rng, rng.randrange(3))]
    params = commands[name].params
    words = [name]
    for param in params:
        if param.param_type_name == "argument" and rng.random() < 0.9:
            words += [_argument(rng, param, place) for _ in range(rng.randint(1, 3) if param.nargs != 1 else 1)]
    flags = [param for param in params if param.param_type_name == "option" and _is_quick(param, rng)]
    for param in rng.choices(flags, k=rng.randrange(MOST_WORDS)) if flags else []:
        words += _flag(rng, param, place)
    if rng.random() < 0.05:
        words += _wrong(rng, 1)
    return [*words, *_quick(params)]


def environment(rng: random.Random, place: Place) -> dict[str, str]:
    """Return variables that set flags of a command; usually none."""
    if rng.random() > 0.1:
        return {}
    by_command = [[each for each in command.params if isinstance(each.envvar, str)] for command in Commands().values()]
    param = rng.choice(rng.choice([params for params in by_command if params]))  # a command may have no variable
    value = _value(rng, param, place)
    return {param.envvar: value.replace("\x00", "")}


def _is_quick(param: Any, rng: random.Random) -> bool:
    return not set(param.opts) & {*SLOW, "--help"} or rng.random() < 0.05


def _quick(params: Sequence[Any]) -> list[str]:
    """Return flags that keep a line short: no times, or times within a moment on the CPU."""
    names = {name for param in params for name in (*param.opts, *param.secondary_opts)}
    budget = ["--budget", "0.01"] if "--budget" in names else []
    return [*budget, *(["--no-time"] if "--no-time" in names else [])]


def _flag(rng: random.Random, param: Any, place: Place) -> list[str]:
    name = rng.choice([*param.opts, *param.secondary_opts])
    if getattr(param, "is_flag", False) and rng.random() < 0.97:
        return [name]
    value = _value(rng, param, place)
    return [f"{name}={value}"] if rng.random() < 0.3 else [name, value]


def _argument(rng: random.Random, param: Any, place: Place) -> str:
    own = {"MODULE": place.targets, "ATTENTION": CONTENDERS, "BEFORE": place.files, "AFTER": place.files}
    known = next((values for word, values in own.items() if word in str(param.metavar)), place.files)
    return rng.choice(known) if rng.random() < 0.8 else rng.choice((*WRONG, *place.files))


OTHERS: dict[str, tuple[str, ...]] = {
    "FIGURE": ("17.6", "86.6M", "4.5G", "1e9"),
    "LIMITS": ("1.1", "macs=1.1", "peak_memory=2GiB", "macs=1.1,params=1", "x=1"),
    "ROW,COLUMN": ("5,9", "0,0", "13,13", "14,14", "99,99", "5"),
    "NAME=VALUE": ("dim=8", "depth=2", "x=1", "dim", "=", "dim=none"),
    "[NAME=]SHAPE[:DTYPE]": ("2,8", "1,3,224,224", "2,8:int64", "x=2,8", "0,8", "2,-8", "1,999999999999,8", "2,8:x"),
    "PATH": ("0", "1", "", "0.0", "layers"),
    "REV": ("HEAD", "HEAD~1", "nonsense", "-x"),
}
KINDS: dict[str, tuple[str, ...]] = {"N": INTEGERS, "X": NUMBERS, "X%": NUMBERS, "N,N,...": LISTS, **OTHERS}


def _value(rng: random.Random, param: Any, place: Place) -> str:
    if rng.random() < 0.3:
        return rng.choice((*WRONG, *place.files[:4]))
    metavar = str(param.metavar or "")
    if "--preset" in param.opts:
        return rng.choice(PRESETS)
    if "--over" in param.opts:
        return rng.choice(OVERS)
    if metavar in ("FILE", "FOLDER"):
        return rng.choice(place.files)
    if metavar == "NAME":
        return rng.choice(_choices(param) or NAMES)
    return rng.choice(KINDS.get(metavar, SIDES if "x" in metavar.lower() else NAMES))


def _choices(param: Any) -> Sequence[str]:
    """Return the words that shell completion offers for a flag."""
    complete: Callable[..., Any] | None = getattr(param, "_custom_shell_complete", None)
    return [] if complete is None else [item.value for item in complete(None, param, "")]


def _wrong(rng: random.Random, count: int) -> list[str]:
    return [rng.choice((*WRONG, "--x", "--dim", "-o", "-q", "-zz", "--no-dim", "--window=7=7")) for _ in range(count)]
