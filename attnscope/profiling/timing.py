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
from typing import Any

import torch
from torch import Tensor, nn

from attnscope.plan.step import Step
from attnscope.profiling.clocks import CLOCKS, Clock, ThreadClock, Timed, run
from attnscope.profiling.hooks import Listener, listening
from attnscope.profiling.load import Load, Watch
from attnscope.profiling.noise import FEWEST_CLEAN

WARMUP_ROUNDS = 5
WARMUP_S = 0.05
FEWEST_PAIRS = 7
"""Of FEWEST_CLEAN three would be in the middle half: too few, with several threads, for a sum within 3 % of the whole."""
FEWEST_LONG_RUNS = 3
PATIENCE = 2
"""How many times the budget may be spent where others keep the pairs from being clean."""
LONG = 10
"""How many times the budget may be spent on more than FEWEST_CLEAN pairs of a long forward."""

Inputs = Tensor | tuple[Tensor, ...]
"""What a forward takes: a tensor, or a tuple of them."""


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


@dataclass
class Turns:
    """Samples in seconds of several forwards that were run in turn, and how much others disturbed them.

    `clean_runs` of the `tried` rounds were left alone; these are kept, or all where they are too few. `cpu_share` is what a
    run had of the processor's time, or of all threads'; None where a GPU had part in it. The rest is as in a Time.
    """

    samples: list[list[float]]
    clean_runs: int
    tried: int
    clock: str
    cpu_share: float | None
    others: float | None
    pressure: float | None


Progress = Callable[[float], None]
"""Is told now and then which share of the measuring is done."""


def time_steps(module: nn.Module, x: Inputs, budget_s: float, progress: Progress | None = None) -> Timing:
    """Time each step of a module in place, and the untouched forward beside it.

    Where another process has the processor so often that fewer than FEWEST_CLEAN pairs are clean, one thread is timed once
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
            watching_s = _watching_cost(clock)
        timing = take_pairs(whole, chain, budget_s, watching_s + clock.empty_s, progress)
        for chained in timing.chains:
            chained.seconds = [max(0.0, s - watching_s) for s in chained.seconds[:-1]] + chained.seconds[-1:]
        return timing

    return by_best_clock(timed, device_type(x))


def by_best_clock(timed: Callable[[Clock], Timing], device: str) -> Timing:
    """What the device's own clock tells, or the processor's time of a single thread where too few pairs were clean."""
    timing = timed(CLOCKS[device]())
    if timing.clean_runs < FEWEST_CLEAN and device == "cpu" and torch.get_num_threads() == 1:
        by_thread = timed(ThreadClock())
        timing = replace(by_thread, clean_runs=timing.clean_runs, tried=timing.tried, clock="thread")
    return timing


def take_pairs(
    whole: Callable[[], Timed],
    chain: Callable[[], Timed],
    budget_s: float,
    stamp_s: float,
    progress: Progress | None = None,
    now: Callable[[], float] = time.perf_counter,
) -> Timing:
    """Pairs of a whole and a watched run, in alternating order, until enough are clean or the budget is spent.

    `now` returns the seconds in which the budget and the warm-up are counted.
    """
    chains: list[Timed] = []
    wholes: list[Timed] = []
    tell = progress or _nobody
    with measuring():
        tell(0.0)
        _warm_up(whole, chain, now=now)
        watch = Watch()
        start = now()
        clean: list[int] = []
        while not _enough(len(chains), len(clean), now() - start, budget_s):
            if len(chains) % 2 == 0:
                wholes.append(whole())
                chains.append(chain())
            else:
                chains.append(chain())
                wholes.append(whole())
            if chains[-1].clean and wholes[-1].clean:
                clean.append(len(chains) - 1)
            expected_s = budget_s if len(clean) >= FEWEST_CLEAN else PATIENCE * budget_s
            tell(min(1.0, (now() - start) / expected_s, len(chains) / FEWEST_PAIRS))
        load = watch.load()
    tell(1.0)
    kept = clean if len(clean) >= FEWEST_CLEAN else range(len(chains))
    return Timing([chains[i] for i in kept], [wholes[i] for i in kept], len(clean), stamp_s, len(chains), load=load)


def time_forward(module: nn.Module, x: Inputs, budget_s: float, progress: Progress | None = None) -> float:
    """Seconds of the untouched forward: the mean over the middle half of the runs."""
    return mean_of_middle(time_in_turn([(module, x)], budget_s, progress).samples[0])


def time_in_turn(
    forwards: Sequence[tuple[nn.Module, Inputs]],
    budget_s: float,
    progress: Progress | None = None,
    now: Callable[[], float] = time.perf_counter,
) -> Turns:
    """Time several untouched forwards, run in turn, so that a drift of the machine touches all alike.

    Args:
        forwards: modules in evaluation mode, and their inputs.
        budget_s: how long to measure them together, warm-up aside. Each runs FEWEST_CLEAN times at least, or
            FEWEST_LONG_RUNS times where one round takes longer than the budget.
        progress: is told the share that is done.
        now: returns the seconds in which the budget and the warm-up are counted.

    Returns:
        The samples of each, of the rounds that were left alone. Where these are too few, all are kept, and a single thread
        is told by the processor's time that it was given.
    """
    clocks = {device: CLOCKS[device]() for device in {device_type(x) for _, x in forwards}}

    def turn(backwards: bool) -> list[Timed]:
        runs: dict[int, Timed] = {}
        for index in reversed(range(len(forwards))) if backwards else range(len(forwards)):
            module, x = forwards[index]
            runs[index] = run(clocks[device_type(x)], partial(module, *as_tuple(x)), [])
        return [runs[index] for index in range(len(forwards))]

    tell = progress or _nobody
    with measuring():
        tell(0.0)
        start = now()
        turn(False)
        long = now() - start > budget_s
        if not long:
            _warm_up(lambda: turn(False)[0], now=now)
        watch = Watch()
        start = now()
        rounds: list[list[Timed]] = []
        fewest = FEWEST_LONG_RUNS if long else FEWEST_CLEAN
        while len(rounds) < fewest or now() - start < budget_s:
            rounds.append(turn(bool(len(rounds) % 2)))
            tell(min(1.0, (now() - start) / budget_s, len(rounds) / fewest))
        load = watch.load()
    tell(1.0)
    clean = [runs for runs in rounds if all(run.clean for run in runs)]
    kept = clean if len(clean) >= fewest else rounds
    threads = torch.get_num_threads()
    on_processor = set(clocks) == {"cpu"}
    by_thread = len(clean) < fewest and on_processor and threads == 1
    efforts = [one.effort for runs in kept for one in runs if one.effort]
    return Turns(
        samples=[
            [one.effort.thread_s if by_thread and one.effort else one.total for one in runs]
            for runs in zip(*kept, strict=True)
        ],
        clean_runs=len(clean),
        tried=len(rounds),
        clock="thread" if by_thread else "wall",
        cpu_share=statistics.median(effort.share(threads) for effort in efforts) if on_processor else None,
        others=load.others,
        pressure=load.pressure,
    )


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


def _nobody(share: float) -> None:
    """Nobody is told."""


def _stamped(method: Callable[..., Any], stamp: Callable[[], Any], stamps: list[Any]) -> Callable[..., Any]:
    keep = stamps.append

    def call(*args: Any) -> Any:
        result = method(*args)
        keep(stamp())
        return result

    return call


def _warm_up(*runs: Callable[[], Timed], now: Callable[[], float]) -> None:
    start = now()
    rounds = 0
    while rounds < WARMUP_ROUNDS or now() - start < WARMUP_S:
        for one in runs:
            one()
        rounds += 1
        if now() - start > 10 * WARMUP_S:
            return  # a forward this long has warmed what there is to warm


def _enough(pairs: int, clean: int, elapsed_s: float, budget_s: float) -> bool:
    """Whether the budget is spent and enough pairs are clean, or patience is at an end."""
    fewest = FEWEST_PAIRS if elapsed_s < LONG * budget_s else FEWEST_CLEAN
    if pairs < fewest or elapsed_s < budget_s:
        return False
    return clean >= FEWEST_CLEAN or elapsed_s >= PATIENCE * budget_s


def _watching_cost(clock: Clock) -> float:
    """What watching costs a step that does nothing, in seconds of the clock."""
    if not clock.on_processor:
        return 0.0

    def nothing(*args: Any) -> None:
        return None

    def seconds(method: Callable[..., Any]) -> float:
        stamps = [clock.stamp()]
        for _ in range(200):
            method(None)
        stamps.append(clock.stamp())
        return clock.seconds(stamps)[0] / 200

    costs = [seconds(_stamped(nothing, clock.stamp, [])) - seconds(nothing) for _ in range(9)]
    return max(0.0, statistics.median(costs))
