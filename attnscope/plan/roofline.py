"""The roofline lower bound of the time of a step, from the measured peaks of the machine.

The model is that of Williams et al., "Roofline: An Insightful Visual Performance Model for Multicore Architectures",
2009.

The kernels of a step run one after another, so their times add up: the copies before a matmul, the matmul itself, and
the pass that scales its result. Within a kernel, computation and memory traffic overlap, so the longer of the two
counts. No machine reaches its peak on the small matrices of an attention head. Each kernel is therefore compared with
itself: the same kernel alone, on the same sizes, with its operands ready.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from attnscope.core.shown import Shown
from attnscope.core.sizes import plural
from attnscope.ops.tape import Run
from attnscope.plan.plan import SizedStep


@dataclass(frozen=True)
class Bandwidth:
    """The memory bandwidth at one working set.

    Args:
        working_set: bytes that the copy reads and writes in total.
        bytes_per_s: bytes per second, reads and writes together.
    """

    working_set: int
    bytes_per_s: float


@dataclass(frozen=True)
class Rate:
    """The throughput of a kernel at one size.

    Args:
        size: the size, such as the side of a matrix.
        per_s: MACs or elements per second.
    """

    size: int
    per_s: float


@dataclass(frozen=True, repr=False)
class Peaks(Shown):
    """The measured peaks of a machine, for one dtype and one number of threads.

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
        seconds: seconds that the measurement took.
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
    def title(self) -> str:
        """Return the headline: the device, the dtype and the number of threads."""
        return f"Peaks · {self.device} · {self.dtype} · {plural(self.threads, 'thread')}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain dictionaries, lists and numbers."""
        return asdict(self)

    @property
    def macs_per_s(self) -> float:
        """Return the highest MACs per second of any kernel."""
        return max(rate.per_s for rate in (*self.matmul, *self.batched))

    def bandwidth(self, working_set: int) -> float:
        """Return the bytes per second at a working set, interpolated on a logarithmic scale."""
        return _between([(c.working_set, c.bytes_per_s) for c in self.copy], working_set)

    def level(self, working_set: int) -> str:
        """Return the smallest memory that holds a working set: `L2`, or `DRAM`."""
        return next((name for name, size in self.caches.items() if working_set <= size), "DRAM")


@dataclass(frozen=True)
class Bound:
    """The roofline lower bound of a step.

    Args:
        seconds: the lower bound of its time.
        binds: the limit that sets it: "compute", a memory such as "memory L2", or "call" if the call overhead
            dominates.
        intensity: arithmetic intensity, FLOPs for each byte that must be moved; None for a view, which moves nothing.
    """

    seconds: float
    binds: str
    intensity: float | None


@dataclass(frozen=True)
class Kernel:
    """One kernel at given sizes.

    Args:
        kind: "linear", "batched", "softmax", "scale" (multiply in place) or "transpose" (copy one part of a tensor,
            with tokens and channels exchanged).
        sizes: the sizes that the kind requires, in this order:

            * "linear": rows, input channels, output channels;
            * "batched": number of matrices, rows, inner side, columns;
            * "softmax": rows, length of a row;
            * "scale": elements;
            * "transpose": batch size, tokens, parts, heads, channels.
    """

    kind: str
    sizes: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Return the number of elements of its operands and of its result."""
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
                raise ValueError(f"unknown kernel: {self}")


def kernels(steps: Iterable[SizedStep]) -> list[Kernel]:
    """Return the distinct kernels of these steps that are measured alone."""
    return list(dict.fromkeys(kernel for step in steps for kernel in _kernels(step)))


def seen_seconds(steps: Iterable[SizedStep], seconds: Iterable[float]) -> dict[Kernel, float]:
    """Return, for each of these kernels, the shortest time of a step that contains it, an upper bound of its own time.

    Args:
        steps: the steps.
        seconds: the shortest run of each step.
    """
    seen: dict[Kernel, float] = {}
    for step, shortest in zip(steps, seconds, strict=True):
        for kernel in _kernels(step):
            seen[kernel] = min(shortest, seen.get(kernel, math.inf))
    return seen


def bound(step: SizedStep, peaks: Peaks, best: Mapping[Kernel, float]) -> Bound | None:
    """Return the roofline lower bound of one call of a step; None for a view on a GPU, where views do not run.

    Args:
        step: the step.
        peaks: the measured peaks of the machine.
        best: the shortest time, in seconds, of each of the step's `kernels`.
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
    """Return the bytes that a step must move: its inputs, its parameters and its outputs, each once."""
    taken = sum([tensor.elements(step.sizes) for tensor in step.step.letters.inputs])
    return step.itemsize * (taken + step.params) + step.output_bytes


def _kernels(step: SizedStep) -> list[Kernel]:
    found = [kernel for run in step.forward.runs if (kernel := _kernel(run)) is not None]
    return [] if step.is_fused else found


def _kernel(run: Run) -> Kernel | None:
    """Return the kernel of one operator, or None if it is not measured alone."""
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
    """Return whether a copy exchanges tokens and channels: its input is (b, h, d, m) with a channel stride of 1."""
    return len(run.output) == 4 and run.strides[-1] != 1 and run.strides[-2] == 1


def _copied_bytes(step: SizedStep) -> int:
    """Return the bytes that hidden copies read and write.

    Copies that are measured as kernels do not count, nor do the copies of a step that only copies.
    """
    runs = step.forward.runs
    hidden = [run for run in runs if run.name in ("clone", "index", "cat", "repeat") and _kernel(run) is None]
    if len(hidden) == len(runs):
        hidden = []
    extra = sum([run.bytes_read + run.bytes_written for run in hidden])
    return extra + sum([run.bytes_written * 2 for run in runs if run.name == "roll"]) * (step.forward.scratch > 0)


def _between(points: Sequence[tuple[int, float]], at: float) -> float:
    """Interpolate between measured points on a logarithmic scale; outside their range, return the nearest value."""
    if at <= points[0][0]:
        return points[0][1]
    for (low, before), (high, after) in pairwise(points):
        if at <= high:
            fraction = math.log(at / low) / math.log(high / low)
            return before + fraction * (after - before)
    return points[-1][1]
