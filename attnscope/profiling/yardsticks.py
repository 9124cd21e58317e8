"""Fixed pieces of work that are interleaved with the runs of a forward, and show how fast the host is at the time.

Other work on a host slows the yardsticks down too; slower code does not. There is one yardstick for each kind of step,
since a host may lose memory bandwidth and keep its speed of computation.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from attnscope.plan.kernels import Kernel
from attnscope.plan.plan import SizedStep
from attnscope.plan.roofline import moved_bytes
from attnscope.profiling.alone import call_of
from attnscope.profiling.clocks import CLOCKS, Clock, ThreadClock, Timed, run
from attnscope.profiling.normalization import Best
from attnscope.profiling.peak_files import YARDSTICKS, read_cache, update_cache
from attnscope.profiling.peaks import MEBI, cache_path, today
from attnscope.profiling.timing import Yardsticks

MATMUL, BATCHED, SOFTMAX = "matmul", "batched matmul", "softmax"
OPERATORS = {
    **dict.fromkeys(("addmm", "mm", "convolution"), MATMUL),
    **dict.fromkeys(("bmm", "baddbmm"), BATCHED),
    **dict.fromkeys(("_softmax", "gelu"), SOFTMAX),
}
"""The yardstick of each operator that computes; the first one that a step runs decides. All other steps move memory."""
KERNELS = {
    "cpu": {
        MATMUL: Kernel("linear", (98, 384, 384)),
        BATCHED: Kernel("batched", (48, 49, 32, 49)),
        SOFTMAX: Kernel("softmax", (48 * 49, 49)),
    },
    "gpu": {
        MATMUL: Kernel("linear", (3136, 384, 384)),
        BATCHED: Kernel("batched", (3072, 49, 32, 49)),
        SOFTMAX: Kernel("softmax", (3072 * 49, 49)),
    },
}
"""The kernel of each yardstick that computes. A call takes 0.1 to 0.3 ms on a CPU."""
COPIES = {f"copy of {size / MEBI:g} MiB": int(size) for size in (1.5 * MEBI, 6 * MEBI, 24 * MEBI)}
"""The yardsticks that move memory, and their working sets; a step has the one whose size is closest to its own."""
CALLS = 5
"""Calls of a yardstick in a row, of which the fastest counts: others may wait for operands or be interrupted. With other
processes on all cores, single calls varied by 15% (interquartile range), the fastest of five by less than 1%."""
FEWEST_FOR_BEST = 5
"""Runs of a yardstick from which its median may be the best one of the machine."""


def name_of(step: SizedStep) -> str | None:
    """Return the name of the yardstick of a step; None for a view, which does no work."""
    if step.is_view:
        return None
    if step.is_fused:
        return BATCHED
    moved = max(moved_bytes(step), 1)
    closest = min(COPIES, key=lambda name: abs(math.log(COPIES[name] / moved)))
    return next((OPERATORS[run.name] for run in step.forward.runs if run.name in OPERATORS), closest)


def yardsticks_of(steps: Iterable[SizedStep], device: torch.device, threads: int) -> Yardsticks:
    """Prepare the yardsticks of these steps. They compute in float32, for steps of any dtype.

    A single CPU thread is timed by its CPU time: a run is so short that an interruption would outweigh it.

    Args:
        steps: the steps.
        device: the device on which they run.
        threads: number of CPU threads, to which torch is set.
    """
    clock = ThreadClock() if device.type == "cpu" and threads == 1 else CLOCKS[device.type]()
    names = dict.fromkeys(name for step in steps if (name := name_of(step)) is not None)
    return {name: partial(_run, clock, _call(name, device)) for name in names}


def _run(clock: Clock, call: Callable[[], object]) -> Timed:
    """Run a yardstick CALLS times, and return the time of the fastest call."""
    stamps: list[Any] = []

    def calls() -> None:
        for _ in range(CALLS):
            call()
            stamps.append(clock.stamp())

    timed = run(clock, calls, stamps)
    return replace(timed, seconds=[min(timed.seconds[:-1])])


def _call(name: str, device: torch.device) -> Callable[[], object]:
    """Return a function that does the work of a yardstick once."""
    if name in COPIES:
        source = torch.ones(COPIES[name] // 8, device=device, dtype=torch.float32)
        return partial(torch.empty_like(source).copy_, source)
    return call_of(KERNELS["cpu" if device.type == "cpu" else "gpu"][name], device, torch.float32)


def best_of(
    samples: Mapping[str, Sequence[float]], device: torch.device, dtype: torch.dtype, threads: int
) -> dict[str, Best]:
    """Return the best median of each yardstick on this machine, which may be that of this run, and store it.

    A yardstick that takes less time than the clock of the device resolves has none.

    Args:
        samples: seconds of each run of the yardsticks, by name.
        device: the device.
        dtype: the dtype of the steps; the file is that of the peaks for it.
        threads: number of CPU threads.
    """
    path = cache_path(device, dtype, threads)
    known = _stored(read_cache(path).get(YARDSTICKS))
    best = {
        name: min([Best(statistics.median(runs), today()), *filter(None, [known.get(name)])])
        for name, runs in samples.items()
        if statistics.median(runs) > 0
    }
    better = {name: best[name] for name in best if len(samples[name]) >= FEWEST_FOR_BEST}
    if not better.items() <= known.items():
        update_cache(path, {YARDSTICKS: known | better})
    return best


def host_s(samples: Mapping[str, Sequence[float]]) -> float | None:
    """Return the median of the yardstick that compares hosts, in seconds; None if no step has it.

    It is the matmul: nearly every attention has one, and it depends on the speed of the processor alone.

    Args:
        samples: seconds of each run of the yardsticks, by name.
    """
    return statistics.median(samples[MATMUL]) if samples.get(MATMUL) else None


def _stored(entries: Any) -> dict[str, Best]:
    """Return the best times that a cache file stores, without damaged entries."""
    if not isinstance(entries, dict):
        return {}
    return {name: Best(*entry) for name, entry in entries.items() if _is_best(entry)}


def _is_best(entry: Any) -> bool:
    match entry:
        case [float(seconds), str()]:
            return 0 < seconds < math.inf
        case _:
            return False
