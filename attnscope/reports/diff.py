"""The Diff of two saved runs: what changed from one to the other, as plain data."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from attnscope.reports.shown import Shown

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

    `real` is True if two conditions hold. First, the interquartile ranges of the samples are further apart than those of
    the same run in two processes. Second, the times differ by more than the error of a step's time. `within_error` is
    True if only the first condition holds. It is then unknown whether the difference is real.
    """

    of: str
    name: str
    before_s: float | None
    after_s: float | None
    real: bool
    times: int | None
    within_error: bool = False

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

    @property
    def timed(self) -> list[TimeChange]:
        """Return the rows that either run timed: the forward and the backward, each before its steps, then kernels."""
        rows = [self.whole, *self.steps, self.backward, *self.backward_steps, *self.kernels]
        return [row for row in rows if row.before_s is not None or row.after_s is not None]

    def to_dict(self) -> dict[str, Any]:
        """Return plain dictionaries, lists and numbers."""
        return asdict(self)

    def to_json(self) -> str:
        """Return the difference as JSON, without NaN or infinity, which JSON does not have."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False, indent=2)

    def slower(self, ratio: float) -> list[str]:
        """Describe the forward and the backward, each only if it is really slower by more than this ratio."""
        return [
            f"{name} takes {change.ratio:.3f} times as long"
            for name, change in (("the forward", self.whole), ("the backward", self.backward))
            if change.real and change.ratio is not None and change.ratio > ratio
        ]
