"""Two Reports -> Diff: the changes in the environment, the Spec, the costs and the times."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from attnscope.core.interval import FASTER, SLOWER, Interval, verdict_on
from attnscope.profiling.intervals import (
    interval_of,
    interval_of_run,
    medians_of_processes,
    paired_interval,
    ratio_between_processes,
)
from attnscope.profiling.noise import FEWEST_CLEAN, SPREAD_MAY_BE
from attnscope.profiling.normalization import WHOLE as OF_WHOLE
from attnscope.profiling.normalization import at_same_speed, normalized
from attnscope.profiling.statistics import median_if_any
from attnscope.reports.diff import WHOLE, Change, Diff, TimeChange
from attnscope.reports.report import Report, StepRow, StepTime, Time

LOAD_MAY_DIFFER = 0.5
WHOLE_MAY_DIFFER, STEP_MAY_DIFFER = 0.02, 0.05
"""Relative difference between processes with the same run on a quiet machine: each places its memory differently."""
BUSY_MAY_DIFFER = 0.2
"""The same for runs that other processes disturbed: CPU time differs up to 18% between processes on a loaded machine."""
NORMALIZED_MAY_DIFFER, NORMALIZED_BUSY_MAY_DIFFER = 0.06, 0.12
"""The same for normalized times, which also have the noise of the yardsticks."""
PROCESSES_MAY_DIFFER = 0.02
"""The same if both runs have at least five processes each, whose spread includes most of their difference."""
CLOCKS = ("clock", "backward clock")
OF_A_MACHINE = (
    *("torch", "device", "device_name", "cpu", "cpu_capability", "threads", "cores"),
    *("allocator", "denormals", "toolkit", "driver", *CLOCKS),
)
"""The entries of an environment that times depend on, with the clocks."""
BACKWARD = "backward"
"""The name of the requested backward among the options; a run without it is comparable in its forward."""
STEP_COSTS = (
    *("times", "macs", "other_flops", "params", "bytes_read", "bytes_written"),
    *("bytes_live", "bytes_training", "bytes_backward", "bytes_saved", "bytes_allocated"),
)
"""The exact figures of a step, by their names in a Report."""


def compare(before: Report, after: Report) -> Diff:
    """Compare two runs step by step; steps correspond if their paths and names are equal."""
    environment, spec = _environment(before, after), _changes(_requested(before), _requested(after))
    whole, step = (_Allowance.of(before, after, quiet) for quiet in (WHOLE_MAY_DIFFER, STEP_MAY_DIFFER))
    back, other_back = _backward_time(before), _backward_time(after)
    error_s, back_error_s = (_error_s(before, after, time_of) for time_of in (_forward_time, _backward_time))
    is_same_machine = not any(change.name in OF_A_MACHINE for change in environment)
    hosts, back_hosts = (
        at_same_speed(one.yardsticks, other.yardsticks) if one and other and is_same_machine else None
        for one, other in ((before.time, after.time), (back, other_back))
    )
    return Diff(
        environment=environment,
        spec=spec,
        costs=_costs(before, after),
        steps=_times("forward", _forward_steps(before), _forward_steps(after), step, hosts, error_s),
        whole=_time("forward", WHOLE, _whole(before.time), _whole(after.time), whole, hosts),
        backward_steps=_times(
            "backward", _backward_steps(before), _backward_steps(after), step, back_hosts, back_error_s
        ),
        backward=_time("backward", WHOLE, _whole(back), _whole(other_back), whole, back_hosts),
        kernels=_times("kernel", _kernels(before), _kernels(after), whole),
        doubts=[
            f"the {which} run: {warning}"
            for which, report in (("first", before), ("second", after))
            for warning in report.warnings
        ],
        same=before == after,
        differing=[
            *(change for change in spec if change.name != BACKWARD or None not in (change.before, change.after)),
            *(change for change in environment if change.name in OF_A_MACHINE),
        ],
        unknown=_unknown(before, after),
    )


def compare_in_turn(rounds: Sequence[tuple[Report, Report]]) -> Diff:
    """Compare two runs that took turns, each in fresh processes, by the ratios of the pairs.

    A drift of the machine affects both processes of a pair alike, and the pairs show how much processes differ. The
    interval of a ratio has the medians of blocks of pairs at its ends, and includes the ratio of the median times. Ratios
    at the same speed of the host decide if enough pairs have them: not a pair whose processes were timed by different
    clocks, as happens on a busy machine.
    """
    diffs = [compare(before, after) for before, after in rounds]
    first = diffs[0]

    def together(rows: Callable[[Diff], list[TimeChange]]) -> list[TimeChange]:
        found = [{(row.of, row.name): row for row in rows(diff)} for diff in diffs]
        return [_in_turn([of_round[key] for of_round in found if key in of_round]) for key in found[0]]

    return replace(
        first,
        steps=together(lambda diff: diff.steps),
        whole=together(lambda diff: [diff.whole])[0],
        backward_steps=together(lambda diff: diff.backward_steps),
        backward=together(lambda diff: [diff.backward])[0],
        kernels=together(lambda diff: diff.kernels),
        doubts=_doubts_in_turn(rounds),
        same=False,
        environment=[change for change in first.environment if change.name != "load"],
        # other processes decide by which clock a process is timed; this differs from pair to pair
        differing=[change for change in first.differing if change.name not in CLOCKS],
        processes=len(rounds),
    )


def _in_turn(rows: Sequence[TimeChange]) -> TimeChange:
    """Return a time of runs that took turns: its medians, and the interval of the ratios of the pairs."""
    ratios = [row.ratio for row in rows if row.ratio is not None]
    before, after = (
        median_if_any([seconds for seconds in times if seconds is not None])
        for times in ([row.before_s for row in rows], [row.after_s for row in rows])
    )
    is_complete = len(ratios) == len(rows)
    found = paired_interval(ratios) if is_complete else None
    if found is not None and before and after is not None:
        found = Interval(min(found.low, after / before), max(found.high, after / before))
    corrected = [row.normalized_ratio for row in rows if row.normalized_ratio is not None]
    at_same = paired_interval(corrected) if is_complete else None
    return replace(
        rows[0],
        before_s=before,
        after_s=after,
        ratio_low=found.low if found else None,
        ratio_high=found.high if found else None,
        normalized_ratio=statistics.median(corrected) if at_same else None,
        normalized_low=at_same.low if at_same else None,
        normalized_high=at_same.high if at_same else None,
        ratios=ratios,
        within_error=False,
    )


def _doubts_in_turn(rounds: Sequence[tuple[Report, Report]]) -> list[str]:
    """Return the first warning of each run, and the number of its processes that have one, unless all have it."""
    runs: dict[str, list[str]] = {}
    for which, reports in zip(("the first run", "the second run"), zip(*rounds, strict=True), strict=True):
        warnings = [report.warnings[0] for report in reports if report.warnings]
        if warnings:
            some = "" if len(warnings) == len(reports) else f"{len(warnings)} of {len(reports)} processes of "
            runs.setdefault(warnings[0], []).append(f"{some}{which}")
    return [f"{' and '.join(of)}: {warning}" for warning, of in runs.items()]


@dataclass(frozen=True)
class _Timed:
    """A time of one run: its seconds, its interval, and the number of identical steps that it covers.

    `samples_s` are those of one step, and `process_runs` is their number in each process. `yardstick` is the name of the
    slowdown that normalizes them, or None.
    """

    seconds: float
    interval: Interval | None
    times: int = 1
    samples_s: Sequence[float] = ()
    process_runs: Sequence[int] = ()
    yardstick: str | None = None


_Hosts = tuple[Mapping[str, Sequence[float]], Mapping[str, Sequence[float]]] | None
"""The slowdowns of the host in both runs, by yardstick; None if they are not known in both."""


@dataclass(frozen=True)
class _Allowance:
    """Relative differences of the same run between processes, for times and for normalized times."""

    times: float
    normalized: float

    @classmethod
    def of(cls, before: Report, after: Report, quiet: float) -> "_Allowance":
        """Return what two runs may differ by: `quiet`, or more if others disturbed one of the two."""
        times = [time for report in (before, after) for time in (report.time, _backward_time(report))]
        if any(map(_is_disturbed, times)):
            return cls(BUSY_MAY_DIFFER, NORMALIZED_BUSY_MAY_DIFFER)
        return cls(quiet, max(quiet, NORMALIZED_MAY_DIFFER))


def _timed(seconds: float, samples_s: Sequence[float], times: int, time: Time | None, yardstick: str | None) -> _Timed:
    """Return the time of `times` identical steps, from the mean and the samples of one of them.

    The mean of a step is over the runs whose totals are in the middle half. It may be outside of the interval of its own
    samples, which is then extended.
    """
    found = interval_of(samples_s)
    if found is not None:
        found = Interval(times * min(found.low, seconds), times * max(found.high, seconds))
    return _Timed(times * seconds, found, times, samples_s, time.process_runs if time else (), yardstick)


def _is_disturbed(time: Time | None) -> bool:
    """Return whether other processes, or an unknown cause that spreads the runs, may have slowed a whole run down."""
    return time is not None and (
        time.clock == "thread"
        or time.clean_runs < min(FEWEST_CLEAN, time.runs)
        or time.whole_iqr_s > SPREAD_MAY_BE * time.whole_interquartile_mean_s
    )


def _forward_steps(report: Report) -> dict[str, _Timed]:
    rows = _by_place(report.steps).items()
    return {place: _step(row, row.time, report.time) for place, row in rows if row.time}


def _backward_steps(report: Report) -> dict[str, _Timed]:
    rows, back = _by_place(report.steps).items(), _backward_time(report)
    return {place: _step(row, row.backward.time, back) for place, row in rows if row.backward and row.backward.time}


def _step(row: StepRow, time: StepTime, whole: Time | None) -> _Timed:
    return _timed(time.interquartile_mean_s, time.samples_s, row.times, whole, time.yardstick)


def _whole(time: Time | None) -> _Timed | None:
    return _timed(time.whole_interquartile_mean_s, time.whole_samples_s, 1, time, OF_WHOLE) if time else None


def _forward_time(report: Report) -> Time | None:
    return report.time


def _error_s(before: Report, after: Report, time_of: Callable[[Report], Time | None]) -> float:
    """Return the error of the time of a single step in seconds, estimated from both runs.

    It is the larger absolute difference between the whole and the sum of its steps. Runs on MPS are ignored: there, the
    difference is the cost of waiting for the device at each step, which both runs have.
    """
    times = [time_of(report) for report in (before, after) if report.environment.get("device") != "mps"]
    return max([abs(time.remainder_s) for time in times if time], default=0.0)


def _backward_time(report: Report) -> Time | None:
    return report.backward.time if report.backward else None


def _kernels(report: Report) -> dict[str, _Timed]:
    """Return the time of each kernel by its name.

    A Report keeps only the interquartile range of its samples, which is taken as symmetric around the mean.
    """
    return {
        kernel.name: _Timed(
            kernel.time_s, Interval(max(0.0, kernel.time_s - kernel.iqr_s / 2), kernel.time_s + kernel.iqr_s / 2)
        )
        for kernel in report.kernels
        if kernel.time_s is not None and kernel.iqr_s is not None
    }


def _times(
    of: str,
    before: Mapping[str, _Timed],
    after: Mapping[str, _Timed],
    may_differ: _Allowance,
    hosts: _Hosts = None,
    error_s: float = 0.0,
) -> list[TimeChange]:
    names = dict.fromkeys([*before, *after])
    return [_time(of, name, before.get(name), after.get(name), may_differ, hosts, error_s) for name in names]


def _time(
    of: str,
    name: str,
    before: _Timed | None,
    after: _Timed | None,
    may_differ: _Allowance,
    hosts: _Hosts = None,
    error_s: float = 0.0,
) -> TimeChange:
    times = {timed.times for timed in (before, after) if timed}
    ratio, by_samples = (_ratio(before, after, may_differ.times, error) for error in (error_s, 0.0))
    first, second = _at_same_speed(before, after, hosts)
    normalized_ratio = _normalized_ratio(first, second, may_differ.normalized, error_s)
    if normalized_ratio is not None:
        by_samples = _normalized_ratio(first, second, may_differ.normalized)
    change = TimeChange(
        of,
        name,
        before.seconds if before else None,
        after.seconds if after else None,
        times=times.pop() if len(times) == 1 else None,
        ratio_low=ratio.low if ratio else None,
        ratio_high=ratio.high if ratio else None,
        normalized_ratio=second.seconds / first.seconds if first and second and normalized_ratio else None,
        normalized_low=normalized_ratio.low if normalized_ratio else None,
        normalized_high=normalized_ratio.high if normalized_ratio else None,
    )
    return replace(change, within_error=not change.real and verdict_on(by_samples) in (FASTER, SLOWER))


def _at_same_speed(before: _Timed | None, after: _Timed | None, hosts: _Hosts) -> tuple[_Timed | None, _Timed | None]:
    """Return both times at the same speed of the host; None for both if they have no yardstick in common."""
    if before is None or after is None or hosts is None:
        return None, None
    host, other_host = hosts
    name = before.yardstick
    if name is None or name != after.yardstick or name not in host:
        return None, None
    return _normalized(before, host[name]), _normalized(after, other_host[name])


def _normalized(timed: _Timed, slowdown: Sequence[float]) -> _Timed:
    """Return a time at the reference speed of its host: the median of its normalized samples, and their interval."""
    samples = [timed.times * sample for sample in normalized(timed.samples_s, slowdown)]
    found = interval_of_run(samples, timed.process_runs)
    return replace(timed, seconds=statistics.median(samples), interval=found, times=1, samples_s=samples)


def _normalized_ratio(
    before: _Timed | None, after: _Timed | None, may_differ: float, error_s: float = 0.0
) -> Interval | None:
    """Return the interval of the ratio of two normalized times: over processes if both runs have enough of them."""
    if before is None or after is None:
        return None
    medians = [medians_of_processes(timed.samples_s, timed.process_runs) for timed in (before, after)]
    found = ratio_between_processes(*medians)
    if found is None:
        return _ratio(before, after, may_differ, error_s)
    return found.including(after.seconds / before.seconds).widened(PROCESSES_MAY_DIFFER, error_s / before.seconds)


def _ratio(before: _Timed | None, after: _Timed | None, may_differ: float, error_s: float = 0.0) -> Interval | None:
    """Return the interval of the time after over the time before; None if it is unknown.

    Args:
        before, after: the times of the runs.
        may_differ: relative difference of the same run between processes; half of it is added to each time.
        error_s: error of the difference of both times, in seconds.
    """
    if before is None or after is None or before.interval is None or after.interval is None:
        return None
    return after.interval.widened(may_differ / 2, error_s).over(before.interval.widened(may_differ / 2))


def _environment(before: Report, after: Report) -> list[Change]:
    """Return the changes in the environment of the runs and in the clocks that timed them."""
    clocks = dict(
        zip(CLOCKS, ((before.time, after.time), (_backward_time(before), _backward_time(after))), strict=True)
    )
    return [
        *(
            change
            for change in _changes(before.environment, after.environment)
            if change.name != "load" or _loads_differ(change)
        ),
        *(
            Change(name, one.clock, other.clock)
            for name, (one, other) in clocks.items()
            if one and other and one.clock != other.clock
        ),
    ]


def _loads_differ(change: Change) -> bool:
    """Return whether two loads of a host differ by more than loads usually do; a file may have other values for them."""
    before, after = change.before or 0, change.after or 0
    if not (isinstance(before, int | float) and isinstance(after, int | float)):
        return True
    return abs(before - after) > LOAD_MAY_DIFFER


def _requested(report: Report) -> dict[str, Any]:
    """Return the fields of the Spec, and the requested backward."""
    back = report.backward
    backward = f"{'with' if back.input_grad else 'without'} the input's gradient" if back else None
    return {**report.spec, BACKWARD: backward}


def _costs(before: Report, after: Report) -> list[Change]:
    """Return the exact figures that differ: those of the whole, then those of each step that both runs know."""
    changes = _changes(_whole_costs(before), _whole_costs(after))
    rows, others = _by_place(before.steps), _by_place(after.steps)
    for place in dict.fromkeys([*rows, *others]):
        if place in rows and place in others:
            differing = _changes(_step_costs(rows[place]), _step_costs(others[place]))
            of_both = [change for change in differing if None not in (change.before, change.after)]
            changes += [Change(f"{place} {change.name}", change.before, change.after) for change in of_both]
        else:
            changes.append(Change(place, *("present" if place in each else "missing" for each in (rows, others))))
    return changes


def _whole_costs(report: Report) -> dict[str, int | None]:
    exact = {name: report.total(name)[0] for name in vars(report.totals) if not name.endswith("_at_least")}
    return {**exact, "backward_macs": report.backward.macs if report.backward else None}


def _unknown(*reports: Report) -> list[str]:
    """Return the counts of the whole of which a run knows only a lower bound."""
    names = [name for name in vars(reports[0].totals) if not name.endswith("_at_least")]
    return [
        name
        for name in names
        if any(exact is None and least is not None for exact, least in (report.total(name) for report in reports))
    ]


def _step_costs(row: StepRow) -> dict[str, int | None]:
    costs = {name: getattr(row, name) for name in STEP_COSTS}
    return {**costs, "backward_macs": row.backward.macs if row.backward else None}


def _by_place(rows: list[StepRow]) -> dict[str, StepRow]:
    """Return the steps by path and name; a second step with the same path and name has its number appended."""
    places: dict[str, StepRow] = {}
    for row in rows:
        name = f"{row.path}.{row.name}" if row.path else row.name
        places[next(own for own in (name if n == 1 else f"{name} {n}" for n in count(1)) if own not in places)] = row
    return places


def _changes(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    keys = dict.fromkeys([*before, *after])
    return [
        Change(key, before.get(key), after.get(key))
        for key in keys
        if _plain(before.get(key)) != _plain(after.get(key))
    ]


def _plain(value: Any) -> Any:
    """Return a value as JSON stores it, with tuples as lists."""
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
