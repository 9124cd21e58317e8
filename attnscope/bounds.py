"""The least time that a machine can need for a step, from what the machine can do at its best (Williams et al., "Roofline:
An Insightful Visual Performance Model for Multicore Architectures", 2009).

A step's kernels run one after the other, so their times add up: what matmul copies first, the matmul itself, the pass that
scales its result. Within a kernel reckoning and moving overlap, so the longer of the two counts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from attnscope.axes import count
from attnscope.steps import SizedStep


@dataclass(frozen=True)
class Bandwidth:
    """Bytes a second, read and written together, where all that is touched comes to `working_set` bytes."""

    working_set: int
    bytes_per_s: float


@dataclass(frozen=True)
class Rate:
    """What a kernel does in a second on tensors of some size: MACs or elements. `size` is the side of a matrix."""

    size: int
    per_s: float


@dataclass(frozen=True)
class Peaks:
    """What a machine can do at its best, by a dtype and a number of threads.

    Args:
        device: its name.
        threads: of the processor.
        dtype: type of the numbers.
        matmul: MACs a second of square matrices, by their side.
        batched: MACs a second of many matrices at a time, by their tokens.
        softmax: elements a second, by the length of a row.
        copy: bytes a second, by working set.
        call_s: what the smallest operation takes.
        view_s: what the smallest view takes.
        caches: bytes of each cache that one core can use, by its name, the smallest first.
        seconds: how long the measuring took.
    """

    device: str
    threads: int
    dtype: str
    matmul: tuple[Rate, ...]
    batched: tuple[Rate, ...]
    softmax: tuple[Rate, ...]
    copy: tuple[Bandwidth, ...]
    call_s: float
    view_s: float
    caches: dict[str, int]
    seconds: float

    @property
    def macs_per_s(self) -> float:
        """The most MACs a second, of any kernel."""
        return max(rate.per_s for rate in (*self.matmul, *self.batched))

    def bandwidth(self, working_set: int) -> float:
        """Bytes a second at a working set: that of the sizes around it, in proportion to their logarithms."""
        return _between([(c.working_set, c.bytes_per_s) for c in self.copy], working_set)

    def batched_macs_per_s(self, tokens: int) -> float:
        """MACs a second of a batched matmul over this many tokens; of more than were measured, the most of any kernel."""
        if tokens > self.batched[-1].size:
            return self.macs_per_s
        return _between([(rate.size, rate.per_s) for rate in self.batched], tokens)

    def softmax_per_s(self, length: int) -> float:
        """Elements a second of a softmax over rows of this length."""
        return _between([(rate.size, rate.per_s) for rate in self.softmax], length)

    def level(self, working_set: int) -> str:
        """The smallest memory that holds this many bytes: `L2`, or `DRAM`."""
        return next((name for name, size in self.caches.items() if working_set <= size), "DRAM")


@dataclass(frozen=True)
class Bound:
    """The least time of a step, what sets it, and its arithmetic intensity: FLOPs for each byte that it must move.

    `binds` is "compute", "memory L2" and the like, or "call": an operation so small that calling it is all it costs.
    `intensity` is None for a view, which moves nothing.
    """

    seconds: float
    binds: str
    intensity: float | None


def bound(step: SizedStep, peaks: Peaks) -> Bound:
    """The lower bound of one call of a step on a machine with these peaks."""
    if step.is_view:
        return Bound(peaks.view_s, "call", None)
    moved = step.bytes_read + step.bytes_written
    compute, memory = _compute_s(step, peaks), moved / peaks.bandwidth(moved)
    passes = [_pass_s(extra, peaks) for extra in _extra_passes(step)]
    intensity = (step.flops + step.other_flops) / moved if moved else None
    seconds = max(compute, memory) + sum(passes)
    if seconds < peaks.call_s:
        return Bound(peaks.call_s, "call", intensity)
    moving = sum(passes) + (memory if memory >= compute else 0.0)
    binds = "compute" if compute > moving else f"memory {peaks.level(moved)}"
    return Bound(seconds, binds, intensity)


def _compute_s(step: SizedStep, peaks: Peaks) -> float:
    if step.step.fused:
        return step.macs / peaks.macs_per_s
    seconds = 0.0
    if step.macs and not step.weights:
        tokens = step.outputs[0][-2]
        seconds += step.macs / peaks.batched_macs_per_s(tokens)
    elif step.macs:
        seconds += step.macs / max(rate.per_s for rate in peaks.matmul)
    if "softmax" in step.step.work:
        seconds += count(step.step.work["softmax"], step.sizes) / peaks.softmax_per_s(step.outputs[0][-1])
    return seconds


def _extra_passes(step: SizedStep) -> list[int]:
    """Bytes of what a step reads and writes besides its inputs and outputs: copies that it makes, and the scaling."""
    if step.step.fused:
        return []
    passes = [2 * step.itemsize * count(text, step.sizes) for text in step.step.scratch]
    if step.macs and "scale" in step.step.work:
        passes.append(2 * step.itemsize * count(step.step.work["scale"], step.sizes))
    return passes


def _pass_s(moved: int, peaks: Peaks) -> float:
    return moved / peaks.bandwidth(moved)


def _between(points: Sequence[tuple[int, float]], at: float) -> float:
    """The value at a place between measured ones, on a logarithmic scale; beyond them that of the nearest."""
    if at <= points[0][0]:
        return points[0][1]
    for (low, before), (high, after) in pairwise(points):
        if at <= high:
            share = math.log(at / low) / math.log(high / low)
            return before + share * (after - before)
    return points[-1][1]
