"""The start page and help pages: groups, widths, colors."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from attnscope import attentions
from attnscope.cli.commands import Command, build, describe
from attnscope.cli.extension import COMMAND_GROUPS, OTHERS
from attnscope.cli.flags import GROUPS
from attnscope.cli.help import WAYS_IN
from attnscope.cli.program import app
from attnscope.core.terminal import fold
from attnscope.networks import SCOPES
from attnscope.ops.kernels import KERNELS
from attnscope.profiling.options import DEVICES
from tests.conftest import Run

COMMANDS = (*attentions.names(), *OTHERS)
ESCAPE = re.compile(r"\x1b\[[\d;]*m")

GLOSSARY = Path(__file__).parents[1] / "docs" / "glossary.md"
TERMS = (
    "allocator", "arithmetic intensity", "attention", "attention head", "attention weights", "backward",
    "bandwidth", "baseline", "batch size", "bias MLP", "block", "break-even", "budget", "channel", "class",
    "class token", "config file", "contender", "context", "cosine attention", "counting convention",
    "crossover", "cyclic shift", "device", "distillation token", "dropout", "dtype", "eager",
    "embedding dimension", "encoder-decoder attention", "FLOP", "forward", "global attention", "gradient",
    "grid", "grouped-query attention", "image", "inference", "interquartile range", "kernel", "key",
    "key/value heads", "log-spaced continuous position bias", "lower bound", "MAC", "mask", "matmul", "MLP",
    "model", "multi-head self-attention", "network", "noisy", "padding", "parameter", "partition", "patch",
    "peak activation memory", "peak memory", "peaks", "preset", "projection", "query", "receptive field",
    "relative position bias", "relative position index", "remainder", "roofline", "score", "sdpa", "seed",
    "shape comment", "shift", "shifted window", "softmax", "stage", "steady", "step", "third-party module",
    "thread", "timm", "token", "torchvision", "trace", "training", "value", "verify", "warm-up", "whole",
    "window", "window batch", "windowed attention",
)  # fmt: skip
"""Terms that need an entry in the glossary if a help text uses them. `terms_in` also finds others by their spelling."""
COMMON = {"CI", "CPU", "JSON", "TOML", "module-level"}
"""Names and hyphenated words that need no definition."""
PLACEHOLDERS = {"CLASS", "COMMAND", "FILE", "MODULE", "NAME", "PACKAGE", "TYPE"}


def titles(page: str) -> list[str]:
    """Return the titles of the lists on a help page."""
    return re.findall(r"^(\S.*):$", page, re.MULTILINE)


def listed(page: str) -> dict[str, list[str]]:
    """Return the flags or commands in each list of a help page, by title."""
    found: dict[str, list[str]] = {}
    for line in page.splitlines():
        if line and not line.startswith(" "):
            rows = found.setdefault(line.rstrip(":"), [])
        elif re.match(r"  \S", line) and found:
            rows.append(line.split()[0].rstrip(","))
    return found


def glossary() -> dict[str, str]:
    """Return the definitions of the glossary, by the terms in lower case."""
    entries = re.findall(r"^\*\*(.+?)\*\*: (.+)$", GLOSSARY.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r" \(\w+\)$", "", term).lower(): definition for term, definition in entries}


def terms_in(text: str) -> set[str]:
    """Return the technical terms in a help text: those of TERMS, hyphenated words, and names with several capitals."""
    text = re.sub(r"--[\w-]+|(?<!\S)~?/\S+", " ", text)  # flags and paths are not terms
    listed = {term for term in TERMS if re.search(rf"(?<![\w-]){term}(e?s)?(?![\w-])", text, re.IGNORECASE)}
    words = set(re.findall(r"[A-Za-z]+(?:-[A-Za-z]+)*", text)) - COMMON - PLACEHOLDERS
    return listed | {word for word in words if "-" in word or re.search("[A-Z].*[A-Z]", word)}


def undefined(text: str) -> set[str]:
    """Return the technical terms in a help text that the glossary does not define.

    A term of TERMS needs an entry of its own. A hyphenated word or a name may be one word of an entry, as "grouped-query"
    is in "grouped-query attention".
    """
    entries = glossary().keys()
    words = {word for entry in entries for word in entry.split()}
    return {
        term
        for term in terms_in(text)
        if not {term.lower(), term.lower().removesuffix("s")} & (entries if term in TERMS else {*entries, *words})
    }


def help_texts(command: typer.core.TyperCommand | typer.core.TyperGroup) -> list[str]:
    """Return the help of a command and of each of its parameters, with defaults of several words."""
    texts = [command.help, command.short_help, None if isinstance(command, Command) else command.epilog]
    for param in command.params:
        texts += [param.help, param.show_default if " " in str(param.show_default) else None]
    return [text for text in texts if text]


def test_the_start_page_shows_example_commands_and_help(attnscope: Run):
    done = attnscope()
    assert (done.returncode, done.stderr) == (0, "")
    assert titles(done.stdout) == list(WAYS_IN)
    assert len(done.stdout.splitlines()) <= 24
    commands = [command for rows in WAYS_IN.values() for command, _ in rows]
    assert all(command in done.stdout for command in commands)
    for command in commands:
        assert command.split()[1] in {*COMMANDS, "COMMAND", "--help"}


def test_the_commands_of_the_start_page_run(attnscope: Run, tmp_path):
    """`trace` is excluded: it needs a module. The line before `diff` saves the runs that `diff` compares."""
    commands = [command for rows in WAYS_IN.values() for command, _ in rows if not re.search("[A-Z]", command)]
    for command in commands:
        words = [str(tmp_path / "a.json") if word.endswith(".json") else word for word in shlex.split(command)[1:]]
        words += ["--help"] * (words[0] == "explore")  # which needs a terminal
        done = attnscope(*words, *["--budget=0.02"] * (words[0] in ("vit", "swin")))
        assert done.returncode == 0, done.stderr


def test_help_lists_all_commands_in_their_groups(attnscope: Run):
    groups = listed(attnscope("--help").stdout)
    assert [title for title in groups if title in COMMAND_GROUPS] == list(COMMAND_GROUPS)
    for name in COMMANDS:
        assert name in groups[describe(name)[0]]
        assert build(name).get_short_help_str() == describe(name)[1]
    assert "-h" in groups["Options"]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_flag_is_in_the_group_that_it_declares(attnscope: Run, name: str):
    groups = listed(attnscope(name, "--help").stdout)
    known = [title for title in groups if title in GROUPS]
    assert known == [group for group in GROUPS if group in known]
    assert "Options" not in groups
    for param in build(name).params:
        if param.param_type_name == "option":
            assert param.rich_help_panel in GROUPS
            assert {*param.opts} & {*groups[param.rich_help_panel]}
    assert groups["Output"][-1] == "-h"


def test_the_most_used_flags_are_listed_first(attnscope: Run):
    groups = listed(attnscope("swin", "--help").stdout)
    assert groups["Attention"][:2] == ["--dim", "--heads"]
    assert groups["Network"][:4] == ["--scope", "--preset", "--stage", "--block"]
    assert groups["Run"][:3] == ["--kernel", "--dtype", "--device"]
    assert groups["Measure"][0] == "--time"


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("words", [[], ["--help"], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_no_line_is_wider_than_the_terminal(attnscope: Run, words: list[str], width: int):
    page = attnscope(*words, COLUMNS=str(width)).stdout
    assert max(map(len, page.splitlines())) <= width


def test_a_wrapped_example_is_one_command():
    command = "attnscope trace 'my file.py:Attention' --arg dim=96 --input 1,49,96"
    lines = fold(command, 30)
    assert max(map(len, lines)) <= 30
    echoed = subprocess.run(
        ["bash", "-c", "\n".join(lines).replace("attnscope", "printf '%s\\n'", 1)], capture_output=True
    )
    assert echoed.stdout.decode().splitlines() == shlex.split(command)[1:]
    assert fold(command, 100) == [command]


@pytest.mark.parametrize("words", [[], ["--help"], ["vit", "--help"]], ids=" ".join)
def test_only_terminals_get_colors(attnscope: Run, words: list[str]):
    plain = attnscope(*words).stdout
    assert "\x1b" not in plain
    colored = attnscope(*words, FORCE_COLOR="1", TERM="xterm").stdout
    assert "\x1b[1m" in colored
    assert "\x1b[36m" in colored
    assert ESCAPE.sub("", colored) == plain
    assert attnscope(*words, FORCE_COLOR="1", NO_COLOR="1").stdout == plain
    assert attnscope(*words, FORCE_COLOR="1", TERM="dumb").stdout == plain


def test_help_has_colors_on_a_real_terminal():
    import pty

    master, slave = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen([sys.executable, "-m", "attnscope"], stdout=slave, env=env):
        os.close(slave)
        read = os.read(master, 4096)
    os.close(master)
    assert b"\x1b[1m" in read


@pytest.mark.parametrize("name", COMMANDS)
def test_the_glossary_defines_the_terms_in_the_help_of_each_flag(name: str):
    texts = help_texts(build(name))
    assert {text: missing for text in texts if (missing := undefined(text))} == {}
    assert any(terms_in(text) for text in texts)


def test_the_glossary_defines_the_terms_of_the_start_page_and_of_the_root():
    shown = [text for title, rows in WAYS_IN.items() for text in (title, *(text for _, text in rows))]
    for text in [*shown, *help_texts(typer.main.get_command(app))]:
        assert undefined(text) == set()


def test_the_glossary_defines_kernels_devices_and_scopes():
    entries = glossary()
    assert set(KERNELS) <= entries.keys()
    for entry, values in (("device", DEVICES), ("scope", SCOPES)):
        assert [value for value in values if value not in entries[entry]] == []


@pytest.mark.parametrize(
    ("text", "terms", "missing"),
    [
        ("Number of MACs of a W-MSA, by --head-count.", {"MACs", "W-MSA"}, set()),
        ("Use log-space QZX.", {"log-space", "QZX"}, {"log-space", "QZX"}),
        ("Batch size of grouped-query models.", {"batch size", "grouped-query", "model"}, set()),
        ("Set the bandwidths.", {"bandwidth"}, set()),
        ("Module: FILE.py:NAME or PACKAGE.MODULE:NAME or timm:NAME.", {"timm"}, set()),
        ("Add a bias to the CPU.", set(), set()),
    ],
)
def test_terms_are_found_in_help_texts(text: str, terms: set[str], missing: set[str]):
    assert terms <= terms_in(text)
    assert undefined(text) == missing


@pytest.mark.parametrize("words", [[name, "--help"] for name in (*attentions.names(), *OTHERS)] + [["--help"], []])
def test_help_is_readable_in_an_ascii_terminal(attnscope: Run, words: list[str]):
    screen = attnscope(*words, PYTHONIOENCODING="ascii").stdout
    assert screen.isascii()
    assert "?" not in screen.replace("did you mean", "")
    has_scale = "--qk-scale" in screen and re.search(r"--qk-scale X +Not available", screen) is None
    assert ("q*k^T" in screen) is has_scale


def test_an_error_is_readable_in_an_ascii_terminal(attnscope: Run):
    done = attnscope("vit", "--no-time", PYTHONIOENCODING="ascii", ATTNSCOPE_VIT_DIM="7×7")
    assert done.stderr == "attnscope: ATTNSCOPE_VIT_DIM must be an integer (got 7x7)\n"
