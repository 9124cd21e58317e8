"""Ratios of two times measured in interleaved pairs: the order alternates, and the median of the ratios counts."""

import math
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Ratio:
    """A figure with a limit: its ratios, the largest and the smallest median allowed, and the range of each ratio."""

    name: str
    ratios: list[float]
    bar: float = math.inf
    least: float = 0.0
    each: tuple[float, float] = (0.0, math.inf)

    @property
    def ok(self) -> bool:
        lowest, highest = self.each
        within = lowest <= min(self.ratios) and max(self.ratios) <= highest
        return within and self.least <= statistics.median(self.ratios) <= self.bar

    def __str__(self) -> str:
        low, middle, high = statistics.quantiles(self.ratios, n=4)
        each = between(*self.each)
        bar = ", ".join(filter(None, [between(self.least, self.bar), each and f"each {each}"]))
        verdict = ("ok" if self.ok else "MISSED") if bar else ""
        return f"| {self.name} | {middle:.3f} | {low:.3f} to {high:.3f} | {bar} | {verdict} |"


def between(least: float, most: float) -> str:
    """Return the allowed range in words; empty without a limit."""
    if most == math.inf:
        return f"at least {least}" if least else ""
    return f"{least} to {most}" if least else f"at most {most}"


HEAD = "| figure | median | quartiles | must be | |\n|---|---|---|---|---|"


def of_processes(name: str, command: str, base: str, bar: float, pairs: int = 15) -> Ratio:
    """Measure the wall time of one command over another's, as whole processes that find compiled bytecode.

    pip compiles a package when it installs it; in a checkout, the warm-up pair compiles it.
    """
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}

    def run(line: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *shlex.split(line)], check=True, stdout=subprocess.DEVNULL, env=environment)
        return time.perf_counter() - start

    return Ratio(name, paired(lambda: run(command), lambda: run(base), pairs), bar)


def of_calls(
    name: str, call: Callable[[], object], base: Callable[[], object], bar: float = math.inf, pairs: int = 30
) -> Ratio:
    """Measure the time of one call over another's, in this process."""

    def run(function: Callable[[], object]) -> float:
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    return Ratio(name, paired(lambda: run(call), lambda: run(base), pairs), bar)


def paired(first: Callable[[], float], second: Callable[[], float], pairs: int) -> list[float]:
    """Return the ratios of pairs in alternating order, after one warm-up pair."""
    first(), second()
    ratios = []
    for pair in range(pairs):
        if pair % 2:
            a, b = first(), second()
        else:
            b, a = second(), first()
        ratios.append(a / b)
    return ratios
