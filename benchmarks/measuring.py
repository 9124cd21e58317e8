"""The figures of attnscope's measurements, on a quiet machine: how far the steps add up, how steady a total is from process
to process, what a busy machine does to it, and how close a step comes to its bound.

    python -m benchmarks.measuring [figure ...]

What a neighbour on the same machine may change from minute to minute is measured side by side with what is held against it.
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
from benchmarks.turns import PROCESSES, Turns, in_turn

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
    """A run of the command in a process of its own, as its JSON."""
    words = [sys.executable, "-m", "attnscope", *command.split(), "--json", *flags]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True, encoding="utf-8").stdout)


def sums(name: str, command: str, threads: int, runs: int = 5) -> Ratio:
    """Sum of the steps over the untouched whole, of each run and in the middle."""
    times = [run(command, "--threads", str(threads))["time"] for _ in range(runs)]
    return Ratio(
        f"sum over whole, {name}, {threads} thread{'s' if threads > 1 else ''}",
        [time["steps_sum_s"] / time["whole_interquartile_mean_s"] for time in times],
        1.01,
        0.99,
        each=(0.97, 1.03),
    )


def steadiness() -> list[Line]:
    """How the total and the steps of 5 % and more vary from process to process."""
    found = in_turn("steps")
    total = statistics.fmean(map(statistics.fmean, found["total"].rounds))
    shares = {name: statistics.fmean(map(statistics.fmean, turns.rounds)) / total for name, turns in found.items()}
    return [
        variation_line(name, turns, 0.02 if name == "total" else 0.05)
        for name, turns in found.items()
        if shares[name] >= 0.05
    ]


def variation_line(name: str, turns: Turns, bar: float) -> Line:
    """How far processes differ in one figure, beside how far they seem to where each measures but once."""
    verdict = "ok" if turns.between <= bar else "MISSED"
    return (
        f"| variation of {name} between {PROCESSES} processes in turn | {turns.between:.3f} | measured but once "
        f"{turns.as_they_came:.3f} | at most {bar} | {verdict} |"
    )


def busy() -> list[Line]:
    """A total under two busy loops over the same when quiet; and how many contended two-thread runs are flagged."""
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
        flagged = [any("--threads 1" in told for told in run("vit", "--threads", "2")["warnings"]) for _ in range(5)]
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    verdict = "ok" if all(flagged) else "MISSED"
    return [
        str(ratio),
        f"| contended two-thread runs that are flagged | {sum(flagged)} of {len(flagged)} | | all | {verdict} |",
    ]


def bounds(runs: int = 3) -> list[Ratio]:
    """Measured over the lower bound: the least of all steps that are no views, and the most of the matmuls."""
    least, most = [], []
    for _ in range(runs):
        rows = [step for command in SPECS.values() for step in run(command)["steps"] if step["bytes_read"]]
        over = [step["time"]["interquartile_mean_s"] / step["bound"]["seconds"] for step in rows]
        least.append(min(over))
        most.append(max(ratio for ratio, step in zip(over, rows, strict=True) if step["macs"]))
    return [
        Ratio("measured over bound, least of all steps", least, least=0.95),
        Ratio("measured over bound, most of all matmuls", most, 1.4),
    ]


def peaks() -> list[Line]:
    """How long the peaks take, and how far they spread from process to process."""
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, XDG_CACHE_HOME=folder):
        found = in_turn("peaks")
    seconds = statistics.median(map(statistics.median, found.pop("seconds").rounds))
    verdict = "ok" if seconds <= 0.6 else "MISSED"
    return [
        f"| peaks, seconds of measuring | {seconds:.2f} | | at most 0.6 | {verdict} |",
        *(variation_line(name, turns, 0.03) for name, turns in found.items()),
    ]


def instrumentation() -> list[Line]:
    """What watching costs a step, in microseconds; it is taken off."""
    stamp = statistics.median(run("vit")["time"]["stamp_s"] for _ in range(3)) * 1e6
    return [f"| instrumentation per step, µs | {stamp:.2f} | | at most 0.3 | {'ok' if stamp <= 0.3 else 'MISSED'} |"]


def every_sum() -> Iterator[Ratio]:
    """Sums over wholes, of all Specs, with one thread and with two."""
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
        prog="python -m benchmarks.measuring", description="The figures of attnscope's measurements."
    )
    parser.add_argument("figures", nargs="*", metavar="figure", help=f"{', '.join(FIGURES)}; all unless given")
    asked = parser.parse_args().figures
    if unknown := set(asked) - set(FIGURES):
        parser.error(f"{', '.join(sorted(unknown))}: there is {', '.join(FIGURES)}")
    print(HEAD)
    for name in asked or FIGURES:
        for line in FIGURES[name]():
            print(line, flush=True)


if __name__ == "__main__":
    main()
