"""Time each step of a forward in place, beside the untouched forward.

The end of a step and the beginning of the next share one stamp, so that the steps add up to the forward without a gap. Runs
with and without stamps alternate, so that a drift of the machine affects both alike. A time is an interquartile mean over
the same runs for every step: as robust as a median, and the steps add up to their sum exactly.
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn

from attnscope.plan.step import Step
from attnscope.profiling.clocks import CLOCKS, Clock, ThreadClock, Timed, run
from attnscope.profiling.hooks import Listener, listening
from attnscope.profiling.load import Load, Watch
from attnscope.profiling.noise import FEWEST_CLEAN
from attnscope.profiling.statistics import Samples, interquartile_range, mean_at, median_if_any, middle_half
from attnscope.reports.report import StepTime, Time

WARMUP_RUNS = 5
"""Runs of a forward before it is timed: the first takes up to 2.7 times as long as later ones, the fifth 2 % more."""
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


@dataclass(frozen=True)
class Pairs:
    """Watched and untouched runs of one forward, in pairs. The last entry of a chain is what follows its last step.

    `beside` are the runs of each other forward that ran once with every pair. `tried` pairs were run. The clean ones are
    kept, or all of them if fewer than FEWEST_CLEAN are clean. `clock` is "wall", or "thread" if other processes left so few
    runs clean that only the thread's processor time is reliable.
    """

    chains: list[Timed]
    wholes: list[Timed]
    clean_runs: int
    stamp_s: float
    tried: int
    load: Load
    clock: str = "wall"
    beside: Sequence[Sequence[Timed]] = ()


@dataclass(frozen=True)
class Timing:
    """The finished statistics of a forward, or a backward, that was timed step by step.

    Args:
        whole: the untouched runs beside the sum of the steps.
        samples_s: seconds of each step in each watched run.
        middle: the watched runs in the middle half, by their total. Every mean is over these runs, so that steps add up.
        beside: the untouched runs of each other forward that was timed with it.
    """

    whole: Time
    samples_s: Sequence[Sequence[float]]
    middle: Sequence[int]
    beside: Sequence[Samples] = ()

    def time_of(self, steps: Iterable[int], instances: int = 1) -> StepTime:
        """Return the time of some steps together, divided by the number of instances that they are."""
        runs = [sum(run) / instances for run in zip(*[self.samples_s[step] for step in steps], strict=True)]
        return StepTime(mean_at(runs, self.middle), interquartile_range(runs), runs)


@dataclass(frozen=True)
class Turns:
    """Samples in seconds of several forwards that were run in turn, and how much other processes disturbed them.

    `clean_runs` of the `tried` rounds were left alone; these are kept, or all rounds if too few are clean. `cpu_share` is
    the share of the processors' time that a run had; None if a GPU took part. The rest is as in a Time.
    """

    samples: list[list[float]]
    clean_runs: int
    tried: int
    clock: str
    cpu_share: float | None
    others: float | None
    pressure: float | None

    @property
    def times(self) -> list[Samples]:
        """The statistics of each forward."""
        return [Samples(samples) for samples in self.samples]


Progress = Callable[[float], None]
"""Called now and then with the share of the measurement that is done."""


def time_steps(
    module: nn.Module,
    x: Inputs,
    budget_s: float,
    progress: Progress | None = None,
    beside: Sequence[nn.Module] = (),
) -> Timing:
    """Time each step of a module in place, and the untouched forward beside it.

    If other processes leave fewer than FEWEST_CLEAN pairs clean, a single thread is timed once more by its processor time,
    which is reliable on a busy machine too.

    Args:
        module: a module whose steps are tied to methods, in evaluation mode.
        x: its input or inputs, on the module's device.
        budget_s: seconds to measure, without the warm-up; up to PATIENCE times as long on a busy machine.
        progress: called with the share that is done.
        beside: other modules whose untouched forward of the same inputs is timed in turn with these.

    Returns:
        The times of the steps in the order in which they ran.
    """

    def pairs_by(clock: Clock) -> Pairs:
        def forward() -> Any:
            return module(*as_tuple(x))

        def other(beside: nn.Module) -> Timed:
            return run(clock, partial(beside, *as_tuple(x)), [])

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
        others = [partial(other, each) for each in beside]
        pairs = take_pairs(whole, chain, budget_s, watching_s + clock.empty_s, progress, others)
        return replace(pairs, chains=[_less_watching(chained, watching_s) for chained in pairs.chains])

    return statistics_of(by_best_clock(pairs_by, device_type(x)))


def by_best_clock(pairs_by: Callable[[Clock], Pairs], device: str) -> Pairs:
    """Take pairs by the device's own clock, or by a single thread's processor time if too few of them are clean."""
    pairs = pairs_by(CLOCKS[device]())
    if pairs.clean_runs < FEWEST_CLEAN and device == "cpu" and torch.get_num_threads() == 1:
        by_thread = pairs_by(ThreadClock())
        pairs = replace(by_thread, clean_runs=pairs.clean_runs, tried=pairs.tried, clock="thread")
    return pairs


def statistics_of(pairs: Pairs) -> Timing:
    """Return the finished statistics of pairs of runs; torch still has the number of threads that they ran with."""
    middle = middle_half([chain.total for chain in pairs.chains])
    steps_sums = [sum(chain.seconds[:-1]) for chain in pairs.chains]
    whole = Samples([run.total for run in pairs.wholes])
    efforts = [run.effort for run in pairs.wholes if run.effort]
    threads = torch.get_num_threads()
    steps_sum_s = mean_at(steps_sums, middle)
    return Timing(
        whole=Time(
            whole_interquartile_mean_s=whole.interquartile_mean_s,
            whole_iqr_s=whole.iqr_s,
            whole_samples_s=list(whole.samples_s),
            steps_sum_s=steps_sum_s,
            remainder_s=whole.interquartile_mean_s - steps_sum_s,
            runs=len(pairs.wholes),
            clean_runs=pairs.clean_runs,
            stamp_s=pairs.stamp_s,
            tried=pairs.tried,
            clock=pairs.clock,
            cpu_share=median_if_any([effort.share(threads) for effort in efforts]),
            page_faults=median_if_any([effort.faults for effort in efforts if effort.faults is not None]),
            others=pairs.load.others,
            pressure=pairs.load.pressure,
        ),
        samples_s=list(zip(*[chain.seconds[:-1] for chain in pairs.chains], strict=True)),
        middle=middle,
        beside=[Samples([run.total for run in runs]) for runs in pairs.beside],
    )


def take_pairs(
    whole: Callable[[], Timed],
    chain: Callable[[], Timed],
    budget_s: float,
    stamp_s: float,
    progress: Progress | None = None,
    beside: Sequence[Callable[[], Timed]] = (),
    now: Callable[[], float] = time.perf_counter,
) -> Pairs:
    """Run pairs of a whole and a watched run, in alternating order, until enough are clean or the budget is spent.

    `beside` are other runs that take their turn with every pair. `now` returns the seconds in which the budget and the
    warm-up are counted.
    """
    runs = [whole, chain, *beside]
    rounds: list[list[Timed]] = []
    report = progress or _ignore
    with measuring():
        report(0.0)
        _warm_up(runs, now(), now, rounds=ceil(WARMUP_RUNS / 2))  # each round runs the forward twice
        watch = Watch()
        start = now()
        clean: list[list[Timed]] = []
        while not _enough(len(rounds), len(clean), now() - start, budget_s):
            rounds.append(_round_of(runs, backwards=bool(len(rounds) % 2)))
            if all(run.clean for run in rounds[-1]):
                clean.append(rounds[-1])
            expected_s = budget_s if len(clean) >= FEWEST_CLEAN else PATIENCE * budget_s
            report(min(1.0, (now() - start) / expected_s, len(rounds) / FEWEST_PAIRS))
        load = watch.load()
    report(1.0)
    wholes, chains, *others = map(list, zip(*(clean if len(clean) >= FEWEST_CLEAN else rounds), strict=True))
    return Pairs(chains, wholes, len(clean), stamp_s, len(rounds), load, beside=others)


def seconds_of(module: nn.Module, x: Inputs) -> float:
    """Return the seconds of one untouched forward."""
    with measuring():
        return run(CLOCKS[device_type(x)](), partial(module, *as_tuple(x)), []).total


def time_forward(module: nn.Module, x: Inputs, budget_s: float, progress: Progress | None = None) -> Samples:
    """Time the untouched forward alone."""
    return time_in_turn([(module, x)], budget_s, progress).times[0]


def time_in_turn(
    forwards: Sequence[tuple[nn.Module, Inputs]],
    budget_s: float,
    progress: Progress | None = None,
    now: Callable[[], float] = time.perf_counter,
) -> Turns:
    """Time several untouched forwards, run in turn, so that a drift of the machine touches all alike.

    Args:
        forwards: modules in evaluation mode, and their inputs.
        budget_s: seconds to measure them together, without the warm-up. Each runs FEWEST_CLEAN times at least, or
            FEWEST_LONG_RUNS times if one round takes longer than the budget.
        progress: called with the share that is done.
        now: returns the seconds in which the budget and the warm-up are counted.

    Returns:
        The samples of each, from the rounds that were left alone. If these are too few, all rounds are kept, and a single
        thread is timed by its processor time.
    """
    clocks = {device: CLOCKS[device]() for device in {device_type(x) for _, x in forwards}}

    def untouched(module: nn.Module, x: Inputs) -> Timed:
        return run(clocks[device_type(x)], partial(module, *as_tuple(x)), [])

    runs = [partial(untouched, *forward) for forward in forwards]
    report = progress or _ignore
    with measuring():
        report(0.0)
        start = now()
        _round_of(runs)
        long = now() - start > budget_s
        if not long:
            _warm_up(runs, start, now, rounds=WARMUP_RUNS - 1)
        watch = Watch()
        start = now()
        rounds: list[list[Timed]] = []
        fewest = FEWEST_LONG_RUNS if long else FEWEST_CLEAN
        while len(rounds) < fewest or now() - start < budget_s:
            rounds.append(_round_of(runs, backwards=bool(len(rounds) % 2)))
            report(min(1.0, (now() - start) / budget_s, len(rounds) / fewest))
        load = watch.load()
    report(1.0)
    clean = [each for each in rounds if all(run.clean for run in each)]
    kept = clean if len(clean) >= fewest else rounds
    threads = torch.get_num_threads()
    on_processor = set(clocks) == {"cpu"}
    by_thread = len(clean) < fewest and on_processor and threads == 1
    efforts = [one.effort for each in kept for one in each if one.effort]
    return Turns(
        samples=[
            [one.effort.thread_s if by_thread and one.effort else one.total for one in each]
            for each in zip(*kept, strict=True)
        ],
        clean_runs=len(clean),
        tried=len(rounds),
        clock="thread" if by_thread else "wall",
        cpu_share=statistics.median(effort.share(threads) for effort in efforts) if on_processor else None,
        others=load.others,
        pressure=load.pressure,
    )


@contextmanager
def measuring() -> Iterator[None]:
    """Turn gradients and garbage collection off for the length of a with block."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        with torch.inference_mode():
            yield
    finally:
        if collecting:
            gc.enable()


def as_tuple(x: Inputs) -> tuple[Tensor, ...]:
    """Return the inputs as a tuple."""
    return x if isinstance(x, tuple) else (x,)


def device_type(x: Inputs) -> str:
    """Return the type of the inputs' device: "cpu", "cuda" or "mps"."""
    return as_tuple(x)[0].device.type


def _ignore(share: float) -> None:
    """Take the place of a progress callback that was not given."""


def _less_watching(chain: Timed, watching_s: float) -> Timed:
    """Subtract the cost of watching from each step."""
    return replace(chain, seconds=[max(0.0, s - watching_s) for s in chain.seconds[:-1]] + chain.seconds[-1:])


def _stamped(method: Callable[..., Any], stamp: Callable[[], Any], stamps: list[Any]) -> Callable[..., Any]:
    keep = stamps.append

    def call(*args: Any) -> Any:
        result = method(*args)
        keep(stamp())
        return result

    return call


def _round_of(runs: Sequence[Callable[[], Timed]], backwards: bool = False) -> list[Timed]:
    """Run each once, from the first to the last or backwards; return the results from the first to the last."""
    if backwards:
        return [one() for one in reversed(runs)][::-1]
    return [one() for one in runs]


def _warm_up(runs: Sequence[Callable[[], Timed]], start: float, now: Callable[[], float], rounds: int) -> None:
    """Run each so many times, and until WARMUP_S have passed since the start."""
    while rounds > 0 or now() - start < WARMUP_S:
        _round_of(runs)
        rounds -= 1
        if now() - start > 10 * WARMUP_S:
            return  # a forward this long has warmed what there is to warm


def _enough(pairs: int, clean: int, elapsed_s: float, budget_s: float) -> bool:
    """Return whether the budget is spent and enough pairs are clean, or PATIENCE times the budget is spent."""
    fewest = FEWEST_PAIRS if elapsed_s < LONG * budget_s else FEWEST_CLEAN
    if pairs < fewest or elapsed_s < budget_s:
        return False
    return clean >= FEWEST_CLEAN or elapsed_s >= PATIENCE * budget_s


def _watching_cost(clock: Clock) -> float:
    """Measure what watching costs a step that does nothing, in seconds of the clock."""
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
