"""Formatted numbers (`86.7 M`, `1.37 ms`, `13.8×`) and the device of a measurement."""

from collections.abc import Mapping
from functools import lru_cache
from math import ceil, floor, log10
from typing import Any

import humanize

from attnscope.core.interval import Interval
from attnscope.core.sizes import plural

NONE = "–"
UNKNOWN = "?"
CACHED = 4096
"""Formatted numbers that are kept: a table formats each value for its widths, then again for its cells."""


@lru_cache(maxsize=CACHED, typed=True)  # a count and a float of the same value differ
def metric(value: float | None, unit: str = "") -> str:
    """Return three digits and a prefix: `86.7 M`, `1.37 ms`; a dash for 0, and a question mark for an unknown value."""
    if value is None:
        return UNKNOWN
    if value == 0:
        return NONE
    if abs(value) >= 1e30:  # beyond all prefixes
        return f"{value:.2e} {unit}".strip()
    if isinstance(value, int) and abs(value) < 1000:  # a count has no decimals
        return f"{value} {unit}".strip()
    return humanize.metric(value, unit)


def rounded(value: float, unit: str = "") -> str:
    """Return one digit and a prefix, for an axis: `30 G`, `10 ms`."""
    return humanize.metric(float(f"{value:.1g}"), unit, precision=1)


def billions(count: int) -> str:
    """Return billions with two decimals, as papers report the MACs of networks: `16.87 G`."""
    return f"{count / 1e9:.2f} G"


def seconds(value: float | None) -> str:
    """Return seconds with three digits and a prefix: `1.37 ms`."""
    return metric(value, "s")


@lru_cache(maxsize=CACHED)
def binary(size: int | None) -> str:
    """Return bytes with a binary prefix: `1.7 MiB`."""
    if size is None:
        return UNKNOWN
    return humanize.naturalsize(size, binary=True) if size else NONE


def percent(share: float | None) -> str:
    """Return a share as a percentage: `29.3%`."""
    return UNKNOWN if share is None else f"{share:.1%}" if share else NONE


def rough_percent(share: float) -> str:
    """Return `29%`; `<1%` and `>99%` if rounding would give 0% or 100% of something that is not."""
    if 0 < share < 0.005:
        return "<1%"
    return ">99%" if 0.995 <= share < 1 else f"{share:.0%}"


def times(ratio: float | None) -> str:
    """Return a ratio with three digits: `13.8×`."""
    if ratio is None:
        return UNKNOWN
    return (
        f"{ratio:,.0f}×"
        if ratio >= 999.5
        else f"{ratio:.3g}×"
        if ratio >= 100
        else f"{ratio:.{1 if ratio >= 10 else 2}f}×"
        if ratio >= 0.1
        else f"{ratio:.2g}×"
    )


def ratio_range(ratio: Interval) -> str:
    """Return the ends of an interval of a ratio, rounded outwards to the digits in which they differ: `13–16×`."""
    low, high = digits_apart(ratio)
    return f"{low}×" if low == high else f"{low}–{high}×"


MOST_DECIMALS = 6
"""Decimals of an end of a ratio that is nearly 1."""
UNSTABLE = ", unstable"
REMEDY = ": use a longer --budget"
"""The fix for an unstable ratio."""


def measured_ratio(ratio: Interval | None, value: float) -> str:
    """Return a ratio of times as its interval, `0.92–0.97×`, or `about 0.9×` if there are too few runs for one.

    Args:
        ratio: the interval; None if it is unknown.
        value: the ratio of the printed times.
    """
    if ratio is None:
        return f"about {float(f'{value:.1g}'):g}×, too few runs"
    return ratio_range(ratio) + (UNSTABLE if ratio.is_unstable else "")


def speed(ratio: Interval | None, value: float, with_fix: bool = True) -> str:
    """Return by which factor something is faster, `13–16× faster`, or that this is unclear.

    Args:
        ratio: the interval of the other time over its own time; None if it is unknown.
        value: the ratio of the printed times.
        with_fix: whether to say what helps if the ratio is unstable.
    """
    fix = REMEDY if with_fix and ratio is not None and ratio.is_unstable else ""
    if ratio is not None and ratio.low <= 1 <= ratio.high:
        return f"unclear which is faster: {measured_ratio(ratio, value)}{fix}"
    is_faster = value >= 1 if ratio is None else ratio.low > 1
    if not is_faster:
        ratio, value = ratio and ratio.inverse, 1 / value
    factor, _, remark = measured_ratio(ratio, value).partition(", ")
    remark += fix
    return f"{factor} {'faster' if is_faster else 'slower'}{remark and f', {remark}'}"


def digits_apart(ratio: Interval) -> tuple[str, str]:
    """Return both ends with one digit of the width of the interval, rounded outwards; below 10 with one or two decimals.

    Rounded ends include 1 only if the interval does: if two decimals do not show that it does not, the end near 1 has more.
    """
    width = max(ratio.high - ratio.low, 0.01)
    decimals = min(2, max(int(ratio.high < 10), -floor(log10(width))))
    low, high = _outwards(ratio, decimals)
    if ratio.low <= 1 <= ratio.high or not float(low) <= 1 <= float(high):
        return low, high
    low, high = _outwards(ratio, 2)
    finer = (_outwards(ratio, decimals) for decimals in range(2, MOST_DECIMALS + 1))
    if ratio.low > 1:
        return next((end for end, _ in finer if float(end) > 1), low), high
    return low, next((end for _, end in finer if float(end) < 1), high)


def _outwards(ratio: Interval, decimals: int) -> tuple[str, str]:
    """Return both ends with this number of decimals, the low one rounded down and the high one up."""
    scale = 10**decimals
    # an end that is exact in these digits is not moved by its rounding error
    low, high = floor(ratio.low * scale + 1e-9) / scale, ceil(ratio.high * scale - 1e-9) / scale
    return f"{low:.{decimals}f}", f"{high:.{decimals}f}"


def share_range(share: Interval | None) -> str:
    """Return the ends of an interval of a share in whole percents, rounded outwards: `12–15%`."""
    if share is None:
        return UNKNOWN
    low, high = floor(100 * share.low + 1e-9), ceil(100 * share.high - 1e-9)
    return f"{low}%" if low == high else f"{low}–{high}%"


def upper_percent(share: float) -> str:
    """Return a share that is not exceeded, rounded up: `4%`."""
    return f"{ceil(100 * share - 1e-9)}%"


def threads(environment: Mapping[str, Any]) -> str:
    """Return the threads and the available CPUs: `1 thread of 16`."""
    return f"{plural(environment['threads'], 'thread')} of {environment['cores']}"


def device(environment: Mapping[str, Any]) -> str:
    """Return the device and its model: `cpu AVX512`, `cuda NVIDIA H100`."""
    kind = environment["device"]
    return f"{kind} {environment['cpu_capability' if kind == 'cpu' else 'device_name']}"


def bar(share: float | None, width: int = 8) -> str:
    """Draw a bar in eighths of a column; a share of 1 has `width` columns."""
    eighths = round((share or 0) * width * 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8]
