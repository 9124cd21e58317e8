"""The least time that a machine can need for a step, from what the machine can do at its best (Williams et al., "Roofline:
An Insightful Visual Performance Model for Multicore Architectures", 2009).

A step's kernels run one after the other, so their times add up: what matmul copies first, the matmul itself, the pass that
scales its result. Within a kernel reckoning and moving overlap, so the longer of the two counts. No machine reaches its
peak on the small matrices of a head, so kernels are held against themselves: the same kernel, alone, on the same sizes,
with its operands at hand.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from attnscope.ops.tape import Run
from attnscope.plan.plan import SizedStep


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
        view_s: what the smallest view takes; None on a GPU, which hears of none.
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
    view_s: float | None
    caches: dict[str, int]
    seconds: float

    @property
    def macs_per_s(self) -> float:
        """The most MACs a second, of any kernel."""
        return max(rate.per_s for rate in (*self.matmul, *self.batched))

    def bandwidth(self, working_set: int) -> float:
        """Bytes a second at a working set: that of the sizes around it, in proportion to their logarithms."""
        return _between([(c.working_set, c.bytes_per_s) for c in self.copy], working_set)

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


@dataclass(frozen=True)
class Kernel:
    """One kernel on sizes of its own.

    `kind` is "linear", with rows and channels in and out for its sizes; "batched", how many matrices of which rows, inner
    side and columns; "softmax", rows and their length; "scale", how many elements are multiplied in place; "transpose", the
    copy of one part of a tensor of batches, tokens, parts, heads and channels, with tokens and channels exchanged.
    """

    kind: str
    sizes: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Numbers in its operands and in what it makes."""
        match self.kind, self.sizes:
            case "linear", (rows, i, o):
                return rows * i + i * o + rows * o
            case "batched", (number, n, inner, m):
                return number * (n * inner + inner * m + n * m)
            case "softmax", sizes:
                return 2 * math.prod(sizes)
            case "scale", (elements,):
                return elements
            case "transpose", (batches, tokens, parts, heads, channels):
                return (parts + 1) * batches * tokens * heads * channels
            case _:
                raise ValueError(f"no kernel is known as {self}")


def kernels(steps: Iterable[SizedStep]) -> list[Kernel]:
    """The kernels of these steps that are held against themselves, each once."""
    return list(dict.fromkeys(kernel for step in steps for kernel in _kernels(step)))


def seen_seconds(steps: Iterable[SizedStep], seconds: Iterable[float]) -> dict[Kernel, float]:
    """Those kernels, each with the least time in which a step that has it was run: alone it cannot need more.

    Args:
        steps: the steps.
        seconds: the shortest run of each.
    """
    seen: dict[Kernel, float] = {}
    for step, shortest in zip(steps, seconds, strict=True):
        for kernel in _kernels(step):
            seen[kernel] = min(shortest, seen.get(kernel, math.inf))
    return seen


def bound(step: SizedStep, peaks: Peaks, best: Mapping[Kernel, float]) -> Bound | None:
    """The lower bound of one call of a step; None for a view on a GPU, which does nothing there.

    Args:
        step: the step.
        peaks: what the machine can do at its best.
        best: seconds that each of the step's `kernels` takes at its best.
    """
    if step.is_view:
        return None if peaks.view_s is None else Bound(peaks.view_s, "call", None)
    moved = moved_bytes(step)
    memory = moved / peaks.bandwidth(moved)
    own = {kernel: best[kernel] for kernel in _kernels(step)}
    copying = sum([seconds for kernel, seconds in own.items() if kernel.kind in ("scale", "transpose")])
    compute = sum(own.values()) - copying + step.forward.fused_macs / peaks.macs_per_s
    copied = _copied_bytes(step)
    passes = copying + copied / peaks.bandwidth(copied)
    intensity = (step.flops + step.other_flops) / moved if moved else None
    seconds = max(compute, memory) + passes
    if seconds < peaks.call_s:
        return Bound(peaks.call_s, "call", intensity)
    moving = passes + (memory if memory >= compute else 0.0)
    binds = "compute" if compute > moving else f"memory {peaks.level(moved)}"
    return Bound(seconds, binds, intensity)


def moved_bytes(step: SizedStep) -> int:
    """Return the bytes that a step cannot do without: what it takes, its parameters and what it makes, each once."""
    taken = sum([tensor.elements(step.sizes) for tensor in step.step.letters.inputs])
    return step.itemsize * (taken + step.params) + step.output_bytes


def _kernels(step: SizedStep) -> list[Kernel]:
    found = [kernel for run in step.forward.runs if (kernel := _kernel(run)) is not None]
    return [] if step.is_fused else found


def _kernel(run: Run) -> Kernel | None:
    """Return the kernel of one operator, None if it is not held against itself."""
    match run.name, run.inputs:
        case "addmm", (_, (rows, i), (_, o)):
            return Kernel("linear", (rows, i, o))
        case "mm", ((rows, i), (_, o)):
            return Kernel("linear", (rows, i, o))
        case "convolution", (_, weight, *_):
            return Kernel("linear", (math.prod(run.output) // weight[0], math.prod(weight[1:]), weight[0]))
        case "bmm", ((number, n, inner), (_, _, m)):
            return Kernel("batched", (number, n, inner, m))
        case "_softmax", (shape, *_):
            return Kernel("softmax", (math.prod(shape[:-1]), shape[-1]))
        case "mul", (shape,):
            return Kernel("scale", (math.prod(shape),))
        case "clone", (shape,) if _exchanges(run):
            batches, heads, channels, tokens = shape
            return Kernel("transpose", (batches, tokens, run.strides[-1] // (heads * channels), heads, channels))
        case _:
            return None


def _exchanges(run: Run) -> bool:
    """Return whether a copy exchanges tokens and channels: of (b, h, d, m) whose channels lie side by side."""
    return len(run.output) == 4 and run.strides[-1] != 1 and run.strides[-2] == 1


def _copied_bytes(step: SizedStep) -> int:
    """Return the bytes that copies on the way read and write, but for those that are a kernel of their own, and those that
    are what the step is for.
    """
    runs = step.forward.runs
    hidden = [run for run in runs if run.name in ("clone", "index", "cat", "repeat") and _kernel(run) is None]
    if len(hidden) == len(runs):
        hidden = []
    extra = sum([run.bytes_read + run.bytes_written for run in hidden])
    return extra + sum([run.bytes_written * 2 for run in runs if run.name == "roll"]) * (step.forward.scratch > 0)


def _between(points: Sequence[tuple[int, float]], at: float) -> float:
    """The value at a place between measured ones, on a logarithmic scale; beyond them that of the nearest."""
    if at <= points[0][0]:
        return points[0][1]
    for (low, before), (high, after) in pairwise(points):
        if at <= high:
            share = math.log(at / low) / math.log(high / low)
            return before + share * (after - before)
    return points[-1][1]
