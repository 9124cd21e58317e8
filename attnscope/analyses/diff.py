"""Two Reports -> Diff: the changes in the environment, the Spec, the costs and the times."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from attnscope.profiling.statistics import quartiles
from attnscope.reports.diff import WHOLE, Change, Diff, TimeChange
from attnscope.reports.report import Report, StepRow, StepTime, Time

LOAD_MAY_DIFFER = 0.5
WHOLE_MAY_DIFFER, STEP_MAY_DIFFER = 0.02, 0.05
"""Relative difference between processes with the same run on a quiet machine: each places its memory differently."""
STEP_COSTS = (
    *("times", "macs", "other_flops", "params", "bytes_read", "bytes_written"),
    *("bytes_live", "bytes_training", "bytes_backward", "bytes_saved", "bytes_allocated"),
)
"""The exact figures of a step, by their names in a Report."""

Half = tuple[float, float]
"""The first and the third quartile of samples, in seconds."""


def compare(before: Report, after: Report) -> Diff:
    """Compare two runs step by step; steps correspond if their paths and names are equal."""
    return Diff(
        environment=_environment(before, after),
        spec=_changes(_requested(before), _requested(after)),
        costs=_costs(before, after),
        steps=_times(
            "forward",
            _forward_steps(before),
            _forward_steps(after),
            STEP_MAY_DIFFER,
            _error_s(before, after, _forward_time),
        ),
        whole=_time("forward", WHOLE, _whole(before.time), _whole(after.time), WHOLE_MAY_DIFFER),
        backward_steps=_times(
            "backward",
            _backward_steps(before),
            _backward_steps(after),
            STEP_MAY_DIFFER,
            _error_s(before, after, _backward_time),
        ),
        backward=_time(
            "backward", WHOLE, _whole(_backward_time(before)), _whole(_backward_time(after)), WHOLE_MAY_DIFFER
        ),
        kernels=_times("kernel", _kernels(before), _kernels(after), WHOLE_MAY_DIFFER),
        doubts=[
            f"the {which} run: {warning}"
            for which, report in (("first", before), ("second", after))
            for warning in report.warnings
        ],
        same=before == after,
    )


def middle_half(samples: Sequence[float]) -> Half | None:
    """Return the first and the third quartile of the samples; None for fewer than two."""
    if len(samples) < 2:
        return None
    low, _, high = quartiles(samples)
    return low, high


def overlap(before: Half | None, after: Half | None, may_differ: float = 0.0) -> bool:
    """Return whether two interquartile ranges overlap; an unknown one overlaps with any other.

    Args:
        before, after: first and third quartile of the samples, in seconds.
        may_differ: relative difference that still counts as overlap; each range is widened by half of it at both ends.
    """
    if before is None or after is None:
        return True
    wide, narrow = 1 + may_differ / 2, 1 - may_differ / 2
    return before[0] * narrow <= after[1] * wide and after[0] * narrow <= before[1] * wide


@dataclass(frozen=True)
class _Timed:
    """A time of one run: its seconds, the quartiles of its samples, and the number of identical steps that it covers."""

    seconds: float
    half: Half | None
    times: int = 1


def _forward_steps(report: Report) -> dict[str, _Timed]:
    return {place: _step(row, row.time) for place, row in _by_place(report.steps).items() if row.time}


def _backward_steps(report: Report) -> dict[str, _Timed]:
    rows = _by_place(report.steps).items()
    return {place: _step(row, row.backward.time) for place, row in rows if row.backward and row.backward.time}


def _step(row: StepRow, time: StepTime) -> _Timed:
    return _Timed(
        row.times * time.interquartile_mean_s, middle_half([row.times * s for s in time.samples_s]), row.times
    )


def _whole(time: Time | None) -> _Timed | None:
    return _Timed(time.whole_interquartile_mean_s, middle_half(time.whole_samples_s)) if time else None


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
        kernel.name: _Timed(kernel.time_s, (kernel.time_s - kernel.iqr_s / 2, kernel.time_s + kernel.iqr_s / 2))
        for kernel in report.kernels
        if kernel.time_s is not None and kernel.iqr_s is not None
    }


def _times(
    of: str, before: Mapping[str, _Timed], after: Mapping[str, _Timed], may_differ: float, error_s: float = 0.0
) -> list[TimeChange]:
    names = dict.fromkeys([*before, *after])
    return [_time(of, name, before.get(name), after.get(name), may_differ, error_s) for name in names]


def _time(
    of: str, name: str, before: _Timed | None, after: _Timed | None, may_differ: float, error_s: float = 0.0
) -> TimeChange:
    times = {timed.times for timed in (before, after) if timed}
    differ = _differ(before, after, may_differ)
    within_error = (
        differ and before is not None and after is not None and abs(after.seconds - before.seconds) <= error_s
    )
    return TimeChange(
        of,
        name,
        before.seconds if before else None,
        after.seconds if after else None,
        real=differ and not within_error,
        times=times.pop() if len(times) == 1 else None,
        within_error=within_error,
    )


def _differ(before: _Timed | None, after: _Timed | None, may_differ: float) -> bool:
    """Return whether both times exist, and they and their interquartile ranges differ by more than this share."""
    if before is None or after is None:
        return False
    shorter, longer = sorted((before.seconds, after.seconds))
    return longer > (1 + may_differ) * shorter and not overlap(before.half, after.half, may_differ)


def _environment(before: Report, after: Report) -> list[Change]:
    """Return the changes in the environment of the runs and in the clocks that timed them."""
    clocks = {"clock": (before.time, after.time), "backward clock": (_backward_time(before), _backward_time(after))}
    return [
        *(
            change
            for change in _changes(before.environment, after.environment)
            if change.name != "load" or abs((change.before or 0) - (change.after or 0)) > LOAD_MAY_DIFFER
        ),
        *(
            Change(name, one.clock, other.clock)
            for name, (one, other) in clocks.items()
            if one and other and one.clock != other.clock
        ),
    ]


def _requested(report: Report) -> dict[str, Any]:
    """Return the fields of the Spec, and the requested backward."""
    back = report.backward
    backward = f"{'with' if back.input_grad else 'without'} the input's gradient" if back else None
    return {**report.spec, "backward": backward}


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
    exact = {name: cost for name, cost in vars(report.totals).items() if not name.endswith("_at_least")}
    return {**exact, "backward_macs": report.backward.macs if report.backward else None}


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
