"""Compute the interval in which a time lies, from the samples of one process. Does not import torch.

Samples of one process depend on each other: the machine drifts, and a disturbance lasts for several runs. An interval that
takes them as independent is too narrow. So the samples are split into consecutive blocks, long enough to be nearly
independent. The smallest and the largest median of k blocks enclose the median with a probability of 1 - 2^(1-k), for any
distribution. This is the order-statistic interval, applied to block medians. Source: H. A. David and H. N. Nagaraja, Order
Statistics, 3rd edition, section 7.1.

Processes are independent. The ratio of the times of two groups of processes has the interval of Moses. It assumes that both
groups have the same distribution but for a factor. Source: M. Hollander, D. A. Wolfe and E. Chicken, Nonparametric
Statistical Methods, 3rd edition, section 4.3.
"""

import math
import statistics
from collections.abc import Sequence
from itertools import accumulate, pairwise

from attnscope.core.interval import Interval
from attnscope.profiling.statistics import quartiles

BLOCKS = 6
"""Consecutive blocks of samples: the probability that both ends hold is 1 - 2^-5 = 96.9%."""
PLACES_MAY_DIFFER = 0.01
"""Relative difference between identical modules in one process: each has its weights at other addresses."""
MAY_BE_OUTSIDE = 0.05
"""Probability that the ratio of two groups of processes is outside of its interval."""
FEWEST_SAMPLES = 5
"""The smallest number of samples of an interval. With five, each end holds with a probability of 96.9%."""


def interval_of(samples: Sequence[float]) -> Interval | None:
    """Return the interval of the median of the distribution of samples, which are in the order of measuring.

    The interval includes the middle half of the samples. A spread within a process is evidence of a disturbance, which
    may affect another process more or less.

    Args:
        samples: positive values, such as seconds.

    Returns:
        The interval; None for fewer than FEWEST_SAMPLES.
    """
    if len(samples) < FEWEST_SAMPLES:
        return None
    blocks = consecutive_blocks(samples, min(BLOCKS, len(samples)))
    first, _, third = quartiles(samples)
    # the mean of the middle two of an even block would be biased if the distribution is skewed
    return Interval(min(first, *map(statistics.median_low, blocks)), max(third, *map(statistics.median_high, blocks)))


def paired_interval(ratios: Sequence[float]) -> Interval | None:
    """Return the interval of the median of ratios, each of two runs in the same round; None for too few rounds.

    A drift of the machine affects both runs of a round alike, so that the middle half is not included.
    """
    if len(ratios) < FEWEST_SAMPLES:
        return None
    blocks = consecutive_blocks(ratios, min(BLOCKS, len(ratios)))
    return Interval(min(map(statistics.median_low, blocks)), max(map(statistics.median_high, blocks)))


def interval_of_run(samples: Sequence[float], process_runs: Sequence[int] = ()) -> Interval | None:
    """Return the interval of the median: over processes if there are enough of them, otherwise over blocks of samples.

    Args:
        samples: positive values in the order of measuring, such as seconds.
        process_runs: the number of samples of each process; empty for a single one.

    Returns:
        The interval; None for fewer than FEWEST_SAMPLES samples.
    """
    return interval_between_processes(samples, process_runs) or paired_interval(samples)


def interval_between_processes(samples: Sequence[float], process_runs: Sequence[int]) -> Interval | None:
    """Return the interval of the median over processes: the smallest and the largest median of a process.

    Args:
        samples: positive values, those of a process together.
        process_runs: the number of samples of each process.

    Returns:
        The interval; None for fewer than FEWEST_SAMPLES processes.
    """
    if len(process_runs) < FEWEST_SAMPLES:
        return None
    medians = medians_of_processes(samples, process_runs)
    return Interval(min(medians), max(medians))


def ratio_between_processes(before: Sequence[float], after: Sequence[float]) -> Interval | None:
    """Return the interval of the time after over the time before, from the medians of the processes of both runs.

    Each process after has a ratio to each one before. The ends of the interval are the k-th smallest and the k-th largest
    of these ratios. Their number below the true one is the count of Mann and Whitney, whose distribution gives k.

    Args:
        before, after: a positive value of each process.

    Returns:
        The interval; None for fewer than FEWEST_SAMPLES processes.
    """
    if min(len(before), len(after)) < FEWEST_SAMPLES:
        return None
    ratios = sorted(one / other for one in after for other in before)
    left_out = _left_out(len(before), len(after))
    return Interval(ratios[left_out], ratios[-1 - left_out])


def _left_out(before: int, after: int) -> int:
    """Return how many ratios of two groups of this size are outside of their interval at each end."""
    most = MAY_BE_OUTSIDE / 2 * math.comb(before + after, before)
    orders = accumulate(_orders(before, after))
    return max(0, sum(below <= most for below in orders) - 1)


def _orders(before: int, after: int) -> list[int]:
    """Return in how many orders of two groups each number of pairs is inverted: the coefficients of a Gaussian binomial."""
    counts = [1] + [0] * (before * after)
    for size in range(1, before + 1):
        for index in range(len(counts) - 1, after + size - 1, -1):
            counts[index] -= counts[index - after - size]
        for index in range(size, len(counts)):
            counts[index] += counts[index - size]
    return counts


def medians_of_processes(samples: Sequence[float], process_runs: Sequence[int]) -> list[float]:
    """Return the median of each process.

    Args:
        samples: those of all processes, one process after the other.
        process_runs: the number of samples of each process.
    """
    edges = pairwise(accumulate(process_runs, initial=0))
    return [statistics.median(samples[low:high]) for low, high in edges]


def ratio_of_rounds(first_s: Sequence[float], other_s: Sequence[float]) -> Interval | None:
    """Return the interval of the time of one module over that of another; None for too few rounds.

    Args:
        first_s, other_s: seconds of both, interleaved in one process. Samples at the same position are of the same round.
    """
    found = paired_interval([first / other for first, other in zip(first_s, other_s, strict=True)])
    return None if found is None else found.widened(PLACES_MAY_DIFFER)


def consecutive_blocks(samples: Sequence[float], count: int) -> list[Sequence[float]]:
    """Split samples into this number of consecutive blocks, whose lengths differ by at most one."""
    edges = [len(samples) * index // count for index in range(count + 1)]
    return [samples[low:high] for low, high in pairwise(edges)]
