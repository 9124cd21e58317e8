"""Run attnscope in fresh processes: a program, or two commands in turn. Does not import torch.

A process places its memory differently from the next one, and its host may be slower. Pairs of processes that run right
after each other sample both effects, and a drift of the machine affects both alike.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from attnscope.core.errors import AttnscopeError, DeviceError, UsageError, literal
from attnscope.profiling.intervals import BLOCKS, FEWEST_SAMPLES

DEFAULT_PROCESSES = BLOCKS
"""Processes of each command, unless more are requested: each block of the interval then has one pair."""
FEWEST_PROCESSES = FEWEST_SAMPLES
ERRORS = {error.exit_code: error for error in (UsageError, DeviceError)}
"""The error of a process by its exit code."""
OURS = "attnscope: "
"""The beginning of a line on stderr that attnscope writes, unlike the user's code."""
PATH = "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
"""The beginning of each program: its first argument is the search path."""
COMMAND = "from attnscope.cli import main; main()"
"""The program that is the command line of attnscope."""

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Command:
    """An attnscope command that writes JSON, and the surroundings in which it runs.

    Args:
        name: what the user calls the run, for progress.
        words: the command line after `attnscope`, without the flags for the output.
        folder: the working folder; None for that of this process.
        search_path: `sys.path` of the process; None for that of this process.
        without: environment variables that the process does not get.
        problem: the words before the message of a process that failed.
    """

    name: str
    words: Sequence[str]
    folder: Path | None = None
    search_path: Sequence[str] | None = None
    without: Sequence[str] = ()
    problem: str = ""


def run_in_turn(
    commands: tuple[Command, Command], processes: int, progress: Progress | None = None
) -> Iterator[tuple[str, str]]:
    """Run two commands in turn, each in this number of fresh processes; the order alternates from pair to pair.

    Yields:
        The JSON of both commands, for each pair of processes.

    Raises:
        UsageError, DeviceError, AttnscopeError: a process failed; the message is that of the process.
    """
    for index in range(processes):
        texts = ["", ""]
        for place in (1, 0) if index % 2 else (0, 1):
            if progress:
                progress(f"{commands[place].name}, process {index + 1} of {processes}", index / processes)
            texts[place] = run_once(commands[place])
        yield texts[0], texts[1]


def run_once(command: Command) -> str:
    """Run a command in a fresh process, and return its JSON.

    Raises:
        UsageError, DeviceError, AttnscopeError: the process failed; the message is that of the process.
    """
    with TemporaryDirectory(prefix="attnscope-") as folder:
        file = Path(folder) / "run.json"
        words = [*command.words, "--json", "--output", str(file)]
        done = launch(COMMAND, words, "", command.folder, command.search_path, command.without)
        if done.returncode == 0:
            return file.read_text(encoding="utf-8")
    raise _error(command.problem, done)


def launch(
    program: str,
    words: Sequence[str] = (),
    request: str = "",
    folder: Path | None = None,
    search_path: Sequence[str] | None = None,
    without: Sequence[str] = (),
) -> "subprocess.CompletedProcess[str]":
    """Run a program in a fresh process, and return its exit code and what it wrote.

    Args:
        program: the Python code.
        words: its arguments.
        request: its input.
        folder, search_path, without: as in Command.
    """
    path = [entry for entry in search_path or sys.path if isinstance(entry, str)]
    return subprocess.run(
        [sys.executable, "-P", "-c", PATH + program, json.dumps(path), *words],
        cwd=folder,
        env=_environment(os.environ, without),
        input=request,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )


def reason(done: "subprocess.CompletedProcess[str]") -> str:
    """Return why a process failed, in one line: that of attnscope, or else the last line that the process wrote."""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    ours = [line.removeprefix(OURS) for line in lines if line.startswith(OURS)]
    return (ours or lines or [f"the process ended with code {done.returncode}"])[-1]


def _environment(variables: Mapping[str, str], without: Sequence[str]) -> dict[str, str]:
    """Return the environment of a process, which writes no compiled files next to the user's sources."""
    kept = {name: value for name, value in variables.items() if name not in without}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": "utf-8"}


def _error(problem: str, done: "subprocess.CompletedProcess[str]") -> AttnscopeError:
    """Return the error of a process; that of attnscope has its type."""
    is_ours = any(line.startswith(OURS) for line in done.stderr.splitlines())
    kind = ERRORS.get(done.returncode, AttnscopeError) if is_ours else AttnscopeError
    return kind(literal(f"{problem}{reason(done)}"))
