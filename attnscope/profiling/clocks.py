"""Clocks: each stamps moments on a device, tells the seconds between them, and whether a run was left alone."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import torch

from attnscope.profiling.load import Effort
from attnscope.profiling.noise import SHARE_SHOULD_BE

CLEAN_SHARE = 0.97
"""A run of one thread is clean if it had the processor for this share of it."""
FEWEST_CYCLES, MOST_CYCLES = 1_000_000, 128_000_000
"""How long a GPU idles before a run while that is queued behind: some 0.6 ms, and up to 80 ms where it is too short."""
EMPTY_GAPS, EMPTY_RUNS = 200, 8
"""Gaps of a run with nothing in it, and how many such runs are tried: one for each length that a GPU can idle."""


class Clock(Protocol):
    """Stamps moments on a device; `seconds` are the gaps between stamps, once all work is done.

    `prepare` is called before each run, and `is_clean` tells from what a run took, and from its stamps, whether it was left
    alone. `on_processor` is whether the processor's own time is told, of which watching takes a part. `empty_s` is the gap
    between two stamps that have nothing between them, which `seconds` has taken off.
    """

    on_processor: bool
    empty_s: float

    def prepare(self) -> None: ...

    def stamp(self) -> Any: ...

    def is_clean(self, effort: Effort, stamps: Sequence[Any]) -> bool: ...

    def seconds(self, stamps: Sequence[Any]) -> list[float]: ...


class CpuClock:
    """The processor's own work is done when a call returns."""

    on_processor = True
    empty_s = 0.0
    stamp = staticmethod(time.perf_counter_ns)  # called as it is: a method around it would double the cost of watching

    def prepare(self) -> None:
        return None

    def is_clean(self, effort: Effort, stamps: Sequence[int]) -> bool:
        threads = torch.get_num_threads()
        return effort.share(threads) >= (CLEAN_SHARE if threads == 1 else SHARE_SHOULD_BE)

    def seconds(self, stamps: Sequence[int]) -> list[float]:
        return [(after - before) * 1e-9 for before, after in pairwise(stamps)]


class ThreadClock(CpuClock):
    """The processor's time that this thread was given: what others take meanwhile is not in it."""

    stamp = staticmethod(time.thread_time_ns)

    def is_clean(self, effort: Effort, stamps: Sequence[int]) -> bool:
        return True


class CudaClock:
    """Events on the stream, read after one synchronization, so that steps queue as they do without a clock.

    Before a run the queue is filled with an idle kernel, so that the gaps between events are the device's time and not that
    of the processor which feeds it. A run is clean if all of it was queued before that kernel ended; after one that was
    not, the next idles for twice as long.

    Args:
        flush: empty the L2 cache before a run, once for all its steps, as other work would.
    """

    on_processor = False

    def __init__(self, flush: bool = True) -> None:
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        l2_bytes = getattr(properties, "L2_cache_size", 0) or 64 * 2**20
        self._flush = torch.empty(2 * l2_bytes, dtype=torch.uint8, device="cuda") if flush else None
        self._cycles = FEWEST_CYCLES
        self.empty_s = 0.0
        self.empty_s = empty_gap(self)

    def prepare(self) -> None:
        if self._flush is not None:
            self._flush.zero_()
        torch.cuda._sleep(self._cycles)

    def stamp(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def is_clean(self, effort: Effort, stamps: Sequence[torch.cuda.Event]) -> bool:
        queued_in_time = not stamps[0].query()
        if not queued_in_time:
            self._cycles = min(2 * self._cycles, MOST_CYCLES)
        return queued_in_time

    def seconds(self, stamps: Sequence[torch.cuda.Event]) -> list[float]:
        torch.cuda.synchronize()
        return [max(0.0, before.elapsed_time(after) * 1e-3 - self.empty_s) for before, after in pairwise(stamps)]


class MpsClock(CpuClock):
    """Waits for the device at each stamp: an upper bound, since the steps no longer overlap."""

    def prepare(self) -> None:
        torch.mps.synchronize()

    def stamp(self) -> int:
        torch.mps.synchronize()
        return time.perf_counter_ns()

    def is_clean(self, effort: Effort, stamps: Sequence[int]) -> bool:
        return True


CLOCKS: dict[str, Callable[[], Clock]] = {"cpu": CpuClock, "cuda": CudaClock, "mps": MpsClock}


@dataclass
class Timed:
    """One run: seconds between its stamps, and whether it was left alone all the while.

    `effort` is what the run took of the machine, in seconds of the clock and of the processors.
    """

    seconds: list[float]
    clean: bool
    effort: Effort | None = None

    @property
    def total(self) -> float:
        return sum(self.seconds)


def run(clock: Clock, forward: Callable[[], Any], stamps: list[Any]) -> Timed:
    """Run a forward once between two stamps; what watches it adds its own to `stamps`."""
    clock.prepare()
    start = Effort.now()
    stamps.append(clock.stamp())
    forward()
    stamps.append(clock.stamp())
    effort = Effort.now().since(start)
    clean = clock.is_clean(effort, stamps)  # before the seconds are read, which waits for a device to be done
    return Timed(clock.seconds(stamps), clean, effort)


def empty_gap(clock: Clock) -> float:
    """Seconds between two stamps with nothing between them: of a clean run, since of another they are the processor's."""

    def empty() -> Timed:
        stamps: list[Any] = []
        return run(clock, lambda: stamps.extend(clock.stamp() for _ in range(EMPTY_GAPS)), stamps)

    for _ in range(EMPTY_RUNS):
        timed = empty()
        if timed.clean:
            break
    return statistics.median(timed.seconds)
