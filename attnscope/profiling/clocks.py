"""Clocks of each device: record timestamps, convert them to seconds, and detect runs that were disturbed."""

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
"""A run of one thread is clean if the thread had the CPU for at least this fraction of the run."""
FEWEST_CYCLES, MOST_CYCLES = 1_000_000, 128_000_000
"""Clock cycles that a GPU idles while a run is queued: about 0.6 ms, doubled up to 80 ms if that is too short."""
EMPTY_GAPS, EMPTY_RUNS = 200, 8
"""Gaps between timestamps of an empty run, and the number of such runs: one for each length that a GPU can idle."""


class Clock(Protocol):
    """A source of timestamps on a device; `seconds` returns the gaps between them, once all work is done.

    `prepare` is called before each run. `is_clean` returns whether a run was undisturbed, from its effort and timestamps.
    `on_processor` is whether the clock measures CPU time, which includes the cost of instrumentation. `empty_s` is the gap
    between two consecutive timestamps, which `seconds` subtracts.
    """

    on_processor: bool
    empty_s: float

    def prepare(self) -> None: ...

    def stamp(self) -> Any: ...

    def is_clean(self, effort: Effort, stamps: Sequence[Any]) -> bool: ...

    def seconds(self, stamps: Sequence[Any]) -> list[float]: ...


class CpuClock:
    """A clock of the CPU, whose work is done when a call returns."""

    on_processor = True
    empty_s = 0.0
    stamp = staticmethod(time.perf_counter_ns)  # a method around it would double the cost of a timestamp

    def prepare(self) -> None:
        return None

    def is_clean(self, effort: Effort, stamps: Sequence[int]) -> bool:
        threads = torch.get_num_threads()
        return effort.share(threads) >= (CLEAN_SHARE if threads == 1 else SHARE_SHOULD_BE)

    def seconds(self, stamps: Sequence[int]) -> list[float]:
        return [(after - before) * 1e-9 for before, after in pairwise(stamps)]


class ThreadClock(CpuClock):
    """A clock of this thread's CPU time, which excludes the time that other processes take."""

    stamp = staticmethod(time.thread_time_ns)

    def is_clean(self, effort: Effort, stamps: Sequence[int]) -> bool:
        return True


class CudaClock:
    """A clock of CUDA events, read after one synchronization, so that steps queue as they do without a clock.

    An idle kernel is queued before each run. The gaps between events are then the time of the device, and exclude the
    launches on the CPU. A run is clean if it is queued as a whole before the idle kernel ends. After any other run, the
    idle kernel is twice as long.

    Args:
        flush: empty the L2 cache before each run, once for all steps, as other work would.
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
    """A clock that synchronizes the device at each timestamp. Its times are upper bounds, since steps cannot overlap."""

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
    """One run: the seconds between its timestamps, and whether it is clean, that is, undisturbed by other processes.

    `effort` holds the wall time and the CPU time of the run in seconds.
    """

    seconds: list[float]
    clean: bool
    effort: Effort | None = None

    @property
    def total(self) -> float:
        return sum(self.seconds)


def run(clock: Clock, forward: Callable[[], Any], stamps: list[Any]) -> Timed:
    """Run a forward once between two timestamps; a listener may append further ones to `stamps`."""
    clock.prepare()
    start = Effort.now()
    stamps.append(clock.stamp())
    forward()
    stamps.append(clock.stamp())
    effort = Effort.now().since(start)
    clean = clock.is_clean(effort, stamps)  # before `seconds`, which waits for the device
    return Timed(clock.seconds(stamps), clean, effort)


def empty_gap(clock: Clock) -> float:
    """Measure the seconds between two consecutive timestamps.

    Return the median gap of a clean run. In any other run, the gaps include launches on the CPU.
    """

    def empty() -> Timed:
        stamps: list[Any] = []
        return run(clock, lambda: stamps.extend(clock.stamp() for _ in range(EMPTY_GAPS)), stamps)

    for _ in range(EMPTY_RUNS):
        timed = empty()
        if timed.clean:
            break
    return statistics.median(timed.seconds)
