"""Experiments that justify the thresholds of noise: what each sign is on this machine, alone and beside busy processes.

    python -m benchmarks.thresholds [runs]

Each row is a command beside a number of other busy processes, in interleaved order. Each column is the median and the
range of one sign over the runs. `docs/thresholds.md` has the results.
"""

import json
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

BUSY = "while True: pass"
MOVING = "a = bytearray(2**27)\nb = bytearray(2**27)\nwhile True: a[:] = b"
COMMANDS = {
    "ViT-B, one thread": "vit",
    "ViT-B, two threads": "vit --threads 2",
    "Swin, one thread": "swin",
    "Swin, one thread, default allocator": "swin --alloc default",
}
OTHERS = {"none": (), "one busy loop": (BUSY,), "two busy loops": (BUSY, BUSY), "one that moves memory": (MOVING,)}

SIGNS: dict[str, Callable[[dict[str, Any]], float | None]] = {
    "sum / whole": lambda time: time["steps_sum_s"] / time["whole_interquartile_mean_s"],
    "IQR / mean": lambda time: time["whole_iqr_s"] / time["whole_interquartile_mean_s"],
    "clean runs": lambda time: time["clean_runs"] / time["tried"],
    "CPU share": lambda time: time["cpu_share"],
    "others": lambda time: time["others"],
    "waiting": lambda time: time["pressure"],
    "page faults": lambda time: time["page_faults"],
}
"""The signs of noise, from the time of a report."""


@contextmanager
def beside(programs: tuple[str, ...]) -> Iterator[None]:
    """Run programs in other processes within a `with` block."""
    running = [subprocess.Popen([sys.executable, "-c", program]) for program in programs]
    try:
        yield
    finally:
        for process in running:
            process.send_signal(signal.SIGKILL)
            process.wait()


def time_of(command: str) -> dict[str, Any]:
    """Return the time of a run in a new process."""
    words = [sys.executable, "-m", "attnscope", *command.split(), "--json"]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True, encoding="utf-8").stdout)[
        "time"
    ]


def cell(values: list[float | None]) -> str:
    """Return the median and the range of some values."""
    known = [value for value in values if value is not None]
    if not known:
        return "?"
    return f"{statistics.median(known):.3g} ({min(known):.3g} to {max(known):.3g})"


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for _ in range(runs):
        for others, programs in OTHERS.items():
            with beside(programs):
                for name, command in COMMANDS.items():
                    found.setdefault((name, others), []).append(time_of(command))
    print(f"| command | beside | {' | '.join(SIGNS)} |")
    print("|---" * (2 + len(SIGNS)) + "|")
    for (name, others), times in found.items():
        print(f"| {name} | {others} | {' | '.join(cell([sign(time) for time in times]) for sign in SIGNS.values())} |")


if __name__ == "__main__":
    main()
