"""Two Reports beside each other: what changed in the environment, the Spec, the costs and the times."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from attnscope.report import Report, StepRow

LOAD_MAY_DIFFER = 0.5
WHOLE_MAY_DIFFER, STEP_MAY_DIFFER = 0.02, 0.05
"""How far the same run lies apart from process to process on a quiet machine, as a share: memory falls otherwise."""


@dataclass(frozen=True)
class Change:
    """A value that is not the same in both; None where one has none."""

    name: str
    before: Any
    after: Any


@dataclass(frozen=True)
class TimeChange:
    """A time in both runs, in seconds; None where one of them has none.

    `real` is whether the middle halves of the samples lie apart by more than the same run does from process to process.
    """

    name: str
    before_s: float | None
    after_s: float | None
    real: bool

    @property
    def ratio(self) -> float | None:
        """After over before."""
        return self.after_s / self.before_s if self.before_s and self.after_s is not None else None


@dataclass(frozen=True)
class Diff:
    """What changed from one run to another; `steps` are those of either, in their order."""

    environment: list[Change]
    spec: list[Change]
    costs: list[Change]
    steps: list[TimeChange]
    whole: TimeChange
    doubts: list[str]
    """Warnings of either run, with its number in front."""


def compare(before: Report, after: Report) -> Diff:
    """Hold two runs against each other, step by step; steps are the same if path and name are."""
    environment = [
        change for change in _changes(before.environment, after.environment)
        if change.name != "load" or abs((change.before or 0) - (change.after or 0)) > LOAD_MAY_DIFFER
    ]  # fmt: skip
    rows, others = _by_place(before.steps), _by_place(after.steps)
    places = list(dict.fromkeys([*rows, *others]))
    return Diff(
        environment=environment,
        spec=_changes(before.spec, after.spec),
        costs=_costs(before, after),
        steps=[_step(place, rows.get(place), others.get(place)) for place in places],
        whole=_time(
            "whole",
            (before.time.whole_median_s, before.time.whole_samples_s) if before.time else None,
            (after.time.whole_median_s, after.time.whole_samples_s) if after.time else None,
            WHOLE_MAY_DIFFER,
        ),
        doubts=[
            f"the {which} run: {warning}"
            for which, report in (("first", before), ("second", after))
            for warning in report.warnings
        ],
    )


def overlap(before: Sequence[float], after: Sequence[float], may_differ: float = 0.0) -> bool:
    """Whether the middle halves of two samples share a value; of fewer than two nothing can be told, so they do.

    `may_differ` widens each by that share of itself, half of it to either side.
    """
    if len(before) < 2 or len(after) < 2:
        return True
    (low, _, high), (other_low, _, other_high) = (
        statistics.quantiles(samples, n=4, method="inclusive") for samples in (before, after)
    )
    wide, narrow = 1 + may_differ / 2, 1 - may_differ / 2
    return low * narrow <= other_high * wide and other_low * narrow <= high * wide


def _step(place: str, before: StepRow | None, after: StepRow | None) -> TimeChange:
    return _time(
        place,
        (before.time.median_s, before.time.samples_s) if before and before.time else None,
        (after.time.median_s, after.time.samples_s) if after and after.time else None,
        STEP_MAY_DIFFER,
    )


def _time(
    name: str, before: tuple[float, list[float]] | None, after: tuple[float, list[float]] | None, may_differ: float
) -> TimeChange:
    if before is None or after is None:
        return TimeChange(name, before and before[0], after and after[0], real=False)
    return TimeChange(name, before[0], after[0], real=not overlap(before[1], after[1], may_differ))


def _costs(before: Report, after: Report) -> list[Change]:
    """Exact figures that differ: of the whole, then of each step."""
    changes = _changes(vars(before.totals), vars(after.totals))
    rows, others = _by_place(before.steps), _by_place(after.steps)
    for place, row in rows.items():
        if place in others and row.macs != others[place].macs:
            changes.append(Change(f"{place} macs", row.macs, others[place].macs))
    changes += [Change(place, "a step", None) for place in rows if place not in others]
    return [*changes, *(Change(place, None, "a step") for place in others if place not in rows)]


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
