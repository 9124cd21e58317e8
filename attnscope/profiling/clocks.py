"""Clocks of each device: record timestamps, convert them to seconds, and detect runs that were disturbed."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch.overrides import TorchFunctionMode

from attnscope.profiling.load import Effort
from attnscope.profiling.noise import SHARE_SHOULD_BE

CLEAN_SHARE = 0.97
"""A run of one thread is clean if the thread had the CPU for at least this fraction of the run."""
FEWEST_CYCLES, MOST_CYCLES = 1_000_000, 128_000_000
"""Clock cycles that a GPU idles while a run is queued: about 0.6 ms, doubled up to 80 ms if that is too short."""
WHOLE_CYCLES = 16_000_000
"""Clock cycles, about 9 ms, that suffice to queue as many kernels as the queue of a GPU holds, about a thousand."""
CALLS_OF_A_PART = 32
"""Torch calls of each part of a run that is too long for the queue. One call may queue a dozen kernels."""
SMALL_KERNELS, SMALL_RUNS, CLEAN_RUNS = 200, 16, 5
"""Kernels of a run that measures the overhead of a timestamp, the largest number of such runs, and of those used."""


class Clock(Protocol):
    """A source of timestamps on a device; `seconds` returns the gaps between them, once all work is done.

    `prepare` is called before each run, and `paced` returns the forward as the clock must run it. `is_clean` returns
    whether a run was undisturbed, from its effort and timestamps. `on_processor` is whether the clock measures CPU time,
    which includes the cost of instrumentation. `stamp_s` is the time in seconds that a timestamp takes on the device,
    which `seconds` subtracts.
    """

    on_processor: bool
    stamp_s: float

    def prepare(self) -> None: ...

    def paced(self, forward: Callable[[], Any]) -> Callable[[], Any]: ...

    def stamp(self) -> Any: ...

    def is_clean(self, effort: Effort, stamps: Sequence[Any]) -> bool: ...

    def seconds(self, stamps: Sequence[Any]) -> list[float]: ...


class CpuClock:
    """A clock of the CPU, whose work is done when a call returns."""

    on_processor = True
    stamp_s = 0.0
    stamp = staticmethod(time.perf_counter_ns)  # a method around it would double the cost of a timestamp

    def prepare(self) -> None:
        return None

    def paced(self, forward: Callable[[], Any]) -> Callable[[], Any]:
        return forward

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


@dataclass(frozen=True)
class Pause:
    """A time in which a GPU idles within a run: events at its begin and its end, and the number of timestamps before it."""

    begin: torch.cuda.Event
    end: torch.cuda.Event
    stamps: int


class CudaClock:
    """A clock of CUDA events, read after one synchronization, so that steps queue as they do without a clock.

    An idle kernel is queued before each run. The gaps between events are then the time of the device, and exclude the
    launches on the CPU. A run is clean if it is queued as a whole before the idle kernel ends. After any other run, the
    idle kernel is twice as long. If that does not help, the run has more kernels than the queue holds. From then on, runs
    are queued in parts, with an idle kernel before each, whose time is left out of the gaps.

    Args:
        flush: empty the L2 cache before each run, once for all steps, as other work would.
    """

    on_processor = False

    def __init__(self, flush: bool = True) -> None:
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        l2_bytes = getattr(properties, "L2_cache_size", 0) or 64 * 2**20
        self._flush = torch.empty(2 * l2_bytes, dtype=torch.uint8, device="cuda") if flush else None
        self._cycles = FEWEST_CYCLES
        self._in_parts = False
        self._stamps = 0
        self._pauses: list[Pause] = []
        self._starved = False
        self.stamp_s = 0.0
        self.stamp_s = stamp_seconds(self, torch.empty(1, dtype=torch.uint8, device="cuda").neg_)

    def prepare(self) -> None:
        self._stamps, self._pauses, self._starved = 0, [], False
        if self._flush is not None:
            self._flush.zero_()
        torch.cuda._sleep(self._cycles)

    def paced(self, forward: Callable[[], Any]) -> Callable[[], Any]:
        def in_parts() -> Any:
            with _Pacer(self.pause):
                return forward()

        return in_parts if self._in_parts else forward

    def stamp(self) -> torch.cuda.Event:
        event = _event()
        if not self._stamps:
            self._part = event
        self._stamps += 1
        return event

    def pause(self) -> None:
        """End a part of a run, and let the GPU idle while the next one is queued."""
        self._starved |= self._part.query()
        begin = _event()
        torch.cuda._sleep(self._cycles)
        self._part = _event()
        self._pauses.append(Pause(begin, self._part, self._stamps))

    def is_clean(self, effort: Effort, stamps: Sequence[torch.cuda.Event]) -> bool:
        queued_in_time = not (self._starved or self._part.query())
        if not queued_in_time:
            if self._cycles >= WHOLE_CYCLES and not self._in_parts:
                self._in_parts, self._cycles = True, FEWEST_CYCLES
            else:
                self._cycles = min(2 * self._cycles, MOST_CYCLES)
        return queued_in_time

    def seconds(self, stamps: Sequence[torch.cuda.Event]) -> list[float]:
        torch.cuda.synchronize()
        edges: list[list[torch.cuda.Event]] = [[stamp] for stamp in stamps[:-1]]
        for pause in self._pauses:
            edges[pause.stamps - 1] += [pause.begin, pause.end]
        for gap, end in zip(edges, stamps[1:], strict=True):
            gap.append(end)
        return [sum(map(self._between, gap[::2], gap[1::2])) for gap in edges]

    def _between(self, before: torch.cuda.Event, after: torch.cuda.Event) -> float:
        return max(0.0, before.elapsed_time(after) * 1e-3 - self.stamp_s)


class _Pacer(TorchFunctionMode):
    """A mode that calls a function after every CALLS_OF_A_PART torch calls."""

    def __init__(self, pause: Callable[[], None]) -> None:
        super().__init__()
        self.pause, self.calls = pause, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.calls == CALLS_OF_A_PART:
            self.pause()
            self.calls = 0
        self.calls += 1
        return func(*args, **kwargs) if kwargs else func(*args)


def _event() -> torch.cuda.Event:
    """Record an event on the current stream."""
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


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
    forward = clock.paced(forward)
    clock.prepare()
    start = Effort.now()
    stamps.append(clock.stamp())
    forward()
    stamps.append(clock.stamp())
    effort = Effort.now().since(start)
    clean = clock.is_clean(effort, stamps)  # before `seconds`, which waits for the device
    return Timed(clock.seconds(stamps), clean, effort)


def stamp_seconds(clock: Clock, call: Callable[[], Any]) -> float:
    """Measure the seconds that a timestamp adds to a run of small kernels, which may otherwise overlap.

    It is the difference of the shortest runs, since other processes that use the device make a run longer. Only clean
    runs count, if there are any. The others include launches on the CPU.

    Args:
        clock: a clock whose `stamp_s` is 0.
        call: runs a small kernel.
    """

    def seconds(is_stamped: bool) -> float:
        def calls() -> None:
            for _ in range(SMALL_KERNELS):
                call()
                if is_stamped:
                    stamps.append(clock.stamp())

        runs: list[Timed] = []
        while len(runs) < SMALL_RUNS and sum([one.clean for one in runs]) < CLEAN_RUNS:
            stamps: list[Any] = []
            runs.append(run(clock, calls, stamps))
        return min([one.total for one in runs if one.clean] or [one.total for one in runs])

    return max(0.0, (seconds(True) - seconds(False)) / SMALL_KERNELS)
