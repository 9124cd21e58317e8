"""The interval in which an uncertain value lies, and the verdict that it allows."""

from dataclasses import dataclass

FASTER, SLOWER, EQUAL, CANNOT_TELL = "faster", "slower", "equal", "cannot tell"
"""The verdicts on a ratio of times."""
EQUAL_WITHIN = 0.1
"""Largest relative difference that an interval around 1 may leave open for the verdict EQUAL."""


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
