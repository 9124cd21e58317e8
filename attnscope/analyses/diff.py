"""Two Reports beside each other: what changed in the environment, the Spec, the costs and the times."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from attnscope.profiling.statistics import quartiles
from attnscope.reports.diff import WHOLE, Change, Diff, TimeChange
from attnscope.reports.report import Report, StepRow, StepTime, Time

LOAD_MAY_DIFFER = 0.5
WHOLE_MAY_DIFFER, STEP_MAY_DIFFER = 0.02, 0.05
"""How far the same run lies apart from process to process on a quiet machine, as a share: memory falls otherwise."""
STEP_COSTS = (
    *("times", "macs", "other_flops", "params", "bytes_read", "bytes_written"),
    *("bytes_live", "bytes_training", "bytes_backward", "bytes_saved", "bytes_allocated"),
)
"""What of a step is exact, by its name in a Report."""

Half = tuple[float, float]
"""Between which seconds the middle half of the samples lies."""


def compare(before: Report, after: Report) -> Diff:
    """Hold two runs against each other, step by step; steps are the same if path and name are."""
    return Diff(
        environment=_environment(before, after),
        spec=_changes(_asked(before), _asked(after)),
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
    )


def middle_half(samples: Sequence[float]) -> Half | None:
    """Return the first and the third quartile of the samples; None for fewer than two."""
    if len(samples) < 2:
        return None
    low, _, high = quartiles(samples)
    return low, high


def overlap(before: Half | None, after: Half | None, may_differ: float = 0.0) -> bool:
    """Whether two middle halves share a value; where nothing can be told of one, they do.

    `may_differ` widens each by that share of itself, half of it to either side.
    """
    if before is None or after is None:
        return True
    wide, narrow = 1 + may_differ / 2, 1 - may_differ / 2
    return before[0] * narrow <= after[1] * wide and after[0] * narrow <= before[1] * wide


@dataclass(frozen=True)
class _Timed:
    """What one run has timed: seconds, their middle half, and of how many identical steps together."""

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
    """Return by how many seconds the time of a single step may be off in either run, as far as the runs tell.

    It is what the steps leave unexplained of the whole, or exceed it by. On MPS that is the cost of waiting for the device
    at each step, which both runs have.
    """
    times = [time_of(report) for report in (before, after) if report.environment.get("device") != "mps"]
    return max([abs(time.remainder_s) for time in times if time], default=0.0)


def _backward_time(report: Report) -> Time | None:
    return report.backward.time if report.backward else None


def _kernels(report: Report) -> dict[str, _Timed]:
    """Each kernel by its name; of its samples a Report keeps the spread alone."""
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
    """Whether there are two times, and they and their middle halves lie apart by more than that share."""
    if before is None or after is None:
        return False
    shorter, longer = sorted((before.seconds, after.seconds))
    return longer > (1 + may_differ) * shorter and not overlap(before.half, after.half, may_differ)


def _environment(before: Report, after: Report) -> list[Change]:
    """What is not the same around the runs, and the clocks that they were told by."""
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


def _asked(report: Report) -> dict[str, Any]:
    """The Spec, and whether there was a backward."""
    back = report.backward
    asked = f"{'with' if back.input_grad else 'without'} the input's gradient" if back else None
    return {**report.spec, "backward": asked}


def _costs(before: Report, after: Report) -> list[Change]:
    """Exact figures that differ: of the whole, then of each step, where both runs know it."""
    changes = _changes(_whole_costs(before), _whole_costs(after))
    rows, others = _by_place(before.steps), _by_place(after.steps)
    for place in dict.fromkeys([*rows, *others]):
        if place in rows and place in others:
            differing = _changes(_step_costs(rows[place]), _step_costs(others[place]))
            known = [change for change in differing if None not in (change.before, change.after)]
            changes += [Change(f"{place} {change.name}", change.before, change.after) for change in known]
        else:
            changes.append(Change(place, *("a step" if place in each else "no step" for each in (rows, others))))
    return changes


def _whole_costs(report: Report) -> dict[str, int | None]:
    exact = {name: cost for name, cost in vars(report.totals).items() if not name.endswith("_at_least")}
    return {**exact, "backward_macs": report.backward.macs if report.backward else None}


def _step_costs(row: StepRow) -> dict[str, int | None]:
    costs = {name: getattr(row, name) for name in STEP_COSTS}
    return {**costs, "backward_macs": row.backward.macs if row.backward else None}


def _by_place(rows: list[StepRow]) -> dict[str, StepRow]:
    """The steps by their place in the module; a second one of the same place has its number behind it."""
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
    """A value as JSON keeps it."""
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
