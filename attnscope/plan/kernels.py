"""The kernels of a step that are measured alone, at their own sizes."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from attnscope.ops.tape import Run
from attnscope.plan.plan import SizedStep


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


@dataclass(frozen=True)
class Alone:
    """The best measured time of a kernel that runs alone on operands that are ready, or of the kernels of a step.

    It is a measurement of the kernel that torch chose, and no bound: another kernel may be faster.

    Args:
        warm_s: seconds if its operands are in cache, where the call before left them.
        cold_s: seconds if other memory has passed through the caches; None if it was not measured.
    """

    warm_s: float
    cold_s: float | None = None


def kernels(steps: Iterable[SizedStep]) -> list[Kernel]:
    """Return the distinct kernels of these steps that are measured alone."""
    return list(dict.fromkeys(kernel for step in steps for kernel in kernels_of(step)))


def seen_seconds(steps: Iterable[SizedStep], seconds: Iterable[float]) -> dict[Kernel, float]:
    """Return, for each of these kernels, the shortest time of a step that contains it, an upper bound of its own time.

    Args:
        steps: the steps.
        seconds: the shortest run of each step.
    """
    seen: dict[Kernel, float] = {}
    for step, shortest in zip(steps, seconds, strict=True):
        for kernel in kernels_of(step):
            seen[kernel] = min(shortest, seen.get(kernel, math.inf))
    return seen


def alone(step: SizedStep, best: Mapping[Kernel, Alone]) -> Alone | None:
    """Return the best time of the kernels of a step, each alone; None for a step without such kernels.

    Hidden copies that are not measured as kernels do not count.

    Args:
        step: the step.
        best: the best times of its `kernels`.
    """
    times = [best[kernel] for kernel in kernels_of(step)]
    if not times:
        return None
    cold = [time.cold_s for time in times if time.cold_s is not None]
    return Alone(sum([time.warm_s for time in times]), sum(cold) if len(cold) == len(times) else None)


def kernels_of(step: SizedStep) -> list[Kernel]:
    """Return the kernels of a step in the order in which they run; a fused step has none."""
    found = [kernel for run in step.forward.runs if (kernel := kernel_of(run)) is not None]
    return [] if step.is_fused else found


def kernel_of(run: Run) -> Kernel | None:
    """Return the kernel of one operator, or None if it is not measured alone."""
    match run.name, run.inputs:
        case "addmm", (_, (rows, i), (_, o)):
            return Kernel("linear", (rows, i, o))
        case "mm", ((rows, i), (_, o)):
            return Kernel("linear", (rows, i, o))
        case "convolution", (_, weight, *_):
            return Kernel("linear", (math.prod(run.output) // weight[0], math.prod(weight[1:]), weight[0]))
        case "bmm" | "baddbmm", ((number, n, inner), (_, _, m)):
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
