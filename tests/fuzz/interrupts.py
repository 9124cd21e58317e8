"""Ctrl-C and SIGTERM at random moments of commands: each ends with a line, its exit code and no process left.

`python -m tests.fuzz.interrupts [--moments N] [--seed S]` prints each moment that ended otherwise.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

NET = "from torch import nn\n\ndef build():\n    return nn.MultiheadAttention(64, 4, batch_first=True)\n"
COMMANDS = (
    ("vit", "--budget", "0.3", "--tokens", "197", "--dim", "192", "--heads", "3"),
    ("swin", "--shift", "--backward", "--budget", "0.2", "--processes", "2"),
    ("compare", "--time", "--budget", "0.1", "--over", "resolution=14,28"),
    ("trace", "net.py:build", *3 * ("--input", "1,50,64"), "--time", "--budget", "0.3"),
    ("peaks", "--forget"),
)
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


def fault(words: tuple[str, ...], number: signal.Signals, after_s: float, folder: Path) -> str | None:
    """Send a signal to a command after a while; return what it did wrong, or None."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "XDG_CACHE_HOME": str(folder)},
    )
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    try:
        _, said = process.communicate(timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return "did not end"
    if left := _left(process.pid):
        os.killpg(process.pid, signal.SIGKILL)
        return f"left {len(left)} processes"
    if process.returncode == 0 and "Traceback" not in said:
        return None  # it was faster
    if process.returncode != 128 + number:
        return f"exit code {process.returncode}: {said[-600:]}"
    lines = [line for line in said.splitlines() if line]
    return None if lines[-1:] == [LINES[number]] and "Traceback" not in said else f"wrote {said[-600:]}"


def _left(group: int) -> list[int]:
    """Return the processes of a group that still run a moment later; a killed one needs some milliseconds to end."""
    running: list[int] = []
    for _ in range(20):
        running = [each.pid for each in psutil.process_iter() if _runs_in(each, group)]
        if not running:
            break
        time.sleep(0.05)
    return running


def _runs_in(process: psutil.Process, group: int) -> bool:
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False


def duration(words: tuple[str, ...], folder: Path) -> float:
    """Return the seconds of a command that nothing interrupts."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "attnscope", *words], cwd=folder, capture_output=True, check=True)
    return time.monotonic() - began


def main() -> None:
    """Interrupt the commands in turn, and exit with 1 if one ended otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.interrupts", description=main.__doc__)
    parser.add_argument("--moments", type=int, default=100, metavar="N", help="Number of interrupts.")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="Random seed.")
    chosen = parser.parse_args()
    rng, found = random.Random(chosen.seed), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "net.py").write_text(NET, encoding="utf-8")
        seconds = {words: duration(words, folder) for words in COMMANDS}
        for index in range(chosen.moments):
            words = COMMANDS[index % len(COMMANDS)]
            number = rng.choice(tuple(LINES))
            after_s = rng.uniform(STARTED_S, max(seconds[words], 2 * STARTED_S))
            if what := fault(words, number, after_s, folder):
                found += 1
                print(f"{' '.join(words)}: {number.name} after {after_s:.2f} s: {what}", flush=True)
    print(f"{chosen.moments} moments: {found} faults")
    raise SystemExit(found > 0)


if __name__ == "__main__":
    main()
