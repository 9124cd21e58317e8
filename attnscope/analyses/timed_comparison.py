"""A Comparison on this machine: times at each point, and a bisection of the sizes at which the lead changes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from attnscope.analyses.contenders import STAGE, Meeting
from attnscope.analyses.paper_comparison import point_at, set_ratios
from attnscope.analyses.quantities import QUANTITIES, macs
from attnscope.attentions.spec import Spec
from attnscope.core.errors import UsageError, ran_out_of_memory
from attnscope.core.interval import Interval
from attnscope.ops.kernels import RUN_EVERYWHERE
from attnscope.profiling.building import build, needed_together, settled, shortage
from attnscope.profiling.intervals import ratio_of_rounds
from attnscope.profiling.noise import SPREAD_MAY_BE, disturbances
from attnscope.profiling.options import check_arguments, check_dtype
from attnscope.profiling.statistics import quartiles
from attnscope.reports.comparison import Comparison, LeftOut, Measured, TimeCrossover

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from attnscope.profiling.timing import Turns

LONGEST_RUN_S = 5.0
"""A forward that is expected to take longer is not timed."""
MOST_CANDIDATES = 100_000
"""Largest distance between the first and the last measured value for which bisection is used."""

Progress = Callable[[int, int, str], None]
"""A callback that receives the number of finished points, the number of all points, and what comes next."""


def race(
    comparison: Comparison,
    meeting: Meeting,
    *,
    device: str = "auto",
    budget: float = 0.3,
    threads: int = 1,
    seed: int = 0,
    progress: Progress = lambda done, total, words: None,
) -> None:
    """Time the contenders at each point and write the times into the comparison.

    Runs of the contenders are interleaved, so that a drift of the machine affects all of them equally. A contender that
    does not fit in memory or would take too long is recorded in `not_timed`; the others are timed. Ctrl-C keeps the times
    so far.

    Args:
        comparison: the result of `on_paper` for this meeting.
        meeting: the contenders, their settings and the axes.
        device, budget, threads, seed: as in `explore`; the budget is the seconds to measure at each point.
        progress: a function that is called before each point.

    Raises:
        UsageError: an argument is not allowed.
        DeviceError: the device is not available, or does not support the dtype.
    """
    from attnscope.profiling.devices import environment, find_device

    check_race(device, budget, threads, seed)
    found = find_device(device)
    for point in comparison.points[:1]:  # all points have the same dtype
        for spec in meeting.specs(meeting.place(point.at)).values():
            check_dtype(found.type, spec.dtype)
    comparison.environment |= environment(found, threads, seed)
    course = _Course(comparison, meeting, found, budget)
    try:
        with settled(threads, seed, found):
            for index, point in enumerate(comparison.points):
                progress(index, len(comparison.points), _at(point.at))
                point.times = course.times(point.at)
            comparison.time_crossovers = course.crossovers(progress)
    except KeyboardInterrupt:
        comparison.interrupted = True
        comparison.time_crossovers = course.crossovers(progress, bisect=False)
    set_measured(comparison, meeting)
    for point in [*comparison.points, *comparison.bisected]:
        point.measured_ratio = measured_ratios(point.times, course.first)
        point.measured_interval = measured_intervals(point.times, course.first)
    comparison.not_timed = list(course.not_timed.values())
    comparison.warnings += [*course.outputs.warnings.values(), *course.disturbed(threads), *noise_warnings(comparison)]
    progress(len(comparison.points), len(comparison.points), "done")


def set_measured(comparison: Comparison, meeting: Meeting) -> None:
    """Compute a measured quantity from the times, and the ratios of all points."""
    of_time = QUANTITIES[comparison.quantity].of_time
    points = [*comparison.points, *comparison.bisected]
    for point in points if of_time else ():
        specs = meeting.specs(meeting.place(point.at))
        assert of_time is not None
        point.costs |= {label: of_time(specs[label], time.median_s) for label, time in point.times.items()}
    set_ratios(points, comparison.labels)


def check_race(device: str, budget: float, threads: int, seed: int) -> None:
    """Check the arguments of `race`. No torch.

    Raises:
        UsageError: an argument is not allowed.
    """
    check_arguments(device, budget, threads, seed)
    if device == "meta":
        raise UsageError("{device} meta computes nothing, so {time} has nothing to measure; remove one of them")


def noise_warnings(comparison: Comparison) -> list[str]:
    """Return a warning if times are noisy, with its remedy."""
    times = [time for point in [*comparison.points, *comparison.bisected] for time in point.times.values()]
    noisy = sum(time.high_s - time.low_s > SPREAD_MAY_BE * time.median_s for time in times)
    if not noisy:
        return []
    found = f"the interquartile range exceeds {SPREAD_MAY_BE:.0%} of the median in {noisy} of {len(times)} times"
    return [f"{found}: use a longer --budget or a quieter machine"]


def measured_ratios(times: Mapping[str, Measured], first: str) -> dict[str, float]:
    """Return the median time of the first contender divided by that of each other one, by label."""
    if first not in times:
        return {}
    return {label: times[first].median_s / time.median_s for label, time in times.items() if label != first}


def measured_intervals(times: Mapping[str, Measured], first: str) -> dict[str, tuple[float, float]]:
    """Return the interval of the time of the first contender divided by that of each other one, by label."""
    found = {label: paired_ratio(times, first, label) for label in times if label != first}
    return {label: (each.low, each.high) for label, each in found.items() if each is not None}


def paired_ratio(times: Mapping[str, Measured], first: str, other: str) -> Interval | None:
    """Return the interval of the time of the first contender divided by that of the other one.

    It is None if one was not measured, or in too few rounds. Samples at the same position are of the same round.
    """
    if first not in times or other not in times:
        return None
    return ratio_of_rounds(times[first].samples_s, times[other].samples_s)


def find_crossover(
    leads: Mapping[int, bool | None], candidates: Sequence[int], probe: Callable[[int], bool | None]
) -> tuple[int | None, int | None, bool | None, list[int], list[int]]:
    """Bisect the last change of the lead.

    Args:
        leads: for each measured value, True if the other contender is faster than the first one; None if the
            interval of their ratio includes 1.
        candidates: values that may be measured, in ascending order.
        probe: a function that measures one of them and returns its lead.

    Returns:
        A tuple of five: the two values between which the lead changes, the lead from the second one on, the unclear values,
        and the probed values. At an unclear value, which is between the first two, the interval of the ratio includes 1. If
        the lead never changes, the first two are None and the lead is that at all values.
    """
    lead_at = dict(leads)
    probed: list[int] = []
    decided = sorted(value for value, lead in lead_at.items() if lead is not None)
    changes = [(low, high) for low, high in pairwise(decided) if lead_at[low] != lead_at[high]]
    if not changes:
        unclear = sorted(value for value, lead in lead_at.items() if lead is None)
        return None, None, lead_at[decided[-1]] if decided else None, unclear, probed
    low, high = changes[-1]
    while True:
        unclear = sorted(value for value in lead_at if low < value < high)
        edges = [(low, unclear[0]), (unclear[-1], high)] if unclear else [(low, high)]
        inside = next(filter(None, ([v for v in candidates if lo < v < hi] for lo, hi in edges)), [])
        if not inside:
            return low, high, lead_at[high], unclear, probed
        middle = inside[len(inside) // 2]
        lead_at[middle] = probe(middle)
        probed.append(middle)
        if lead_at[middle] is not None:
            low, high = (middle, high) if lead_at[middle] == lead_at[low] else (low, middle)


class _Course:
    """A timer of the contenders, point by point, that remembers the speed of each."""

    def __init__(self, comparison: Comparison, meeting: Meeting, device: "torch.device", budget: float) -> None:
        from attnscope.profiling.outputs import OutputCheck

        self.meeting, self.device, self.budget = meeting, device, budget
        self.points, self.quantity = comparison.points, comparison.quantity
        self.bisected = comparison.bisected
        self.labels = [contender.label for contender in meeting.contenders]
        self.first = self.labels[0]
        self.names = comparison.names
        self.macs_per_s: dict[str, float] = {}
        self.not_timed: dict[str, LeftOut] = {}
        self.turns: list[Turns] = []
        self.outputs = OutputCheck()

    def times(self, at: dict[str, int]) -> dict[str, Measured]:
        """Time the contenders that can run at this point, and return their times by label."""
        from attnscope.profiling.timing import time_in_turn

        specs = self.meeting.specs(self.meeting.place(at))
        runs: dict[str, Spec] = {}
        for label, spec in specs.items():
            if self._can_run(label, spec, runs, at):
                runs[label] = spec
        try:
            built = {label: build(spec, self.device) for label, spec in runs.items()}
            for label, (module, _) in built.items():
                self.outputs.expect(module, f"the output of {self.names[label]}")
            forwards = {label: run for label, run in built.items() if self._runs(label, runs[label].kernel, run, at)}
            if not forwards:
                return {}
            turns = time_in_turn(list(forwards.values()), self.budget)
        except (RuntimeError, MemoryError) as error:
            if not ran_out_of_memory(error):
                raise
            self._leave_out(at, f"{self._named(runs)} did not fit in the memory of {self.device.type}")
            return {}
        self.turns.append(turns)
        times = {label: measured(of_run) for label, of_run in zip(forwards, turns.samples, strict=True)}
        self.macs_per_s |= {label: macs(specs[label]) / time.median_s for label, time in times.items()}
        return times

    def disturbed(self, threads: int) -> list[str]:
        """Return a warning if other processes disturbed the runs: the number of such points, and the first cause."""
        causes = [each for turns in self.turns for each in disturbances(turns, threads, self.device.type)[:1]]
        return [f"at {len(causes)} of {len(self.turns)} points, {causes[0]}"] if causes else []

    def _can_run(self, label: str, spec: Spec, beside: Mapping[str, Spec], at: dict[str, int]) -> bool:
        together = {**beside, label: spec}
        short = shortage(needed_together([one.plan() for one in together.values()]), self.device)
        if short is not None:
            self._leave_out(at, f"{self._named(together)} need{'' if beside else 's'} {short}")
            return False
        expected_s = macs(spec) / self.macs_per_s[label] if label in self.macs_per_s else 0.0
        if expected_s > LONGEST_RUN_S:
            self._leave_out(at, f"{self.names[label]} would take about {expected_s:.0f} s per run")
            return False
        return True

    def _runs(
        self, label: str, kernel: str, forward: "tuple[nn.Module, tuple[Tensor, ...]]", at: dict[str, int]
    ) -> bool:
        """Return whether the kernel runs on this input; kernels that run everywhere are not tried."""
        from attnscope.profiling.kernels import reasons, why_not
        from attnscope.profiling.timing import measuring

        if kernel in RUN_EVERYWHERE:
            return True
        module, x = forward
        with reasons(kernel) as said, measuring():
            try:
                module(*x)
            except Exception as error:
                if ran_out_of_memory(error):
                    raise
                self._leave_out(at, f"{self.names[label]} does not run here: {why_not(error, said)}")
                return False
        return True

    def _named(self, labels: Iterable[str]) -> str:
        return " and ".join(self.names[label] for label in labels)

    def _leave_out(self, at: dict[str, int], reason: str) -> None:
        self.not_timed[f"{at} {reason}"] = LeftOut(at, reason)

    def crossovers(self, progress: Progress, bisect: bool = True) -> list[TimeCrossover]:
        """Find the interval in which each contender overtakes the first one, if a single field varies."""
        axes = self.meeting.axes
        if len(axes) != 1 or axes[0].field == STAGE or len(self.points) < 2:
            return []
        axis = axes[0].field
        candidates = self._candidates(axis) if bisect else []
        found = []
        for other in self.labels[1:]:

            def probe(value: int, other: str = other) -> bool | None:
                times = {point.at[axis]: point.times for point in self.bisected}
                if value not in times:
                    progress(len(self.points), len(self.points), f"bisecting {axis} {value}")
                    place = self.meeting.place({axis: value})
                    self.bisected.append(point_at(place, self.meeting.specs(place), self.quantity))
                    times[value] = self.bisected[-1].times = self.times({axis: value})
                return leads(times[value], self.first, other)

            pair = {self.first, other}
            points = [*self.points, *self.bisected]
            both = {point.at[axis]: point.times for point in points if pair <= point.times.keys()}
            if not both:
                continue  # one of them was never timed
            lead = {value: leads(times, self.first, other) for value, times in both.items()}
            low, high, other_leads, unclear, bisected = find_crossover(lead, candidates, probe)
            leader = None if other_leads is None else other if other_leads else self.first
            found.append(TimeCrossover(self.first, other, axis, low, high, leader, unclear, bisected))
        return found

    def _candidates(self, axis: str) -> list[int]:
        """Return the possible values between the points; those with padding only if a point has padding."""
        values = sorted(point.at[axis] for point in self.points if point.times)
        if not values or values[-1] - values[0] > MOST_CANDIDATES:
            return []
        padded = any(point.padding for point in self.points)

        def possible(value: int) -> bool:
            try:
                specs = self.meeting.specs(self.meeting.place({axis: value}))
            except UsageError:
                return False
            return padded or not any(spec.neighbourhood.padding_tokens for spec in specs.values())

        return [value for value in range(values[0] + 1, values[-1]) if possible(value)]


def leads(times: Mapping[str, Measured], first: str, other: str) -> bool | None:
    """Return whether the other one is faster; None if the interval of their ratio includes 1 or is unknown."""
    ratio = paired_ratio(times, first, other)
    if ratio is None or ratio.low <= 1 <= ratio.high:
        return None
    return ratio.low > 1


def measured(samples: list[float]) -> Measured:
    """Return the median and the quartiles of samples in seconds."""
    low, median, high = quartiles(samples)
    return Measured(median, low, high, samples)


def _at(at: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in at.items())
