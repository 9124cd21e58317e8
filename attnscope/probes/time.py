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
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from attnscope.steps import Step, listening

WARMUP_ROUNDS = 5
WARMUP_S = 0.05
FEWEST_PAIRS = 5
FEWEST_LONG_RUNS = 3
CLEAN_SHARE = 0.97
"""A run is clean if the thread had the processor for this share of it."""


Inputs = Tensor | tuple[Tensor, ...]
"""What a forward takes: a tensor, or a tuple of them."""


class Clock(Protocol):
    """Stamps moments on a device; `seconds` are the gaps between stamps, once all work is done."""

    def stamp(self) -> Any: ...

    def seconds(self, stamps: Sequence[Any]) -> list[float]: ...


class CpuClock:
    """The processor's own work is done when a call returns."""

    def stamp(self) -> int:
        return time.perf_counter_ns()

    def seconds(self, stamps: Sequence[int]) -> list[float]:
        return [(after - before) * 1e-9 for before, after in pairwise(stamps)]


class CudaClock:
    """Events on the stream, read after one synchronization, so that steps queue as they do without a clock."""

    def stamp(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, stamps: Sequence[torch.cuda.Event]) -> list[float]:
        torch.cuda.synchronize()
        return [before.elapsed_time(after) * 1e-3 for before, after in pairwise(stamps)]


class MpsClock(CpuClock):
    """Waits for the device at each stamp: an upper bound, since the steps no longer overlap."""

    def stamp(self) -> int:
        torch.mps.synchronize()
        return time.perf_counter_ns()


CLOCKS: dict[str, type[Clock]] = {"cpu": CpuClock, "cuda": CudaClock, "mps": MpsClock}


@dataclass
class Timed:
    """One run: seconds between its stamps, and whether the thread had the processor all the while."""

    seconds: list[float]
    clean: bool

    @property
    def total(self) -> float:
        return sum(self.seconds)


@dataclass
class Timing:
    """What `time_steps` found, in seconds. The last entry of a chain is what follows the last step."""

    chains: list[Timed]
    wholes: list[Timed]
    clean_runs: int
    stamp_s: float


def time_steps(module: nn.Module, x: Inputs, budget_s: float) -> Timing:
    """Time each step of a module in place, and the untouched forward beside it.

    Args:
        module: a module whose steps are tied to methods, in evaluation mode.
        x: its input or inputs, on the module's device.
        budget_s: how long to measure, warm-up aside. At least FEWEST_PAIRS pairs are run.
    """
    clock, forward = CLOCKS[_device(x)](), _forward(module, x)

    def chain() -> Timed:
        stamps: list[Any] = []

        def listener(path: str, attention: Any, step: Step, method: Callable[..., Any]) -> Callable[..., Any]:
            return _stamped(method, clock.stamp, stamps)

        with listening(module, listener):
            return run(clock, forward, stamps)

    with measuring():
        stamp_s = _stamp_cost(clock)
    timing = time_pairs(clock, forward, chain, budget_s, stamp_s)
    for chained in timing.chains:
        chained.seconds = [max(0.0, s - stamp_s) for s in chained.seconds[:-1]] + chained.seconds[-1:]
    return timing


def time_pairs(
    clock: Clock, forward: Callable[[], Any], chain: Callable[[], Timed], budget_s: float, stamp_s: float
) -> Timing:
    """Time the untouched forward and the watched one, `chain`, in pairs that take turns in who is first."""
    chains, wholes = [], []

    def whole() -> Timed:
        return run(clock, forward, [])

    with measuring():
        _warm_up(whole, chain)
        for whole_first in _pairs(budget_s):
            if whole_first:
                wholes.append(whole())
            chains.append(chain())
            if not whole_first:
                wholes.append(whole())
    clean = [index for index, pair in enumerate(zip(chains, wholes, strict=True)) if all(timed.clean for timed in pair)]
    kept = clean if len(clean) >= FEWEST_PAIRS else range(len(chains))
    return Timing([chains[i] for i in kept], [wholes[i] for i in kept], len(clean), stamp_s)


def time_forward(module: nn.Module, x: Inputs, budget_s: float) -> float:
    """Seconds of the untouched forward: the mean over the middle half of the runs."""
    clock, forward = CLOCKS[_device(x)](), _forward(module, x)
    with measuring():
        start = time.perf_counter()
        runs = [run(clock, forward, [])]
        if time.perf_counter() - start < budget_s:
            runs = []  # that was the warm-up, and there is time for more
        while not runs or time.perf_counter() - start < budget_s:
            runs.append(run(clock, forward, []))
    return statistics.fmean(run.total for run in middle(runs))


def time_in_turn(forwards: Sequence[tuple[nn.Module, Inputs]], budget_s: float) -> list[list[float]]:
    """Seconds of several untouched forwards, run in turn, so that a drift of the machine touches all alike.

    Args:
        forwards: modules in evaluation mode, and their inputs.
        budget_s: how long to measure them together, warm-up aside. Each runs FEWEST_PAIRS times at least, or
            FEWEST_LONG_RUNS times where one round takes longer than the budget.

    Returns:
        The samples of each. Rounds in which another process had the processor are left out where enough are clean.
    """
    clocks = [CLOCKS[_device(x)]() for _, x in forwards]

    def turn(backwards: bool) -> list[Timed]:
        runs: dict[int, Timed] = {}
        for index in reversed(range(len(forwards))) if backwards else range(len(forwards)):
            module, x = forwards[index]
            runs[index] = run(clocks[index], _forward(module, x), [])
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
    return [[run.total for run in runs] for runs in zip(*kept, strict=True)]


def middle(runs: list[Timed]) -> list[Timed]:
    """The middle half of the runs, ordered by their total."""
    ordered = sorted(runs, key=lambda run: run.total)
    cut = len(ordered) // 4
    return ordered[cut : len(ordered) - cut]


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


def _device(x: Inputs) -> str:
    return (x[0] if isinstance(x, tuple) else x).device.type


def _forward(module: nn.Module, x: Inputs) -> Callable[[], Any]:
    inputs = x if isinstance(x, tuple) else (x,)
    return lambda: module(*inputs)


def run(clock: Clock, forward: Callable[[], Any], stamps: list[Any]) -> Timed:
    """Run a forward once between two stamps; what watches it adds its own to `stamps`."""
    cpu, wall = time.thread_time(), time.perf_counter()
    stamps.append(clock.stamp())
    forward()
    stamps.append(clock.stamp())
    wall = time.perf_counter() - wall
    clean = not _on_processor(clock) or time.thread_time() - cpu >= CLEAN_SHARE * wall
    return Timed(clock.seconds(stamps), clean)


def _on_processor(clock: Clock) -> bool:
    return isinstance(clock, CpuClock) and not isinstance(clock, MpsClock)


def _stamped(method: Callable[..., Any], stamp: Callable[[], Any], stamps: list[Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        result = method(*args)
        stamps.append(stamp())
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


def _pairs(budget_s: float) -> Iterator[bool]:
    start = time.perf_counter()
    pairs = 0
    while pairs < FEWEST_PAIRS or time.perf_counter() - start < budget_s:
        yield pairs % 2 == 0
        pairs += 1


def _stamp_cost(clock: Clock) -> float:
    """What watching costs a step that does nothing, in seconds."""
    if not _on_processor(clock):
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
