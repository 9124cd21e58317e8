"""Interleaved processes that measure the same figure: their variation without that of the machine over time.

Processes that run one after the other also differ by the load of the machine at that time. Interleaved processes meet the
same load on average. The remaining variation is their own: the addresses of their memory, the state of their allocator.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from attnscope.profiling import process

process.pin_allocator()  # before torch is imported, as the command does

from attnscope import SwinSpec, explore  # noqa: E402
from attnscope.profiling.peaks import measure_peaks_by_name  # noqa: E402
from attnscope.render.peaks import peak_rows  # noqa: E402

Figures = dict[str, float]
"""Seconds or rates by name."""

PROCESSES = 8
ROUNDS = 9


@dataclass
class Turns:
    """The values of one figure: a list of rounds, each with one value for each process."""

    rounds: list[list[float]]

    @property
    def between(self) -> float:
        """Return the coefficient of variation between processes.

        Each value is divided by the mean of its round; a process counts with the median of its quotients.
        """
        quotients = [[value / statistics.fmean(one) for value in one] for one in self.rounds]
        return variation([statistics.median(of_one) for of_one in zip(*quotients, strict=True)])

    @property
    def within_a_round(self) -> float:
        """Return the median over the rounds of the coefficient of variation in one round.

        This includes what changes on the machine between one process and the next.
        """
        return statistics.median(variation(one) for one in self.rounds)


def interleaved(figure: str) -> dict[str, Turns]:
    """Measure a figure of MEASURES in PROCESSES processes, ROUNDS times; each round starts with another process."""
    with ExitStack() as stack:
        measurers = [stack.enter_context(worker(figure)) for _ in range(PROCESSES)]
        rounds: list[list[Figures]] = []
        for turn in range(ROUNDS):
            order = [(turn + place) % PROCESSES for place in range(PROCESSES)]
            found = {index: measurers[index]() for index in (order if turn % 2 else reversed(order))}
            rounds.append([found[index] for index in range(PROCESSES)])
    return {name: Turns([[one[name] for one in found] for found in rounds]) for name in rounds[0][0]}


@contextmanager
def worker(figure: str) -> Iterator[Callable[[], Figures]]:
    """Start a process, and yield a function that measures the figure in it."""
    words = [sys.executable, "-m", "benchmarks.turns", figure]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin
        assert child.stdout
        requests, replies = child.stdin, child.stdout

        def measure() -> Figures:
            print(file=requests, flush=True)
            return json.loads(replies.readline())

        yield measure
        requests.close()


def variation(values: Sequence[float]) -> float:
    """Return the coefficient of variation: the standard deviation over the mean."""
    return statistics.stdev(values) / statistics.fmean(values)


def steps() -> Figures:
    """Measure the seconds of shifted Swin, of the whole forward and of each step."""
    report = explore(SwinSpec(shift=True), threads=1)
    assert report.time is not None
    return {"total": report.time.whole_interquartile_mean_s} | {
        step.name: step.time.interquartile_mean_s for step in report.steps if step.time
    }


def peaks() -> Figures:
    """Measure the machine's peak rates per second, and the seconds that this takes."""
    found = measure_peaks_by_name("cpu", "float32", 1, forget=True)[0]
    return {"seconds": found.seconds} | {f"{row.kernel}, {row.size}": row.per_s for row in peak_rows(found)}


MEASURES: dict[str, Callable[[], Figures]] = {"steps": steps, "peaks": peaks}

if __name__ == "__main__":
    measure = MEASURES[sys.argv[1]]
    for _ in sys.stdin:
        print(json.dumps(measure()), flush=True)
