"""Ctrl-C and SIGTERM at random moments of commands in a terminal: each ends with a line and its exit code.

No process is left, the terminal is as before, and files are complete: the old or the new one.
`python -m tests.fuzz.interrupts [--moments N] [--seed S]` prints each moment that ended otherwise.
"""

import argparse
import collections
import fcntl
import json
import os
import pty
import random
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

import psutil

NET = "from torch import nn\n\ndef build():\n    return nn.MultiheadAttention(64, 4, batch_first=True)\n"
COMMANDS = (
    ("vit", "--budget", "0.3", "--tokens", "197", "--dim", "192", "--heads", "3", "--save", "run.json"),
    ("swin", "--shift", "--backward", "--budget", "0.2", "--processes", "2", "--json", "-o", "run.json"),
    ("compare", "--time", "--budget", "0.1", "--over", "resolution=14,28"),
    ("trace", "net.py:build", *3 * ("--input", "1,50,64"), "--time", "--budget", "0.3", "--json", "-o", "run.json"),
    ("peaks", "--forget"),
    ("explore", "swin", "--budget", "0.2"),
)
ENDLESS = {"explore": 4.0}
"""Commands that end only by a key or a signal, and the seconds within which they are stopped."""
PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in the background
from attnscope.cli import main
main()
"""
LINES = {signal.SIGINT: "attnscope: interrupted", signal.SIGTERM: "attnscope: terminated"}
STARTED_S = 0.15
"""Seconds that Python itself takes to start at most; before, no code of attnscope runs."""
LONGEST_S = 20.0
OLD = json.dumps({"old": 1})
"""The file that a command replaces."""
ON_AT_FIRST = {"7", "25"}
"""Modes of a terminal that are set when a command starts: lines wrap, and the cursor is shown."""
SEQUENCE = re.compile(r"\x1b\[[^a-zA-Z]*[a-zA-Z]|\r")


def fault(words: tuple[str, ...], number: signal.Signals, after_s: float, folder: Path, group: bool = False) -> str:
    """Send a signal to a command in a terminal after a while.

    Args:
        words: the command.
        number: the signal.
        after_s: seconds until the signal.
        folder: the current folder of the command, and its cache.
        group: send the signal to the processes that the command started too, as Ctrl-C in a terminal does.

    Returns:
        "" if it ended as it should, "faster" if it had ended before, or what it did wrong.
    """
    (folder / "run.json").write_text(OLD, encoding="utf-8")
    there = {path.name for path in folder.iterdir()}
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    before = termios.tcgetattr(slave)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=folder,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        env={**os.environ, "XDG_CACHE_HOME": str(folder), "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"},
    )
    try:
        said, children = _read(process, master, after_s), set[int]()
        if running := process.poll() is None:
            children = {child.pid for child in psutil.Process(process.pid).children(recursive=True)}
            os.killpg(process.pid, number) if group else process.send_signal(number)
            said += _read(process, master, LONGEST_S)
        if process.poll() is None:
            return f"did not end: {_shortened(said)}"
        if left := _left(process.pid, children):
            for each in left:
                os.kill(each, signal.SIGKILL)
            return f"left {len(left)} processes"
        wrong = _ending(process.returncode, number, said)
        if termios.tcgetattr(slave) != before or (modes := _modes(said)) != ON_AT_FIRST:
            wrong = wrong or f"altered the terminal: {sorted(modes)}"
        return wrong or _files(folder, there) or ("" if running and process.returncode else "faster")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(master)
        os.close(slave)


def _read(process: "subprocess.Popen[bytes]", terminal: int, longest_s: float) -> str:
    """Return what a process writes to its terminal until it ends, at most for a while."""
    ends, written = time.monotonic() + longest_s, b""
    while (left_s := ends - time.monotonic()) > 0:
        ended = process.poll() is not None
        if select.select([terminal], [], [], 0 if ended else min(left_s, 0.02))[0]:
            written += os.read(terminal, 65536)
        elif ended:
            break
    return written.decode("utf-8", "replace")


def _ending(code: int, number: signal.Signals, said: str) -> str:
    """Return what is wrong with the exit code and the last line of a command; it may also have ended in time."""
    if "Traceback" in said or code not in (0, 128 + number):
        return f"exit code {code}: {_shortened(said)}"
    lines = [line for line in said.splitlines() if SEQUENCE.sub("", line).strip()]
    last = SEQUENCE.split(lines[-1])[-1] if lines else ""
    return f"wrote {_shortened(said)}" if code and last != LINES[number] else ""


def _shortened(said: str) -> str:
    return said if len(said) < 2000 else f"{said[:1000]} ... {said[-1000:]}"


def _modes(said: str) -> set[str]:
    """Return the modes of a terminal that are set in the end, and what was pushed and not popped."""
    on = set(ON_AT_FIRST)
    for numbers, letter in re.findall(r"\x1b\[\?([\d;]+)([hl])", said):
        on = on | {*numbers.split(";")} if letter == "h" else on - {*numbers.split(";")}
    pushed = len(re.findall(r"\x1b\[>\d*u", said)) - len(re.findall(r"\x1b\[<\d*u", said))
    colors = re.findall(r"\x1b\[([\d;]*)m", said)
    return on | ({"keys"} if pushed > 0 else set()) | ({"color"} if colors and colors[-1] not in ("", "0") else set())


def _files(folder: Path, there: set[str]) -> str:
    """Return what is wrong with the files that a command wrote or left."""
    for file in (folder / "run.json", *folder.glob("attnscope/*")):
        try:
            if not isinstance(json.loads(file.read_text(encoding="utf-8")), dict):
                return f"{file.name} has no object"
        except ValueError:
            return f"{file.name} is not complete"
    left = {path.name for path in folder.iterdir()} - there - {"attnscope", "__pycache__"}
    return f"left {sorted(left)}" if left else ""


def _left(session: int, children: set[int]) -> list[int]:
    """Return what still runs of a session and its children a moment later; a killed process needs time to end."""
    running: list[int] = []
    for _ in range(20):
        running = [each.pid for each in psutil.process_iter() if _runs(each, session, children)]
        if not running:
            break
        time.sleep(0.05)
    return running


def _runs(process: psutil.Process, session: int, children: set[int]) -> bool:
    """Return whether a process runs that has this session, or is one of the children, which may have their own."""
    try:
        return (
            process.pid in children or os.getsid(process.pid) == session
        ) and process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False


def duration(words: tuple[str, ...], folder: Path) -> float:
    """Return the seconds of a command that nothing interrupts."""
    if words[0] in ENDLESS:
        return ENDLESS[words[0]]
    began = time.monotonic()
    variables = {**os.environ, "XDG_CACHE_HOME": str(folder)}
    command = [sys.executable, "-m", "attnscope", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=variables)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}: {done.stderr}")
    return time.monotonic() - began


def main() -> None:
    """Interrupt the commands in turn, and exit with 1 if one ended otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.interrupts", description=main.__doc__)
    parser.add_argument("--moments", type=int, default=100, metavar="N", help="Number of interrupts.")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="Random seed.")
    chosen = parser.parse_args()
    rng, ends = random.Random(chosen.seed), collections.Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "net.py").write_text(NET, encoding="utf-8")
        seconds = {words: duration(words, folder) for words in COMMANDS}
        for index in range(chosen.moments):
            words = COMMANDS[index % len(COMMANDS)]
            number = rng.choice(tuple(LINES))
            after_s, group = rng.uniform(STARTED_S, max(seconds[words], 2 * STARTED_S)), rng.random() < 0.5
            if rng.random() < 0.5:  # without the peaks of the machine, a command measures them first
                shutil.rmtree(folder / "attnscope", ignore_errors=True)
            what = fault(words, number, after_s, folder, group)
            ends["ended before the signal" if what == "faster" else "faults" if what else "stopped"] += 1
            if what not in ("", "faster"):
                whom = " to its group" if group else ""
                print(f"{' '.join(words)}: {number.name}{whom} after {after_s:.2f} s: {what}", flush=True)
    print(f"{chosen.moments} moments: {', '.join(f'{count} {end}' for end, count in ends.items())}")
    raise SystemExit(ends["faults"] > 0)


if __name__ == "__main__":
    main()
