"""The Diff: what changed from one saved run to another, as plain data."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from attnscope.reports.shown import Shown

WHOLE = "whole"
"""The name of what the steps add up to."""


@dataclass(frozen=True)
class Change:
    """A value that is not the same in both; None where one has none, or does not know it."""

    name: str
    before: Any
    after: Any


@dataclass(frozen=True)
class TimeChange:
    """A time in both runs, in seconds; None where one of them has none.

    `of` says what is timed: "forward", "backward" or "kernel". A row of `times` identical steps is what all come to
    together; None where the runs differ in how many. `real` is whether the middle halves of the samples lie apart by more
    than the same run does from process to process, and by more than a step's time may be off; `within_error` is whether
    they lie apart, but by no more than the latter, so that it cannot be told.
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
        """Whether it is what steps add up to."""
        return self.name == WHOLE

    @property
    def ratio(self) -> float | None:
        """After over before."""
        return self.after_s / self.before_s if self.before_s and self.after_s is not None else None


@dataclass(frozen=True)
class Diff(Shown):
    """What changed from one run to another; steps and kernels are those that either has timed, in their order."""

    environment: list[Change]
    spec: list[Change]
    """And of what else was asked for."""
    costs: list[Change]
    steps: list[TimeChange]
    whole: TimeChange
    backward_steps: list[TimeChange]
    backward: TimeChange
    """The whole of it."""
    kernels: list[TimeChange]
    doubts: list[str]
    """Warnings of either run, with its number in front."""

    @property
    def timed(self) -> list[TimeChange]:
        """All that either run has timed: forward and backward, each before its steps, and kernels."""
        rows = [self.whole, *self.steps, self.backward, *self.backward_steps, *self.kernels]
        return [row for row in rows if row.before_s is not None or row.after_s is not None]

    def to_dict(self) -> dict[str, Any]:
        """Return plain dictionaries, lists and numbers."""
        return asdict(self)

    def to_json(self) -> str:
        """Return the difference as JSON, without NaN or infinity, which JSON does not have."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False, indent=2)

    def slower(self, ratio: float) -> list[str]:
        """Of forward and backward what really takes more than `ratio` times as long, in words."""
        return [
            f"{name} takes {change.ratio:.3f} times as long"
            for name, change in (("the whole", self.whole), ("the backward", self.backward))
            if change.real and change.ratio is not None and change.ratio > ratio
        ]
