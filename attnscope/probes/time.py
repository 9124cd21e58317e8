"""How long each step takes, in place, beside the untouched forward.

One stamp is shared by the end of a step and the beginning of the next, so that the rows add up to the forward without a
gap. Runs with and without stamps alternate, so that a drift of the machine touches both alike. A time is the mean over the
middle half of the runs: as steady as a median, and additive, so that the steps add up to their sum exactly.
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from attnscope.probes.watch import Effort, Load, Watch
from attnscope.steps import Listener, Step, listening

WARMUP_ROUNDS = 5
WARMUP_S = 0.05
FEWEST_PAIRS = 5
FEWEST_LONG_RUNS = 3
PATIENCE = 2
"""How many times the budget may be spent where others keep the pairs from being clean."""
CLEAN_SHARE = 0.97
"""A run is clean if the thread had the processor for this share of it,"""
CLEAN_SHARE_OF_THREADS = 0.9
"""or several threads for this share."""
QUEUE_CYCLES = 10_000_000
"""How long a GPU idles before a run, some 6 ms, while the run is queued behind."""


Inputs = Tensor | tuple[Tensor, ...]
"""What a forward takes: a tensor, or a tuple of them."""


class Clock(Protocol):
    """Stamps moments on a device; `seconds` are the gaps between stamps, once all work is done.

    `prepare` is called before each run, and `is_clean` tells from what a run took whether it was left alone.
    """

    def prepare(self) -> None: ...

    def stamp(self) -> Any: ...

    def seconds(self, stamps: Sequence[Any]) -> list[float]: ...

    def is_clean(self, effort: Effort) -> bool: ...


class CpuClock:
    """The processor's own work is done when a call returns."""

    stamp = staticmethod(time.perf_counter_ns)  # called as it is: a method around it would double the cost of watching

    def prepare(self) -> None:
        return None

    def seconds(self, stamps: Sequence[int]) -> list[float]:
        return [(after - before) * 1e-9 for before, after in pairwise(stamps)]

    def is_clean(self, effort: Effort) -> bool:
        threads = torch.get_num_threads()
        return effort.share(threads) >= (CLEAN_SHARE if threads == 1 else CLEAN_SHARE_OF_THREADS)


class ThreadClock(CpuClock):
    """The processor's time that this thread was given: what others take meanwhile is not in it."""

    stamp = staticmethod(time.thread_time_ns)

    def is_clean(self, effort: Effort) -> bool:
        return True


class CudaClock:
    """Events on the stream, read after one synchronization, so that steps queue as they do without a clock.

    Before a run the L2 cache is flushed, once for all its steps, and the queue is filled with an idle kernel, so that the
    gaps between events are the device's time and not that of the processor which feeds it.
    """

    def __init__(self) -> None:
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        l2_bytes = getattr(properties, "L2_cache_size", 0) or 64 * 2**20
        self._flush = torch.empty(2 * l2_bytes, dtype=torch.uint8, device="cuda")

    def prepare(self) -> None:
        self._flush.zero_()
        torch.cuda._sleep(QUEUE_CYCLES)

    def stamp(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, stamps: Sequence[torch.cuda.Event]) -> list[float]:
        torch.cuda.synchronize()
        return [before.elapsed_time(after) * 1e-3 for before, after in pairwise(stamps)]

    def is_clean(self, effort: Effort) -> bool:
        return True


class MpsClock(CpuClock):
    """Waits for the device at each stamp: an upper bound, since the steps no longer overlap."""

    def prepare(self) -> None:
        torch.mps.synchronize()

    def stamp(self) -> int:
        torch.mps.synchronize()
        return time.perf_counter_ns()

    def is_clean(self, effort: Effort) -> bool:
        return True


CLOCKS: dict[str, type[Clock]] = {"cpu": CpuClock, "cuda": CudaClock, "mps": MpsClock}


@dataclass
class Timed:
    """One run: seconds between its stamps, and whether the thread had the processor all the while.

    `effort` is what the run took of the machine, in seconds of the clock and of the processors.
    """

    seconds: list[float]
    clean: bool
    effort: Effort | None = None

    @property
    def total(self) -> float:
        return sum(self.seconds)


@dataclass
class Timing:
    """What `time_steps` found, in seconds. The last entry of a chain is what follows the last step.

    `tried` is how many pairs were run; the clean ones of them are kept, or all where those are too few.
    `clock` is "wall", or "thread" where others had the processor so often that only the thread's own time could be told.
    """

    chains: list[Timed]
    wholes: list[Timed]
    clean_runs: int
    stamp_s: float
    tried: int = 0
    clock: str = "wall"
    load: Load = field(default_factory=lambda: Load(None, None))


Progress = Callable[[float], None]
"""Is told now and then which share of the measuring is done."""


def time_steps(module: nn.Module, x: Inputs, budget_s: float, progress: Progress | None = None) -> Timing:
    """Time each step of a module in place, and the untouched forward beside it.

    Where another process has the processor so often that fewer than FEWEST_PAIRS pairs are clean, one thread is timed once
    more by the processor's time that it was given, which holds on a busy machine too.

    Args:
        module: a module whose steps are tied to methods, in evaluation mode.
        x: its input or inputs, on the module's device.
        budget_s: how long to measure, warm-up aside; up to PATIENCE times that where others are busy.
        progress: is told the share that is done.
    """

    def timed(clock: Clock) -> Timing:
        def forward() -> Any:
            return module(*as_tuple(x))

        def stamping(stamps: list[Any]) -> Listener:
            def listener(path: str, attention: Any, step: Step, method: Callable[..., Any]) -> Callable[..., Any]:
                return _stamped(method, clock.stamp, stamps)

            return listener

        def whole() -> Timed:
            with listening(module, stamping([])):
                pass  # what goes before a run is felt in its caches: without this the chain reads 0.4 % longer
            return run(clock, forward, [])

        def chain() -> Timed:
            stamps: list[Any] = []
            with listening(module, stamping(stamps)):
                return run(clock, forward, stamps)

        with measuring():
            stamp_s = _stamp_cost(clock)
        timing = take_pairs(whole, chain, budget_s, stamp_s, progress)
        for chained in timing.chains:
            chained.seconds = [max(0.0, s - stamp_s) for s in chained.seconds[:-1]] + chained.seconds[-1:]
        return timing

    return by_best_clock(timed, device_type(x))


def by_best_clock(timed: Callable[[Clock], Timing], device: str) -> Timing:
    """What the device's own clock tells, or the processor's time of a single thread where too few pairs were clean."""
    timing = timed(CLOCKS[device]())
    if timing.clean_runs < FEWEST_PAIRS and device == "cpu" and torch.get_num_threads() == 1:
        by_thread = timed(ThreadClock())
        timing = replace(by_thread, clean_runs=timing.clean_runs, tried=timing.tried, clock="thread")
    return timing


def time_pairs(
    clock: Clock,
    forward: Callable[[], Any],
    chain: Callable[[], Timed],
    budget_s: float,
    stamp_s: float,
    progress: Progress | None = None,
) -> Timing:
    """Time the untouched forward and the watched one, `chain`, in pairs that take turns in who is first."""
    return take_pairs(lambda: run(clock, forward, []), chain, budget_s, stamp_s, progress)


def take_pairs(
    whole: Callable[[], Timed],
    chain: Callable[[], Timed],
    budget_s: float,
    stamp_s: float,
    progress: Progress | None = None,
) -> Timing:
    """Pairs of a whole and a watched run, in alternating order, until enough are clean or the budget is spent."""
    chains: list[Timed] = []
    wholes: list[Timed] = []
    with measuring():
        _warm_up(whole, chain)
        watch = Watch()
        start = time.perf_counter()
        clean: list[int] = []
        while not _enough(len(chains), len(clean), time.perf_counter() - start, budget_s):
            if len(chains) % 2 == 0:
                wholes.append(whole())
                chains.append(chain())
            else:
                chains.append(chain())
                wholes.append(whole())
            if chains[-1].clean and wholes[-1].clean:
                clean.append(len(chains) - 1)
            if progress:
                progress(min(1.0, (time.perf_counter() - start) / budget_s, len(chains) / FEWEST_PAIRS))
        load = watch.load()
    kept = clean if len(clean) >= FEWEST_PAIRS else range(len(chains))
    return Timing([chains[i] for i in kept], [wholes[i] for i in kept], len(clean), stamp_s, len(chains), load=load)


def time_forward(module: nn.Module, x: Inputs, budget_s: float) -> float:
    """Seconds of the untouched forward: the mean over the middle half of the runs.

    Of the clean ones; where there are too few, one thread is told by the processor's time that it was given.
    """
    clock = CLOCKS[device_type(x)]()
    with measuring():
        start = time.perf_counter()
        runs = [run(clock, lambda: module(*as_tuple(x)), [])]
        if time.perf_counter() - start < budget_s:
            runs = []  # that was the warm-up, and there is time for more
        while not runs or time.perf_counter() - start < budget_s:
            runs.append(run(clock, lambda: module(*as_tuple(x)), []))
    clean = [timed for timed in runs if timed.clean]
    if len(clean) < min(FEWEST_PAIRS, len(runs)) and device_type(x) == "cpu" and torch.get_num_threads() == 1:
        return statistics.fmean(timed.effort.thread_s for timed in middle(runs) if timed.effort)
    return statistics.fmean(timed.total for timed in middle(clean or runs))


def time_in_turn(forwards: Sequence[tuple[nn.Module, Inputs]], budget_s: float) -> list[list[float]]:
    """Seconds of several untouched forwards, run in turn, so that a drift of the machine touches all alike.

    Args:
        forwards: modules in evaluation mode, and their inputs.
        budget_s: how long to measure them together, warm-up aside. Each runs FEWEST_PAIRS times at least, or
            FEWEST_LONG_RUNS times where one round takes longer than the budget.

    Returns:
        The samples of each. Rounds in which another process had the processor are left out where enough are clean; where
        none is, a single thread is told by the processor's time that it was given.
    """
    clocks = {device: CLOCKS[device]() for device in {device_type(x) for _, x in forwards}}

    def turn(backwards: bool) -> list[Timed]:
        runs: dict[int, Timed] = {}
        for index in reversed(range(len(forwards))) if backwards else range(len(forwards)):
            module, x = forwards[index]
            runs[index] = run(clocks[device_type(x)], partial(module, *as_tuple(x)), [])
        return [runs[index] for index in range(len(forwards))]

    with measuring():
        start = time.perf_counter()
        turn(False)
        long = time.perf_counter() - start > budget_s
        if not long:
            _warm_up(lambda: turn(False)[0])
        start = time.perf_counter()
        rounds: list[list[Timed]] = []
        fewest = FEWEST_LONG_RUNS if long else FEWEST_PAIRS
        while len(rounds) < fewest or time.perf_counter() - start < budget_s:
            rounds.append(turn(bool(len(rounds) % 2)))
    clean = [runs for runs in rounds if all(run.clean for run in runs)]
    kept = clean if len(clean) >= fewest else rounds
    by_thread = len(clean) < fewest and set(clocks) == {"cpu"} and torch.get_num_threads() == 1
    return [
        [one.effort.thread_s if by_thread and one.effort else one.total for one in runs]
        for runs in zip(*kept, strict=True)
    ]


def middle(runs: list[Timed]) -> list[Timed]:
    """The middle half of the runs, ordered by their total."""
    ordered = sorted(runs, key=lambda run: run.total)
    cut = len(ordered) // 4
    return ordered[cut : len(ordered) - cut]


def mean_of_middle(seconds: Sequence[float]) -> float:
    """The mean over the middle half."""
    ordered = sorted(seconds)
    cut = len(ordered) // 4
    return statistics.fmean(ordered[cut : len(ordered) - cut])


def spread(samples: Sequence[float]) -> float:
    """The interquartile range."""
    if len(samples) < 2:
        return 0.0
    low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    return high - low


@contextmanager
def measuring() -> Iterator[None]:
    """No gradients and no garbage collection while time is measured."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        with torch.inference_mode():
            yield
    finally:
        if collecting:
            gc.enable()


def as_tuple(x: Inputs) -> tuple[Tensor, ...]:
    """The inputs, also where it is but one."""
    return x if isinstance(x, tuple) else (x,)


def device_type(x: Inputs) -> str:
    """cpu, cuda or mps."""
    return as_tuple(x)[0].device.type


def run(clock: Clock, forward: Callable[[], Any], stamps: list[Any]) -> Timed:
    """Run a forward once between two stamps; what watches it adds its own to `stamps`."""
    clock.prepare()
    start = Effort.now()
    stamps.append(clock.stamp())
    forward()
    stamps.append(clock.stamp())
    effort = Effort.now().since(start)
    return Timed(clock.seconds(stamps), clock.is_clean(effort), effort)


def _stamped(method: Callable[..., Any], stamp: Callable[[], Any], stamps: list[Any]) -> Callable[..., Any]:
    keep = stamps.append

    def call(*args: Any) -> Any:
        result = method(*args)
        keep(stamp())
        return result

    return call


def _warm_up(*runs: Callable[[], Timed]) -> None:
    start = time.perf_counter()
    rounds = 0
    while rounds < WARMUP_ROUNDS or time.perf_counter() - start < WARMUP_S:
        for run in runs:
            run()
        rounds += 1
        if time.perf_counter() - start > 10 * WARMUP_S:
            return  # a forward this long has warmed what there is to warm


def _enough(pairs: int, clean: int, elapsed_s: float, budget_s: float) -> bool:
    """Whether the budget is spent and enough pairs are clean, or patience is at an end."""
    if pairs < FEWEST_PAIRS or elapsed_s < budget_s:
        return False
    return clean >= FEWEST_PAIRS or elapsed_s >= PATIENCE * budget_s


def _stamp_cost(clock: Clock) -> float:
    """What watching costs a step that does nothing, in seconds."""
    if isinstance(clock, CudaClock):
        return 0.0  # the stamps of a GPU are taken by its own clock

    def nothing(*args: Any) -> None:
        return None

    def cost(stamps: list[Any]) -> float:
        call = _stamped(nothing, clock.stamp, stamps)
        start = time.perf_counter_ns()
        for _ in range(200):
            call(None)
        watched = time.perf_counter_ns()
        for _ in range(200):
            nothing(None)
        return (2 * watched - start - time.perf_counter_ns()) / 200

    return max(0.0, statistics.median(cost([]) for _ in range(9)) * 1e-9)
