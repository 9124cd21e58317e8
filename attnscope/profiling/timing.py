"""Time each step of a forward in place, and the uninstrumented forward for comparison.

The end of a step and the beginning of the next share one timestamp, so that the steps add up to the forward without gaps.
Instrumented and uninstrumented runs alternate, so that drift of the machine affects both equally. A time is an
interquartile mean over the same runs for every step. It is as robust as a median, and the steps add up to their sum
exactly.
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from attnscope.plan.step import Step
from attnscope.profiling.clocks import CLOCKS, Clock, ThreadClock, Timed, run
from attnscope.profiling.hooks import Listener, listening
from attnscope.profiling.intervals import paired_interval
from attnscope.profiling.load import Effort, Load, Watch
from attnscope.profiling.noise import FEWEST_CLEAN
from attnscope.profiling.statistics import Samples, in_digits, interquartile_range, mean_at, median_if_any, middle_half
from attnscope.reports.report import StepTime, Time

WARMUP_RUNS = 5
"""Runs of a forward before it is timed. The first takes up to 2.7 times as long as later ones, the fifth 2% longer."""
WARMUP_S = 0.05
FEWEST_PAIRS = 7
"""The smallest number of pairs. The middle half of only FEWEST_CLEAN pairs has three, which are too few: with several
threads, the sum of the steps would differ from the whole by more than 3%."""
PATIENCE = 2
"""Multiple of the budget that may be spent if other processes prevent clean pairs."""
NARROW = 0.01
"""Width of the interval of a ratio of interleaved forwards at which timing stops before the budget is spent."""
FEWEST_FOR_WIDTH = 30
"""Rounds before the width is judged: by chance, the interval of a few rounds may be too narrow."""
LONG = 10
"""Multiple of the budget after which a long forward needs only FEWEST_CLEAN pairs."""

Inputs = Tensor | tuple[Tensor, ...]
"""The inputs of a forward: a tensor, or a tuple of tensors."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of an instrumented run (a chain) and an uninstrumented run (a whole) of one forward.

    The last entry of a chain is the time after its last step. `beside` has the runs of each other forward, one for every
    pair, and `yardsticks` has those of each yardstick. Of the `tried` pairs only clean ones are kept, or all if fewer than
    FEWEST_CLEAN are clean. `clock` is "wall", or "thread" if too few runs are clean, so that only the CPU time of the
    thread is reliable. `process_runs` has the number of pairs of each process, if there are several.
    """

    chains: list[Timed]
    wholes: list[Timed]
    clean_runs: int
    stamp_s: float
    tried: int
    load: Load
    clock: str = "wall"
    beside: Sequence[Sequence[Timed]] = ()
    yardsticks: Mapping[str, Sequence[Timed]] = field(default_factory=dict)
    process_runs: Sequence[int] = ()

    @classmethod
    def from_plain(cls, data: dict[str, Any]) -> "Pairs":
        """Build Pairs from the plain data that `asdict` makes of them."""

        def runs(timed: list[dict[str, Any]]) -> list[Timed]:
            return [
                Timed(one["seconds"], one["clean"], Effort(**one["effort"]) if one["effort"] else None) for one in timed
            ]

        return cls(
            **{
                **data,
                "chains": runs(data["chains"]),
                "wholes": runs(data["wholes"]),
                "beside": list(map(runs, data["beside"])),
                "yardsticks": {name: runs(timed) for name, timed in data["yardsticks"].items()},
                "load": Load(**data["load"]),
            }
        )


@dataclass(frozen=True)
class Timing:
    """Statistics of a forward, or of a backward, that was timed step by step.

    Args:
        whole: time of the uninstrumented runs, and the sum of the steps.
        samples_s: seconds of each step in each instrumented run.
        middle: positions of the instrumented runs whose totals are in the middle half. Every mean is over these runs, so
            that the steps add up.
        beside: times of the uninstrumented runs of each other forward that was interleaved.
        yardsticks: seconds of each run of the yardsticks, by name.
    """

    whole: Time
    samples_s: Sequence[Sequence[float]]
    middle: Sequence[int]
    beside: Sequence[Samples] = ()
    yardsticks: Mapping[str, list[float]] = field(default_factory=dict)

    def time_of(self, steps: Iterable[int], instances: int = 1) -> StepTime:
        """Return the time of several steps together, divided by the number of instances that they cover."""
        runs = [sum(run) / instances for run in zip(*[self.samples_s[step] for step in steps], strict=True)]
        return StepTime(mean_at(runs, self.middle), interquartile_range(runs), in_digits(runs))


@dataclass(frozen=True)
class Turns:
    """Samples in seconds of several interleaved forwards, and the load by other processes.

    Of the `tried` rounds, `clean_runs` were undisturbed. Only these are kept, or all rounds if too few are clean.
    `cpu_share` is the fraction of the CPU time of its threads that a run got; None if a GPU took part. The other attributes
    are those of a Time.
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
        """Return the statistics of each forward."""
        return [Samples(samples) for samples in self.samples]


Progress = Callable[[float], None]
"""A callback that receives the fraction of the measurement that is done."""


Yardsticks = Mapping[str, Callable[[], Timed]]
"""Yardsticks by name; each call runs one once and returns its time."""


def time_steps(
    module: nn.Module,
    x: Inputs,
    budget_s: float,
    progress: Progress | None = None,
    beside: Sequence[nn.Module] = (),
) -> Timing:
    """Return the times of the steps of a module in the order in which they ran; the arguments are those of `step_pairs`."""
    return statistics_of(step_pairs(module, x, budget_s, progress, beside))


def step_pairs(
    module: nn.Module,
    x: Inputs,
    budget_s: float,
    progress: Progress | None = None,
    beside: Sequence[nn.Module] = (),
    yardsticks: Yardsticks = MappingProxyType({}),
) -> Pairs:
    """Time each step of a module in place, and the uninstrumented forward for comparison.

    If fewer than FEWEST_CLEAN pairs are clean, a single thread is timed again by its CPU time, which is reliable on a busy
    machine too.

    Args:
        module: a module whose steps are tied to methods, in evaluation mode.
        x: its input or inputs, on the module's device.
        budget_s: seconds to measure, without the warm-up; up to PATIENCE times as long on a busy machine.
        progress: called with the fraction of the measurement that is done.
        beside: other modules, whose uninstrumented forwards of the same inputs are interleaved.
        yardsticks: those that are interleaved.
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
                pass  # leaves the caches as before a chain; without this, the chain takes 0.4% longer than the whole
            return run(clock, forward, [])

        def chain() -> Timed:
            stamps: list[Any] = []
            with listening(module, stamping(stamps)):
                return run(clock, forward, stamps)

        with measuring():
            overhead_s = _step_overhead(clock)
        others = [partial(other, each) for each in beside]
        pairs = take_pairs(whole, chain, budget_s, overhead_s + clock.stamp_s, progress, others, yardsticks)
        return replace(pairs, chains=[_without_overhead(chained, overhead_s) for chained in pairs.chains])

    return by_best_clock(pairs_by, device_type(x))


def by_best_clock(pairs_by: Callable[[Clock], Pairs], device: str) -> Pairs:
    """Take pairs with the clock of the device, or by the CPU time of a single thread if too few of them are clean."""
    pairs = pairs_by(CLOCKS[device]())
    if pairs.clean_runs < FEWEST_CLEAN and device == "cpu" and torch.get_num_threads() == 1:
        by_thread = pairs_by(ThreadClock())
        pairs = replace(by_thread, clean_runs=pairs.clean_runs, tried=pairs.tried, clock="thread")
    return pairs


def statistics_of(pairs: Pairs) -> Timing:
    """Return the statistics of pairs of runs. torch must still have the number of threads that they ran with."""
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
            process_runs=list(pairs.process_runs),
        ),
        samples_s=list(zip(*[chain.seconds[:-1] for chain in pairs.chains], strict=True)),
        middle=middle,
        beside=[Samples([run.total for run in runs]) for runs in pairs.beside],
        yardsticks={name: [run.total for run in runs] for name, runs in pairs.yardsticks.items()},
    )


def take_pairs(
    whole: Callable[[], Timed],
    chain: Callable[[], Timed],
    budget_s: float,
    stamp_s: float,
    progress: Progress | None = None,
    beside: Sequence[Callable[[], Timed]] = (),
    yardsticks: Yardsticks = MappingProxyType({}),
    now: Callable[[], float] = time.perf_counter,
    ready: Callable[[], AbstractContextManager[None]] | None = None,
) -> Pairs:
    """Take pairs of a whole and a chain, in alternating order, until enough are clean or the budget is spent.

    Args:
        whole: runs the uninstrumented forward.
        chain: runs the instrumented forward.
        budget_s: seconds to measure, without the warm-up; up to PATIENCE times as long on a busy machine.
        stamp_s: seconds of overhead per step, for the record.
        progress: called with the fraction of the measurement that is done.
        beside: other runs that are interleaved with every pair.
        yardsticks: those that are interleaved with every pair. A disturbed run of theirs does not make a pair unclean,
            since the median over the pairs ignores it.
        now: returns the current time in seconds, for the budget and the warm-up.
        ready: the context in which to measure; `measuring` by default.
    """
    judged = 2 + len(beside)
    runs = [whole, chain, *beside, *yardsticks.values()]
    rounds: list[list[Timed]] = []
    report = progress or _ignore
    with (ready or measuring)():
        report(0.0)
        _warm_up(runs, now(), now, rounds=ceil(WARMUP_RUNS / 2))  # each round runs the forward twice
        watch = Watch()
        start = now()
        clean: list[list[Timed]] = []
        while not _enough(len(rounds), len(clean), now() - start, budget_s):
            rounds.append(_round_of(runs, backwards=bool(len(rounds) % 2)))
            if all(run.clean for run in rounds[-1][:judged]):
                clean.append(rounds[-1])
            expected_s = budget_s if len(clean) >= FEWEST_CLEAN else PATIENCE * budget_s
            report(min(1.0, (now() - start) / expected_s, len(rounds) / FEWEST_PAIRS))
        load = watch.load()
    report(1.0)
    wholes, chains, *others = map(list, zip(*(clean if len(clean) >= FEWEST_CLEAN else rounds), strict=True))
    measured = dict(zip(yardsticks, others[len(beside) :], strict=True))
    return Pairs(
        chains, wholes, len(clean), stamp_s, len(rounds), load, beside=others[: len(beside)], yardsticks=measured
    )


def merge(pairs: Sequence[Pairs], processes: Sequence[int]) -> Pairs:
    """Return the pairs of several measurements as one.

    Args:
        pairs: the measurements of the same forward, at least one.
        processes: the process of each measurement; those of a process are consecutive.
    """
    first = pairs[0]
    if len(pairs) == 1:
        return first
    runs = [sum([len(one.wholes) for one, of in zip(pairs, processes, strict=True) if of == process])
            for process in dict.fromkeys(processes)]  # fmt: skip
    loads = [one.load for one in pairs]
    return Pairs(
        chains=[run for one in pairs for run in one.chains],
        wholes=[run for one in pairs for run in one.wholes],
        clean_runs=sum([one.clean_runs for one in pairs]),
        stamp_s=statistics.fmean([one.stamp_s for one in pairs]),
        tried=sum([one.tried for one in pairs]),
        load=Load(_mean_if_all([load.others for load in loads]), _mean_if_all([load.pressure for load in loads])),
        clock="thread" if any(one.clock == "thread" for one in pairs) else first.clock,
        beside=[[run for runs in same for run in runs] for same in zip(*[one.beside for one in pairs], strict=True)],
        yardsticks={name: [run for one in pairs for run in one.yardsticks[name]] for name in first.yardsticks},
        process_runs=runs if len(runs) > 1 else (),
    )


def _mean_if_all(values: Sequence[float | None]) -> float | None:
    """Return the mean, or None if a value is unknown."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def seconds_of(module: nn.Module, x: Inputs) -> float:
    """Return the seconds of one uninstrumented forward."""
    with measuring():
        return run(CLOCKS[device_type(x)](), partial(module, *as_tuple(x)), []).total


def time_forward(module: nn.Module, x: Inputs, budget_s: float, progress: Progress | None = None) -> Samples:
    """Time the uninstrumented forward alone."""
    return time_in_turn([(module, x)], budget_s, progress).times[0]


def time_in_turn(
    forwards: Sequence[tuple[nn.Module, Inputs]],
    budget_s: float,
    progress: Progress | None = None,
    now: Callable[[], float] = time.perf_counter,
) -> Turns:
    """Time several uninstrumented forwards, interleaved, so that drift of the machine affects all equally.

    Args:
        forwards: modules in evaluation mode, and their inputs.
        budget_s: seconds to measure all of them together, without the warm-up. Each runs at least FEWEST_CLEAN times, since
            fewer rounds have no interval. Measuring ends earlier if the intervals of the ratios to the first forward are
            NARROW.
        progress: called with the fraction of the measurement that is done.
        now: returns the current time in seconds, for the budget and the warm-up.

    Returns:
        The samples of each forward, from the clean rounds. If these are too few, all rounds are kept, and a single thread
        is timed by its CPU time.
    """
    clocks = {device: CLOCKS[device]() for device in {device_type(x) for _, x in forwards}}

    def uninstrumented(module: nn.Module, x: Inputs) -> Timed:
        return run(clocks[device_type(x)], partial(module, *as_tuple(x)), [])

    runs = [partial(uninstrumented, *forward) for forward in forwards]
    report = progress or _ignore
    with measuring():
        report(0.0)
        start = now()
        _round_of(runs)
        if now() - start <= budget_s:
            _warm_up(runs, start, now, rounds=WARMUP_RUNS - 1)
        watch = Watch()
        start = now()
        rounds: list[list[Timed]] = []
        judged_at = FEWEST_FOR_WIDTH
        while len(rounds) < FEWEST_CLEAN or now() - start < budget_s:
            rounds.append(_round_of(runs, backwards=bool(len(rounds) % 2)))
            if len(rounds) == judged_at:
                if _is_narrow(rounds):
                    break
                judged_at = 2 * judged_at  # judged seldom, since each look may stop by chance
            report(min(1.0, (now() - start) / budget_s, len(rounds) / FEWEST_CLEAN))
        load = watch.load()
    report(1.0)
    clean = [each for each in rounds if all(run.clean for run in each)]
    kept = clean if len(clean) >= FEWEST_CLEAN else rounds
    threads = torch.get_num_threads()
    on_processor = set(clocks) == {"cpu"}
    by_thread = len(clean) < FEWEST_CLEAN and on_processor and threads == 1
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
    """Turn off gradients and garbage collection within a `with` block."""
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
    """Ignore the progress; the default callback."""


def _without_overhead(chain: Timed, overhead_s: float) -> Timed:
    """Subtract the overhead of the instrumentation from each step."""
    return replace(chain, seconds=[max(0.0, s - overhead_s) for s in chain.seconds[:-1]] + chain.seconds[-1:])


def _stamped(method: Callable[..., Any], stamp: Callable[[], Any], stamps: list[Any]) -> Callable[..., Any]:
    """Wrap a method so that each call of it appends a timestamp."""
    keep = stamps.append

    def call(*args: Any) -> Any:
        result = method(*args)
        keep(stamp())
        return result

    return call


def _round_of(runs: Sequence[Callable[[], Timed]], backwards: bool = False) -> list[Timed]:
    """Run each function once, in order or in reverse order; return the results in order."""
    if backwards:
        return [one() for one in reversed(runs)][::-1]
    return [one() for one in runs]


def _is_narrow(rounds: Sequence[Sequence[Timed]]) -> bool:
    """Return whether the ratios of the first forward to each other one in the clean rounds have NARROW intervals."""
    clean = [each for each in rounds if all(run.clean for run in each)]
    if len(clean) < FEWEST_FOR_WIDTH / 2 or len(rounds[0]) < 2:
        return False
    first, *others = zip(*clean, strict=True)
    found = [
        paired_interval([one.total / run.total for one, run in zip(first, other, strict=True)]) for other in others
    ]
    return all(each is not None and each.high - each.low <= NARROW * each.low for each in found)


def _warm_up(runs: Sequence[Callable[[], Timed]], start: float, now: Callable[[], float], rounds: int) -> None:
    """Run each function the given number of rounds, and until WARMUP_S seconds have passed since the start."""
    while rounds > 0 or now() - start < WARMUP_S:
        _round_of(runs)
        rounds -= 1
        if now() - start > 10 * WARMUP_S:
            return  # one round of a forward this long is enough


def _enough(pairs: int, clean: int, elapsed_s: float, budget_s: float) -> bool:
    """Return whether the budget is spent and enough pairs are clean, or PATIENCE times the budget is spent."""
    fewest = FEWEST_PAIRS if elapsed_s < LONG * budget_s else FEWEST_CLEAN
    if pairs < fewest or elapsed_s < budget_s:
        return False
    return clean >= FEWEST_CLEAN or elapsed_s >= PATIENCE * budget_s


def _step_overhead(clock: Clock) -> float:
    """Measure the overhead of instrumentation on a step that does nothing, in seconds of the clock."""
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
