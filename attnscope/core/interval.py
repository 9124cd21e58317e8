"""The interval in which an uncertain value lies, and the verdict that it allows."""

import math
from dataclasses import dataclass

FASTER, SLOWER, EQUAL, CANNOT_TELL = "faster", "slower", "equal", "cannot tell"
"""The verdicts on a ratio of times."""
EQUAL_WITHIN = 0.1
"""Largest relative difference that an interval around 1 may leave open for the verdict EQUAL."""


UNSTABLE = 1.25
"""Quotient of the ends above which an interval of a ratio is called unstable: the ratio has less than one digit."""


@dataclass(frozen=True)
class Interval:
    """The lowest and the highest value that the samples allow."""

    low: float
    high: float

    def widened(self, share: float, error: float = 0.0) -> "Interval":
        """Return the interval with this share of its ends, and this error, added at both ends; never below 0."""
        return Interval(max(0.0, self.low * (1 - share) - error), self.high * (1 + share) + error)

    def over(self, other: "Interval") -> "Interval | None":
        """Return the interval of the quotient of two positive values; None if the other one may be 0."""
        return Interval(self.low / other.high, self.high / other.low) if other.low > 0 else None

    @property
    def inverse(self) -> "Interval":
        """Return the interval of 1 over a positive value."""
        return Interval(1 / self.high, 1 / self.low)

    def including(self, value: float) -> "Interval":
        """Return the smallest interval that has this one and a value in it."""
        return Interval(min(self.low, value), max(self.high, value))

    def unseen(self, ratio: float) -> float:
        """Return the relative difference from a ratio below which the interval shows none: 0.04 for 0.98 to 1.04 and 1."""
        return max(self.high / ratio, ratio / self.low) - 1 if self.low > 0 else math.inf

    @property
    def is_unstable(self) -> bool:
        """Return whether the ends of a ratio are too far apart to print a single value."""
        return self.high > UNSTABLE * self.low

    @property
    def difference(self) -> float:
        """Return the largest relative difference from 1 that the interval leaves open: 0.04 for 0.97 to 1.04."""
        return max(self.high - 1, 1 - self.low)


def verdict_on(ratio: Interval | None) -> str:
    """Return the verdict on the ratio of a new time to an old one; an unknown interval is CANNOT_TELL."""
    if ratio is None:
        return CANNOT_TELL
    if ratio.low > 1 or ratio.high < 1:
        return SLOWER if ratio.low > 1 else FASTER
    return EQUAL if ratio.difference <= EQUAL_WITHIN else CANNOT_TELL
