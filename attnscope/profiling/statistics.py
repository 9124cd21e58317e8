"""Compute statistics of samples: median, quartiles and interquartile mean. Does not import torch.

The interquartile mean is the mean of the middle half of the samples. It is as robust as the median. Unlike medians, means
over the same runs are additive: the steps of a forward add up to their sum exactly.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

Quartiles = tuple[float, float, float]
"""The first quartile, the median, and the third quartile."""


@dataclass(frozen=True)
class Samples:
    """Samples of one quantity in seconds, and their statistics."""

    samples_s: Sequence[float]

    @property
    def interquartile_mean_s(self) -> float:
        """Return the mean of the middle half of the samples, in seconds."""
        return mean_at(self.samples_s, middle_half(self.samples_s))

    @property
    def quartiles_s(self) -> Quartiles:
        """Return the first quartile, the median and the third quartile, in seconds."""
        return quartiles(self.samples_s)

    @property
    def iqr_s(self) -> float:
        """Return the interquartile range, in seconds."""
        return interquartile_range(self.samples_s)


def in_digits(samples: Sequence[float]) -> list[float]:
    """Return samples with four digits; further ones are noise, and take most of the size of a saved run."""
    return [float(f"{sample:.4g}") for sample in samples]


def middle_half(samples: Sequence[float]) -> list[int]:
    """Return the positions of the middle half of the samples, in ascending order of the samples.

    A quarter of the samples, rounded down, is dropped at each end.
    """
    ordered = sorted(range(len(samples)), key=samples.__getitem__)
    cut = len(ordered) // 4
    return ordered[cut : len(ordered) - cut]


def mean_at(samples: Sequence[float], positions: Sequence[int]) -> float:
    """Return the mean of the samples at these positions, such as the `middle_half`."""
    return statistics.fmean([samples[position] for position in positions])


def quartiles(samples: Sequence[float]) -> Quartiles:
    """Return the three quartiles, interpolated linearly. All three equal the sample if there is only one."""
    if len(samples) == 1:
        return (samples[0],) * 3
    first, median, third = statistics.quantiles(samples, n=4, method="inclusive")
    return first, median, third


def interquartile_range(samples: Sequence[float]) -> float:
    """Return the third quartile minus the first; 0 for a single sample."""
    first, _, third = quartiles(samples)
    return third - first


def median_if_any(samples: Sequence[float]) -> float | None:
    """Return the median, or None without samples."""
    return statistics.median(samples) if samples else None
