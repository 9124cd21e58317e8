"""Measure the peaks of this machine: matmul and softmax rates, copy bandwidth, cost of a call.

The measurement takes half a second, and the best that the machine has shown is kept.
"""

import math
import os
import time
from collections.abc import Callable
from datetime import date as calendar
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from attnscope.core.dtypes import dtype_name
from attnscope.plan.kernels import Kernel
from attnscope.plan.peaks import WIDER, Bandwidth, Peaks, Rate
from attnscope.profiling.alone import best_s, call_of, clock_of
from attnscope.profiling.caches import caches
from attnscope.profiling.devices import device_name, find_device, seeded
from attnscope.profiling.load import Watch
from attnscope.profiling.noise import OTHERS_MAY_KEEP
from attnscope.profiling.options import check_dtype
from attnscope.profiling.peak_files import cache_folder, read_peaks, remember, store
from attnscope.profiling.timing import measuring

EACH_S, ROUNDS = 0.024, 4
"""Seconds for which each kernel is repeated, and the number of rounds among which they are divided."""
FASTER = 0.03
"""Fraction by which the host must be faster than when its peaks were measured, for them to be measured again."""
MEBI = 2**20

SIZES: dict[str, dict[str, Any]] = {
    "cpu": {
        "matmul": (512, 1024),
        "batched": ((49, 32, 192), (197, 64, 12)),
        "softmax": ((49, 9408), (197, 2364)),
        "copy": (3 * MEBI // 8, 3 * MEBI // 2, 6 * MEBI, 24 * MEBI, 96 * MEBI),
    },
    "gpu": {
        "matmul": (2048, 4096),
        "batched": ((49, 32, 12288), (197, 64, 768)),
        "softmax": ((49, 602112), (197, 151296)),
        "copy": (2 * MEBI, 8 * MEBI, 32 * MEBI, 128 * MEBI, 512 * MEBI),
    },
}
"""Sizes of the measured kernels.

"matmul": side of square matrices. "batched": tokens, head dimension, number of matrices. "softmax": length and number of
rows. "copy": working set in bytes. For a CPU these are not powers of two, since caches are: a working set should clearly
fit in a cache or clearly exceed it.
"""


def machine_peaks(
    device: torch.device, dtype: torch.dtype, threads: int, yardstick_s: float | None = None
) -> list[Peaks]:
    """Return the best peaks that this machine has shown: those of the dtype, then those of wider dtypes.

    Args:
        device, dtype, threads, yardstick_s: as in `peaks_of`.
    """
    wider = [getattr(torch, name) for name in WIDER.get(dtype_name(dtype), ())]
    return [peaks_of(device, one, threads, yardstick_s) for one in (dtype, *wider)]


def peaks_of(device: torch.device, dtype: torch.dtype, threads: int, yardstick_s: float | None = None) -> Peaks:
    """Return the best peaks that this machine has shown; measure them first if they are unknown or outdated.

    Args:
        device: the device.
        dtype: the dtype of the operands.
        threads: number of CPU threads.
        yardstick_s: seconds of the host's yardstick now; None if it is not known.
    """
    kept = read_peaks(cache_path(device, dtype, threads))
    if kept is None or is_outdated(kept, yardstick_s):
        return measure_peaks(device, dtype, threads, yardstick_s=yardstick_s)[0]
    return kept


def is_outdated(peaks: Peaks, yardstick_s: float | None) -> bool:
    """Return whether the host is faster now than when these peaks were measured.

    A host that is slower now does not change the best that it has shown.
    """
    if yardstick_s is None or peaks.yardstick_s is None:
        return False
    return yardstick_s < (1 - FASTER) * peaks.yardstick_s


def measure_peaks_by_name(device: str, dtype: str, threads: int, forget: bool = False) -> tuple[Peaks, bool]:
    """Measure the peaks of a device and a dtype that are given by name, as `measure_peaks` does.

    Raises:
        DeviceError: the device is not available, or does not support the dtype.
    """
    found = find_device(device)
    check_dtype(found.type, dtype)
    return measure_peaks(found, getattr(torch, dtype), threads, forget)


def measure_peaks(
    device: torch.device,
    dtype: torch.dtype,
    threads: int,
    forget: bool = False,
    yardstick_s: float | None = None,
) -> tuple[Peaks, bool]:
    """Measure the peaks of this machine, and keep the best that it has shown if they are reliable.

    They are reliable on a GPU, with one CPU thread, or if other processes are idle during the measurement.

    Args:
        device: the device.
        dtype: the dtype of the operands.
        threads: number of CPU threads, to which torch is set during the measurement.
        forget: replace the kept peaks, instead of combining them with the new ones.
        yardstick_s: seconds of the host's yardstick now; None if it is not known.

    Returns:
        The best peaks, and whether the measurement is reliable.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        watch = Watch()
        peaks = _measure(device, dtype, threads, yardstick_s)
        others = watch.load().others
    finally:
        torch.set_num_threads(before)
    is_reliable = device.type != "cpu" or threads == 1 or others is None or others <= OTHERS_MAY_KEEP
    if not is_reliable:
        return peaks, False
    path = cache_path(device, dtype, threads)
    if forget:
        store(peaks, path)
        return peaks, True
    return remember(peaks, path), True


def keep_raised(peaks: Peaks, device: torch.device, dtype: torch.dtype, threads: int) -> None:
    """Keep peaks that a step has raised."""
    remember(peaks, cache_path(device, dtype, threads))


def today() -> str:
    """Return the date of today, such as 2026-11-26."""
    return calendar.today().isoformat()


def _measure(device: torch.device, dtype: torch.dtype, threads: int, yardstick_s: float | None) -> Peaks:
    clock = clock_of(device, threads)
    sizes = SIZES["cpu" if device.type == "cpu" else "gpu"]
    start, date = time.perf_counter(), today()

    def kernel(kind: str, *sizes: int) -> Callable[[], object]:
        return call_of(Kernel(kind, sizes), device, dtype)

    with measuring(), seeded(device, 0):
        one = torch.ones(1, device=device, dtype=dtype)
        calls: dict[object, Callable[[], object]] = {
            "call": lambda: [one.add_(0) for _ in range(100)],
            "view": lambda: [one.view(1) for _ in range(100)],
        }
        for side in sizes["matmul"]:
            calls["matmul", side] = kernel("linear", side, side, side)
        for tokens, width, number in sizes["batched"]:
            calls["score", tokens] = kernel("batched", number, tokens, width, tokens)
            calls["mix", tokens] = kernel("batched", number, tokens, tokens, width)
        for length, rows in sizes["softmax"]:
            calls["softmax", length] = kernel("softmax", rows, length)
        for working_set in sizes["copy"]:
            source = torch.ones(working_set // 8, device=device, dtype=torch.float32)
            calls["copy", working_set] = partial(torch.empty_like(source).copy_, source)
        best: dict[object, float] = {}
        for _ in range(ROUNDS):  # a burst of other work then affects only one round of each kernel
            for name, call in calls.items():
                best[name] = min(best_s(clock, call, EACH_S / ROUNDS), best.get(name, math.inf))
    batched = [
        Rate(tokens, number * tokens**2 * width / min(best["score", tokens], best["mix", tokens]), date)
        for tokens, width, number in sizes["batched"]
    ]
    return Peaks(
        device=device_name(device),
        threads=threads,
        dtype=dtype_name(dtype),
        matmul=tuple(Rate(side, side**3 / best["matmul", side], date) for side in sizes["matmul"]),
        batched=tuple(batched),
        softmax=tuple(Rate(length, rows * length / best["softmax", length], date) for length, rows in sizes["softmax"]),
        copy=tuple(
            Bandwidth(working_set, working_set / best["copy", working_set], date) for working_set in sizes["copy"]
        ),
        call_s=best["call"] / 100,
        view_s=best["view"] / 100 if clock.on_processor else None,
        caches=caches(device),
        seconds=time.perf_counter() - start,
        yardstick_s=yardstick_s,
    )


def cache_path(device: torch.device, dtype: torch.dtype, threads: int) -> Path:
    """Return the file of the peaks and of the best yardsticks, whose name is a hash of everything on which they depend."""
    capability = torch.backends.cpu.get_cpu_capability()
    machine = (device_name(device), capability, os.cpu_count(), torch.__version__, str(dtype), threads)
    measured = (SIZES, ROUNDS, EACH_S)
    return cache_folder() / f"peaks-{sha256(repr((machine, measured)).encode()).hexdigest()[:16]}.json"
