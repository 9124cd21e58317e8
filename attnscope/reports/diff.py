"""The Diff of two saved runs: what changed from one to the other, as plain data."""

from dataclasses import asdict, dataclass, field
from typing import Any

from attnscope.core.interval import FASTER, SLOWER, Interval, verdict_on
from attnscope.core.shown import Shown
from attnscope.core.text import in_json
from attnscope.reports.gate import GateResult

WHOLE = "whole"
"""The name of the row for the whole forward or backward, which the steps add up to."""


@dataclass(frozen=True)
class Change:
    """A value that differs between the runs; None if a run does not have or does not know it."""

    name: str
    before: Any
    after: Any


@dataclass(frozen=True)
class TimeChange:
    """A time in both runs, in seconds; None if a run does not have it.

    `of` is the kind of time: "forward", "backward" or "kernel". The seconds of a row cover all of its `times` identical
    steps; `times` is None if the runs differ in it.

    `ratio_low` and `ratio_high` are the ends of the interval of the time after over the time before; None if it is unknown.
    `verdict` follows from them: "faster", "slower", "equal" or "cannot tell"; None if only one run has the time. `real` is
    True for "faster" and "slower". `within_error` is True if the samples differ, but not by more than the error of a step.

    `normalized_ratio` is the ratio at the same speed of the host, by the yardsticks of both runs. `normalized_low` and
    `normalized_high` are the ends of its interval. If they are known, `verdict` follows from them.

    `ratios` has the ratio of each pair of processes if the runs took turns; it is empty for two saved runs.
    """

    of: str
    name: str
    before_s: float | None
    after_s: float | None
    times: int | None
    within_error: bool = False
    ratio_low: float | None = None
    ratio_high: float | None = None
    normalized_ratio: float | None = None
    normalized_low: float | None = None
    normalized_high: float | None = None
    ratios: list[float] = field(default_factory=list)
    real: bool = field(init=False)
    verdict: str | None = field(init=False)

    def __post_init__(self) -> None:
        in_both = self.before_s is not None and self.after_s is not None
        verdict = verdict_on(self.interval) if in_both else None
        object.__setattr__(self, "verdict", verdict)
        object.__setattr__(self, "real", verdict in (FASTER, SLOWER))

    @property
    def interval(self) -> Interval | None:
        """Return the interval that decides: of the normalized ratio, else of the ratio; None if neither is known."""
        return self.normalized_interval or self.measured_interval

    @property
    def measured_interval(self) -> Interval | None:
        """Return the interval of the ratio of the measured times; None if it is unknown."""
        if self.ratio_low is None or self.ratio_high is None:
            return None
        return Interval(self.ratio_low, self.ratio_high)

    @property
    def normalized_interval(self) -> Interval | None:
        """Return the interval of the ratio at the same speed of the host; None if it is unknown."""
        if self.normalized_low is None or self.normalized_high is None:
            return None
        return Interval(self.normalized_low, self.normalized_high)

    @property
    def deciding_ratio(self) -> float | None:
        """Return the ratio whose interval decides: the normalized ratio, else the ratio; None if neither is known."""
        return self.ratio if self.normalized_ratio is None else self.normalized_ratio

    @property
    def is_whole(self) -> bool:
        """Return whether this is the whole forward or backward, which the steps add up to."""
        return self.name == WHOLE

    @property
    def ratio(self) -> float | None:
        """Return the time after divided by the time before; None if either is missing or the time before is 0."""
        return self.after_s / self.before_s if self.before_s and self.after_s is not None else None


@dataclass(frozen=True, repr=False)
class Diff(Shown):
    """The changes from one run to another; steps and kernels are those that either run timed, in their order."""

    environment: list[Change]
    spec: list[Change]
    """Changes in the Spec and in the other requested options."""
    costs: list[Change]
    steps: list[TimeChange]
    whole: TimeChange
    backward_steps: list[TimeChange]
    backward: TimeChange
    """The whole backward."""
    kernels: list[TimeChange]
    doubts: list[str]
    """Warnings of both runs, each with its run in front."""
    same: bool = False
    """True if the files contain the same run."""
    differing: list[Change] = field(default_factory=list)
    """Changes that make the times incomparable: of the Spec, the machine, torch, or the clock."""
    unknown: list[str] = field(default_factory=list)
    """Counts of the whole that are not known exactly in one of the runs, or in both."""
    processes: int = 0
    """The number of processes of each run that took turns; 0 for two saved runs."""
    gate: GateResult | None = None
    """The result of `--fail-above`; None without it."""

    @property
    def timed(self) -> list[TimeChange]:
        """Return the rows that either run timed: the forward and the backward, each before its steps, then kernels."""
        rows = [self.whole, *self.steps, self.backward, *self.backward_steps, *self.kernels]
        return [row for row in rows if row.before_s is not None or row.after_s is not None]

    @property
    def counts(self) -> list[Change]:
        """Return the changes of counts, without the steps of one run, which may have the name of a count."""
        return [change for change in self.costs if not isinstance(change.after, str)]

    @property
    def is_normalized(self) -> bool:
        """Return whether any time is known at the same speed of the host."""
        return any(row.normalized_ratio is not None for row in self.timed)

    def to_dict(self) -> dict[str, Any]:
        """Return plain dictionaries, lists and numbers."""
        return asdict(self)

    def to_json(self) -> str:
        """Return the difference as JSON, without NaN or infinity, which JSON does not have."""
        return in_json(self.to_dict())

    def slower(self, ratio: float) -> list[str]:
        """Describe the forward and the backward, each only if its interval is above this ratio."""
        return [
            f"{name} takes {change.ratio:.3f} times as long"
            for name, change in (("the forward", self.whole), ("the backward", self.backward))
            if change.interval is not None and change.interval.low > ratio
        ]
