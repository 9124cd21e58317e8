"""The peaks of a machine: the best rates that it has shown, each with its date."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

from attnscope.core.shown import Shown
from attnscope.core.sizes import plural

WIDER = {"float16": ("float32",), "bfloat16": ("float32",)}
"""Dtypes that hold every value of another dtype, in which a machine may compute it faster."""


@dataclass(frozen=True)
class Bandwidth:
    """The memory bandwidth at one working set.

    Args:
        working_set: bytes that the copy reads and writes in total.
        bytes_per_s: bytes per second, reads and writes together.
        date: when it was measured, such as 2026-11-26; "" in files of version 0.1.
    """

    working_set: int
    bytes_per_s: float
    date: str = ""


@dataclass(frozen=True)
class Rate:
    """The throughput of a kernel at one size.

    Args:
        size: the size, such as the side of a matrix.
        per_s: MACs or elements per second.
        date: when it was measured, such as 2026-11-26; "" in files of version 0.1.
    """

    size: int
    per_s: float
    date: str = ""


@dataclass(frozen=True)
class Raised:
    """A peak that a step raised, since the step or its kernels alone were faster than its lower bound.

    Args:
        limit: the limit of the bound: "matmul" (MACs per second), "softmax" (elements per second), "memory" (bytes per
            second) or "call" (calls per second).
        per_s: the rate that the step showed.
        by: the name of the step, followed by "alone" if its kernels alone showed the rate.
        date: when it was measured, such as 2026-11-26.
        working_set: for "memory", the bytes that the step must move; 0 for the other limits.
    """

    limit: str
    per_s: float
    by: str
    date: str
    working_set: int = 0

    def exceeds(self, other: "Raised") -> bool:
        """Return whether this peak makes another one superfluous."""
        is_more = self.per_s >= other.per_s and self.working_set >= other.working_set
        return self.limit == other.limit and is_more


@dataclass(frozen=True, repr=False)
class Peaks(Shown):
    """The peaks of a machine, for one dtype and one number of threads.

    Args:
        device: name of the device.
        threads: number of CPU threads.
        dtype: tensor dtype.
        matmul: MACs per second of square matmuls, by their side.
        batched: MACs per second of batched matmuls, by their number of tokens.
        softmax: elements per second of a softmax, by the length of a row.
        copy: bytes per second of a copy, by working set.
        call_s: seconds of the smallest operation.
        view_s: seconds of the smallest view; None on a GPU, where views do not run.
        caches: bytes of each cache that one core can use, by name, from the smallest.
        seconds: seconds that the last measurement took.
        raised: peaks that steps raised above these measurements.
        yardstick_s: seconds of the host's yardstick during the fastest measurement; None if it was not taken.
    """

    device: str
    threads: int
    dtype: str
    matmul: tuple[Rate, ...]
    batched: tuple[Rate, ...]
    softmax: tuple[Rate, ...]
    copy: tuple[Bandwidth, ...]
    call_s: float
    view_s: float | None
    caches: dict[str, int]
    seconds: float
    raised: tuple[Raised, ...] = ()
    yardstick_s: float | None = None

    @property
    def title(self) -> str:
        """Return the headline: the device, the dtype and the number of threads."""
        return f"Peaks · {self.device} · {self.dtype} · {plural(self.threads, 'thread')}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain dictionaries, lists and numbers."""
        return asdict(self)

    @property
    def macs_per_s(self) -> float:
        """Return the highest MACs per second of any kernel."""
        return max([rate.per_s for rate in (*self.matmul, *self.batched)] + self._raised("matmul"))

    @property
    def softmax_per_s(self) -> float:
        """Return the highest elements per second of a softmax."""
        return max([rate.per_s for rate in self.softmax] + self._raised("softmax"))

    @property
    def shortest_call_s(self) -> float:
        """Return the seconds of the shortest operation."""
        return min([self.call_s] + [1 / per_s for per_s in self._raised("call")])

    def bandwidth(self, working_set: int) -> float:
        """Return the highest bytes per second at a working set, interpolated on a logarithmic scale.

        What fits in a smaller memory can move at least as fast as what does not, so it never rises with the working set.
        """
        sizes, rates = zip(*[(copy.working_set, copy.bytes_per_s) for copy in self.copy], strict=True)
        falling = [*accumulate(reversed(rates), max)][::-1]
        shown = [one.per_s for one in self.raised if one.limit == "memory" and one.working_set >= working_set]
        return max([_between(list(zip(sizes, falling, strict=True)), working_set), *shown])

    def level(self, working_set: int) -> str:
        """Return the smallest memory that holds a working set: `L2`, or `DRAM`."""
        return next((name for name, size in self.caches.items() if working_set <= size), "DRAM")

    def raise_to(self, shown: Raised) -> "Peaks":
        """Return the peaks with one that a step has raised, in place of those that it exceeds."""
        if any(one.exceeds(shown) for one in self.raised):
            return self
        return replace(self, raised=(*(one for one in self.raised if not shown.exceeds(one)), shown))

    def _raised(self, limit: str) -> list[float]:
        return [one.per_s for one in self.raised if one.limit == limit]


def best_of(before: Peaks, now: Peaks) -> Peaks:
    """Return the best that a machine has shown in two measurements of the same sizes, each rate with its own date."""
    best = replace(
        now,
        matmul=_best_rates(before.matmul, now.matmul),
        batched=_best_rates(before.batched, now.batched),
        softmax=_best_rates(before.softmax, now.softmax),
        copy=tuple(max(pair, key=lambda one: one.bytes_per_s) for pair in zip(before.copy, now.copy, strict=True)),
        call_s=min(before.call_s, now.call_s),
        view_s=None if before.view_s is None or now.view_s is None else min(before.view_s, now.view_s),
        raised=before.raised,
        yardstick_s=min([s for s in (before.yardstick_s, now.yardstick_s) if s is not None], default=None),
    )
    for shown in now.raised:
        best = best.raise_to(shown)
    return best


def _best_rates(before: Sequence[Rate], now: Sequence[Rate]) -> tuple[Rate, ...]:
    return tuple(max(pair, key=lambda rate: rate.per_s) for pair in zip(before, now, strict=True))


def _between(points: Sequence[tuple[int, float]], at: float) -> float:
    """Interpolate between measured points on a logarithmic scale; outside their range, return the nearest value."""
    if at <= points[0][0]:
        return points[0][1]
    for (low, before), (high, after) in pairwise(points):
        if at <= high:
            fraction = math.log(at / low) / math.log(high / low)
            return before + fraction * (after - before)
    return points[-1][1]
