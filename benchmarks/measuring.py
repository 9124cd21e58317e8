"""Accuracy of attnscope's measurements on a quiet machine.

    python -m benchmarks.measuring [figure ...]

The figures are:

* the sum of the steps over the whole;
* the variation between processes;
* the effect of a busy machine;
* the ratio of each step to its lower bound.

Figures that depend on the machine's load are interleaved with their baseline.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from unittest import mock

from attnscope.profiling import process
from benchmarks.ratios import HEAD, Ratio, paired
from benchmarks.turns import PROCESSES, Turns, interleaved

SPECS = {
    "ViT-B": "vit",
    "ViT-B, batch 8": "vit --batch 8",
    "Swin stage 1": "swin",
    "Swin stage 1, shifted": "swin --shift",
    "Swin stage 1, padded": "swin --resolution 50x60 --shift",
    "1×3136×768": "vit --tokens 3136",
}
BUSY = "while True: pass"

Line = str
"""A row of the page."""


def run(command: str, *flags: str) -> dict[str, Any]:
    """Run the command in a new process and return its JSON."""
    words = [sys.executable, "-m", "attnscope", *command.split(), "--json", *flags]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True, encoding="utf-8").stdout)


def sums(name: str, command: str, threads: int, runs: int = 5) -> Ratio:
    """Measure the sum of the steps over the untouched forward; limit each run and the median."""
    times = [run(command, "--threads", str(threads))["time"] for _ in range(runs)]
    return Ratio(
        f"sum over whole, {name}, {threads} thread{'s' if threads > 1 else ''}",
        [time["steps_sum_s"] / time["whole_interquartile_mean_s"] for time in times],
        1.01,
        0.99,
        each=(0.97, 1.03),
    )


def steadiness() -> list[Line]:
    """Return the variation between processes of the total and of steps with at least 5 % of it."""
    found = interleaved("steps")
    total = statistics.fmean(map(statistics.fmean, found["total"].rounds))
    shares = {name: statistics.fmean(map(statistics.fmean, turns.rounds)) / total for name, turns in found.items()}
    return [
        variation_line(name, turns, 0.02 if name == "total" else 0.05)
        for name, turns in found.items()
        if shares[name] >= 0.05
    ]


def variation_line(name: str, turns: Turns, bar: float) -> Line:
    """Return a row with the variation between interleaved processes, and that in a single round."""
    verdict = "ok" if turns.between <= bar else "MISSED"
    return (
        f"| variation of {name} between {PROCESSES} interleaved processes | {turns.between:.3f} | single round "
        f"{turns.within_a_round:.3f} | at most {bar} | {verdict} |"
    )


def busy() -> list[Line]:
    """Return the total under two busy loops over the quiet one, and how many contended two-thread runs warn."""
    loops = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(2)]

    def total(loops_run: bool) -> float:
        for loop in loops:
            loop.send_signal(signal.SIGCONT if loops_run else signal.SIGSTOP)
        return run("vit")["time"]["whole_interquartile_mean_s"]

    try:
        ratio = Ratio(
            "total under two busy loops over quiet", paired(lambda: total(True), lambda: total(False), 5), 1.05, 0.95
        )
        for loop in loops:
            loop.send_signal(signal.SIGCONT)
        warned = [any("--threads 1" in text for text in run("vit", "--threads", "2")["warnings"]) for _ in range(5)]
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    verdict = "ok" if all(warned) else "MISSED"
    return [
        str(ratio),
        f"| contended two-thread runs with a warning | {sum(warned)} of {len(warned)} | | all | {verdict} |",
    ]


def bounds(runs: int = 3) -> list[Ratio]:
    """Measure time over the roofline lower bound, time over the kernels alone, and the variation of the bound."""
    over: dict[str, list[float]] = {"bound": [], "warm": [], "cold": []}
    bounds_s = []
    for _ in range(runs):
        rows = [step for command in SPECS.values() for step in run(command, "--roofline")["steps"]]
        bounded, matmuls = [row for row in rows if row["roofline"]], [row for row in rows if row["macs"]]
        over["bound"].append(min(_seconds(row) / row["roofline"]["seconds"] for row in bounded))
        for kind in ("warm", "cold"):
            over[kind].append(max(_seconds(row) / row["alone"][f"{kind}_s"] for row in matmuls))
        bounds_s.append(sum(row["roofline"]["seconds"] for row in bounded))
    return [
        Ratio("time over lower bound, minimum of all steps", over["bound"], least=0.999),
        Ratio("time over kernels alone with warm caches, maximum of all matmuls", over["warm"]),
        Ratio("time over kernels alone with cold caches, maximum of all matmuls", over["cold"]),
        Ratio("lower bound over that of the last run", [one / bounds_s[-1] for one in bounds_s], 1.03, 0.97),
    ]


def _seconds(step: dict[str, Any]) -> float:
    return step["time"]["interquartile_mean_s"]


def peaks() -> list[Line]:
    """Return the seconds that the peaks take, and their variation between processes."""
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, XDG_CACHE_HOME=folder):
        found = interleaved("peaks")
    seconds = statistics.median(map(statistics.median, found.pop("seconds").rounds))
    verdict = "ok" if seconds <= 0.6 else "MISSED"
    return [
        f"| peaks, seconds to measure | {seconds:.2f} | | at most 0.6 | {verdict} |",
        *(variation_line(name, turns, 0.03) for name, turns in found.items()),
    ]


def instrumentation() -> list[Line]:
    """Return the cost of the hooks in microseconds for each step; attnscope subtracts it."""
    stamp = statistics.median(run("vit")["time"]["stamp_s"] for _ in range(3)) * 1e6
    return [f"| instrumentation per step, µs | {stamp:.2f} | | at most 0.3 | {'ok' if stamp <= 0.3 else 'MISSED'} |"]


def every_sum() -> Iterator[Ratio]:
    """Yield the sum over the whole for each Spec, with one thread and with two."""
    for threads in range(1, min(2, process.cores()) + 1):
        for name, command in SPECS.items():
            yield sums(name, command, threads)


FIGURES: dict[str, Callable[[], Iterable[object]]] = {
    "sums": every_sum,
    "steadiness": steadiness,
    "busy": busy,
    "instrumentation": instrumentation,
    "bounds": bounds,
    "peaks": peaks,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.measuring", description="Measure the accuracy of attnscope's measurements."
    )
    parser.add_argument("figures", nargs="*", metavar="figure", help=f"One of {', '.join(FIGURES)} (default: all).")
    names = parser.parse_args().figures
    if unknown := set(names) - set(FIGURES):
        parser.error(f"figure must be one of {', '.join(FIGURES)}, got {', '.join(sorted(unknown))}")
    print(HEAD)
    for name in names or FIGURES:
        for line in FIGURES[name]():
            print(line, flush=True)


if __name__ == "__main__":
    main()
