"""Measure kernels alone, on operands that are ready: the best time with warm caches, and with cold ones."""

import math
import time
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from attnscope.plan.kernels import Alone, Kernel
from attnscope.profiling.caches import caches
from attnscope.profiling.clocks import CLOCKS, Clock, CudaClock, ThreadClock, run
from attnscope.profiling.devices import seeded
from attnscope.profiling.timing import PATIENCE, measuring

KERNEL_S = 0.008
"""Seconds for which each kernel is repeated; the fastest repetition counts."""
FEWEST_RUNS = 3
"""Repetitions of a kernel that takes longer than KERNEL_S."""
FEW = 4096
"""Number of random values that are drawn, and then repeated to fill an operand."""
LEAST_EVICTED = 64 * 2**20
"""Bytes that pass through the caches at least, since a cache may be larger than the system reports."""


def best_times(
    kernels: Mapping[Kernel, float], device: torch.device, dtype: torch.dtype, threads: int, cold: bool = False
) -> dict[Kernel, Alone]:
    """Return the best time of each kernel in seconds, when it runs alone on operands that are ready.

    Args:
        kernels: seconds of each kernel within a step. A kernel that takes longer alone was disturbed and is measured again.
        device: the device.
        dtype: the dtype of the operands.
        threads: number of CPU threads, to which torch is already set.
        cold: measure each kernel also after other memory has passed through the caches.
    """
    clock = clock_of(device, threads)
    evict = eviction(device) if cold else None

    def alone(kernel: Kernel, in_step_s: float) -> Alone:
        call = call_of(kernel, device, dtype)  # a local, so that its operands are freed before the next kernel
        call()  # the first call allocates memory and loads libraries
        warm_s = best_s(clock, call, KERNEL_S, FEWEST_RUNS)
        for _ in range(PATIENCE):
            if warm_s > in_step_s:
                warm_s = min(warm_s, best_s(clock, call, KERNEL_S, FEWEST_RUNS))
        return Alone(warm_s, best_s(clock, call, KERNEL_S, FEWEST_RUNS, evict) if evict else None)

    with measuring(), seeded(device, 0):
        return {kernel: alone(kernel, in_step_s) for kernel, in_step_s in kernels.items()}


def eviction(device: torch.device) -> Callable[[], object]:
    """Return a function that passes other memory through the caches of the device, twice as much as the largest holds."""
    size = max([2 * cache for cache in caches(device).values()] + [LEAST_EVICTED])
    return partial(torch.ones(size // 4, device=device, dtype=torch.float32).add_, 1.0)


def clock_of(device: torch.device, threads: int) -> Clock:
    """Return the clock for kernels alone.

    For one CPU thread it is the CPU time of the thread, which other processes do not affect. For a GPU it does not flush
    the L2 cache, so that operands stay cached.
    """
    if device.type == "cuda":
        return CudaClock(flush=False)
    return ThreadClock() if device.type == "cpu" and threads == 1 else CLOCKS[device.type]()


def best_s(
    clock: Clock,
    call: Callable[[], object],
    each_s: float,
    fewest: int = 1,
    before: Callable[[], object] | None = None,
) -> float:
    """Return the time of the fastest of at least `fewest` calls within `each_s` seconds.

    Args:
        clock: the clock of the device.
        call: the kernel.
        each_s: seconds to repeat it.
        fewest: the smallest number of calls.
        before: called before each call, without being timed.
    """
    start = time.perf_counter()
    runs: list[float] = []
    while len(runs) < fewest or time.perf_counter() - start < each_s:
        if before is not None:
            before()
        runs.append(run(clock, call, []).total)
    return max(min(runs), 1e-9)


def call_of(kernel: Kernel, device: torch.device, dtype: torch.dtype) -> Callable[[], object]:
    """Return a function that runs a kernel once, on operands drawn from a standard normal distribution."""

    def random(*shape: int) -> Tensor:
        drawn = torch.randn(FEW, device=device).to(dtype)  # drawing all values would take longer than repeating these
        size = math.prod(shape)
        return drawn.repeat(-(-size // FEW))[:size].view(shape)

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, device=device, dtype=dtype)

    match kernel.kind, kernel.sizes:
        case "linear", (rows, i, o):
            return partial(torch.mm, random(rows, i), random(o, i).t(), out=empty(rows, o))
        case "batched", (number, n, inner, m):
            return partial(torch.bmm, random(number, n, inner), random(number, inner, m), out=empty(number, n, m))
        case "softmax", (rows, length):
            # with `out`, since new memory may cause page faults in each call
            return partial(torch.softmax, random(rows, length), -1, out=empty(rows, length))
        case "scale", (elements,):
            return partial(random(elements).mul_, 1.0)
        case "transpose", sizes:
            permuted = random(*sizes)[:, :, 0].permute(0, 2, 3, 1)
            return partial(empty(*permuted.shape).copy_, permuted)
        case _:
            raise ValueError(f"kernel must be a linear, batched, softmax, scale or transpose kernel (got {kernel})")
