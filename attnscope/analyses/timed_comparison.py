"""A Comparison on this machine: each point timed, and where the lead changes found by bisection."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from attnscope.analyses.compare import macs, point_at
from attnscope.analyses.contenders import STAGE, Meeting
from attnscope.attentions.spec import Spec
from attnscope.core.errors import UsageError, ran_out_of_memory
from attnscope.ops.kernels import RUN_EVERYWHERE
from attnscope.profiling.building import build, needed_together, settled, shortage
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
"""Bisection looks at no more values than this between two measured ones."""

Progress = Callable[[int, int, str], None]
"""Is told how many of how many points are done, and what is next."""


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

    Contenders run in turn, so that a drift of the machine touches all alike. A point at which one does not fit in memory,
    or would take too long, is timed for the others, and told in `not_timed`. Ctrl-C keeps what is there.

    Args:
        comparison: what `on_paper` found for this meeting.
        meeting: who is compared over what.
        device, budget, threads, seed: as in `explore`; the budget is seconds of measuring at each point.
        progress: is called before each point.

    Raises:
        UsageError: an argument that cannot be asked for.
        DeviceError: the device is not here, or knows no such numbers.
    """
    from attnscope.profiling.devices import environment, find_device

    check_race(device, budget, threads, seed)
    found = find_device(device)
    for point in comparison.points[:1]:  # it is the same at all
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
    for point in [*comparison.points, *comparison.bisected]:
        point.measured_ratio = measured_ratios(point.times, course.first)
    comparison.not_timed = list(course.not_timed.values())
    comparison.warnings += [*course.disturbed(threads), *doubts(comparison)]
    progress(len(comparison.points), len(comparison.points), "done")


def check_race(device: str, budget: float, threads: int, seed: int) -> None:
    """Raises a UsageError where something cannot be asked for. No torch."""
    check_arguments(device, budget, threads, seed)
    if device == "meta":
        raise UsageError("{device} meta computes nothing that could be timed; leave out {time}")


def doubts(comparison: Comparison) -> list[str]:
    """What makes the times doubtful, with its remedy."""
    times = [time for point in [*comparison.points, *comparison.bisected] for time in point.times.values()]
    spread = sum(time.high_s - time.low_s > SPREAD_MAY_BE * time.median_s for time in times)
    if not spread:
        return []
    told = f"{spread} of {len(times)} times spread by more than {SPREAD_MAY_BE:.0%}"
    return [f"{told}: a longer --budget, or a quieter machine, may steady them"]


def measured_ratios(times: Mapping[str, Measured], first: str) -> dict[str, float]:
    """How many times as long as each other one the first one took."""
    if first not in times:
        return {}
    return {label: times[first].median_s / time.median_s for label, time in times.items() if label != first}


def find_crossover(
    leads: Mapping[int, bool | None], candidates: Sequence[int], probe: Callable[[int], bool | None]
) -> tuple[int | None, int | None, bool | None, list[int], list[int]]:
    """Bisect the last change of the lead.

    Args:
        leads: for each measured value whether the other one leads; None where the two cannot be told apart.
        candidates: values that may be measured, in ascending order.
        probe: measures one of them.

    Returns:
        The values between which the lead changes, and who leads from the second one on (None, None and who led all along
        where it does not change), values in between that could not be told apart, and those that were probed.
    """
    known = dict(leads)
    probed: list[int] = []
    told = sorted(value for value, lead in known.items() if lead is not None)
    changes = [(low, high) for low, high in pairwise(told) if known[low] != known[high]]
    if not changes:
        unclear = sorted(value for value, lead in known.items() if lead is None)
        return None, None, known[told[-1]] if told else None, unclear, probed
    low, high = changes[-1]
    while True:
        unclear = sorted(value for value in known if low < value < high)
        edges = [(low, unclear[0]), (unclear[-1], high)] if unclear else [(low, high)]
        inside = next(filter(None, ([v for v in candidates if lo < v < hi] for lo, hi in edges)), [])
        if not inside:
            return low, high, known[high], unclear, probed
        middle = inside[len(inside) // 2]
        known[middle] = probe(middle)
        probed.append(middle)
        if known[middle] is not None:
            low, high = (middle, high) if known[middle] == known[low] else (low, middle)


class _Course:
    """Times contenders at one point after the other, and remembers how fast each was."""

    def __init__(self, comparison: Comparison, meeting: Meeting, device: "torch.device", budget: float) -> None:
        self.meeting, self.device, self.budget = meeting, device, budget
        self.points, self.quantity = comparison.points, comparison.quantity
        self.bisected = comparison.bisected
        self.labels = [contender.label for contender in meeting.contenders]
        self.first = self.labels[0]
        self.names = comparison.names
        self.macs_per_s: dict[str, float] = {}
        self.not_timed: dict[str, LeftOut] = {}
        self.turns: list[Turns] = []

    def times(self, at: dict[str, int]) -> dict[str, Measured]:
        """The times of all that can be timed at this point."""
        from attnscope.profiling.timing import time_in_turn

        specs = self.meeting.specs(self.meeting.place(at))
        runs: dict[str, Spec] = {}
        for label, spec in specs.items():
            if self._can_run(label, spec, runs, at):
                runs[label] = spec
        try:
            built = {label: build(spec, self.device) for label, spec in runs.items()}
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
        """At how many points others disturbed the runs, and what was told at the first of them."""
        told = [each for turns in self.turns for each in disturbances(turns, threads, self.device.type)[:1]]
        return [f"at {len(told)} of {len(self.turns)} points, {told[0]}"] if told else []

    def _can_run(self, label: str, spec: Spec, beside: Mapping[str, Spec], at: dict[str, int]) -> bool:
        together = {**beside, label: spec}
        short = shortage(needed_together([one.plan() for one in together.values()]), self.device)
        if short is not None:
            self._leave_out(at, f"{self._named(together)} need{'' if beside else 's'} {short}")
            return False
        expected_s = macs(spec) / self.macs_per_s[label] if label in self.macs_per_s else 0.0
        if expected_s > LONGEST_RUN_S:
            self._leave_out(at, f"{self.names[label]} would take some {expected_s:.0f} s a run")
            return False
        return True

    def _runs(
        self, label: str, kernel: str, forward: "tuple[nn.Module, tuple[Tensor, ...]]", at: dict[str, int]
    ) -> bool:
        """Whether the kernel runs on this; those that run everywhere are taken at their word."""
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
        """Where each contender overtakes the first one, if it is one field that is gone over."""
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
            known = {point.at[axis]: point.times for point in points if pair <= point.times.keys()}
            if not known:
                continue  # one of them was never timed
            lead = {value: leads(times, self.first, other) for value, times in known.items()}
            low, high, other_leads, unclear, bisected = find_crossover(lead, candidates, probe)
            leader = None if other_leads is None else other if other_leads else self.first
            found.append(TimeCrossover(self.first, other, axis, low, high, leader, unclear, bisected))
        return found

    def _candidates(self, axis: str) -> list[int]:
        """Values between the points that can exist, without padding where the points have none."""
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
    """Whether the other one is faster; None where their spreads overlap, or one was not measured."""
    if first not in times or other not in times or not times[first].apart(times[other]):
        return None
    return times[other].median_s < times[first].median_s


def measured(samples: list[float]) -> Measured:
    """Return the median and the quartiles of some samples."""
    low, median, high = quartiles(samples)
    return Measured(median, low, high, samples)


def _at(at: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in at.items())
