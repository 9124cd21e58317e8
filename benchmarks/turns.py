"""Processes that stand side by side and measure the same in turn: what they differ by, apart from what the machine does.

Processes that come one after the other also differ by what the machine's neighbours did meanwhile. Those that take turns,
again and again, meet the same on the whole, and what stays between them is their own: where their memory lies, what their
allocator does.
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
"""Seconds or rates, by name."""

PROCESSES = 8
ROUNDS = 9


@dataclass
class Turns:
    """What one figure was: in each round, of each process."""

    rounds: list[list[float]]

    @property
    def between(self) -> float:
        """The coefficient of variation over the processes, of each one's median of its shares of the rounds' means."""
        shares = [[value / statistics.fmean(one) for value in one] for one in self.rounds]
        return variation([statistics.median(of_one) for of_one in zip(*shares, strict=True)])

    @property
    def as_they_came(self) -> float:
        """The same in a single round, which holds what the machine does between one process and the next."""
        return statistics.median(variation(one) for one in self.rounds)


def in_turn(figure: str) -> dict[str, Turns]:
    """Measure a figure of MEASURES in PROCESSES processes, ROUNDS times in turn, each time from another on."""
    with ExitStack() as stack:
        ask = [stack.enter_context(standing(figure)) for _ in range(PROCESSES)]
        told: list[list[Figures]] = []
        for turn in range(ROUNDS):
            order = [(turn + place) % PROCESSES for place in range(PROCESSES)]
            found = {index: ask[index]() for index in (order if turn % 2 else reversed(order))}
            told.append([found[index] for index in range(PROCESSES)])
    return {name: Turns([[one[name] for one in found] for found in told]) for name in told[0][0]}


@contextmanager
def standing(figure: str) -> Iterator[Callable[[], Figures]]:
    """A process of its own that measures a figure whenever it is asked."""
    words = [sys.executable, "-m", "benchmarks.turns", figure]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin
        assert child.stdout
        to, of = child.stdin, child.stdout

        def ask() -> Figures:
            print(file=to, flush=True)
            return json.loads(of.readline())

        yield ask
        to.close()


def variation(values: Sequence[float]) -> float:
    """The standard deviation over the mean."""
    return statistics.stdev(values) / statistics.fmean(values)


def steps() -> Figures:
    """Seconds of shifted Swin, of the whole and of each step."""
    report = explore(SwinSpec(shift=True), threads=1)
    assert report.time is not None
    return {"total": report.time.whole_interquartile_mean_s} | {
        step.name: step.time.interquartile_mean_s for step in report.steps if step.time
    }


def peaks() -> Figures:
    """What the machine can do at its best in a second, and how many seconds it took to tell."""
    found = measure_peaks_by_name("cpu", "float32", 1)[0]
    return {"seconds": found.seconds} | {f"{row.kernel}, {row.size}": row.per_s for row in peak_rows(found)}


MEASURES: dict[str, Callable[[], Figures]] = {"steps": steps, "peaks": peaks}

if __name__ == "__main__":
    measure = MEASURES[sys.argv[1]]
    for _ in sys.stdin:
        print(json.dumps(measure()), flush=True)
