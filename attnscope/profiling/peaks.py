"""Measure the peaks of this machine: matmul and softmax rates, copy bandwidth, cost of a call.

The measurement takes half a second and is stored. For a single run, `best_seconds` measures the best time of each of its
kernels at their own sizes.
"""

import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attnscope.core.dtypes import dtype_name
from attnscope.plan.roofline import Bandwidth, Kernel, Peaks, Rate
from attnscope.profiling.clocks import CLOCKS, Clock, CudaClock, ThreadClock, run
from attnscope.profiling.devices import device_name, find_device, seeded
from attnscope.profiling.load import Watch
from attnscope.profiling.noise import OTHERS_MAY_KEEP
from attnscope.profiling.options import check_dtype
from attnscope.profiling.timing import FEWEST_LONG_RUNS, PATIENCE, measuring

EACH_S, KERNEL_S = 0.024, 0.008
"""Seconds for which each kernel is repeated, for the peaks of the machine and for a run; the fastest repetition counts."""
ROUNDS = 4
FEW = 4096
"""Number of random values that are drawn, and then repeated to fill an operand."""
MEBI = 2**20
YARDSTICKS = "yardsticks"
"""The entry of the cache file with the best time of each yardstick; the other entries are those of Peaks."""
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
"""The folder in which Linux describes the caches of a core."""

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


def peaks_of(device: torch.device, dtype: torch.dtype, threads: int) -> Peaks:
    """Return the stored peaks of this machine; measure and store them if no file has them yet.

    Args:
        device: the device.
        dtype: the dtype of the operands.
        threads: number of CPU threads.
    """
    stored = read_cache(cache_path(device, dtype, threads))
    try:
        return from_plain({name: value for name, value in stored.items() if name != YARDSTICKS})
    except (KeyError, TypeError):
        return measure_peaks(device, dtype, threads)[0]


def measure_peaks_by_name(device: str, dtype: str, threads: int) -> tuple[Peaks, bool]:
    """Measure the peaks of a device and a dtype that are given by name, as `measure_peaks` does.

    Raises:
        DeviceError: the device is not available, or does not support the dtype.
    """
    found = find_device(device)
    check_dtype(found.type, dtype)
    return measure_peaks(found, getattr(torch, dtype), threads)


def measure_peaks(device: torch.device, dtype: torch.dtype, threads: int) -> tuple[Peaks, bool]:
    """Measure the peaks of this machine, and store them if they are reliable.

    They are reliable on a GPU, with one CPU thread, or if other processes are idle during the measurement.

    Args:
        device: the device.
        dtype: the dtype of the operands.
        threads: number of CPU threads, to which torch is set during the measurement.

    Returns:
        The peaks, and whether they are reliable.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        watch = Watch()
        peaks = _measure(device, dtype, threads)
        others = watch.load().others
    finally:
        torch.set_num_threads(before)
    is_reliable = device.type != "cpu" or threads == 1 or others is None or others <= OTHERS_MAY_KEEP
    if is_reliable:
        update_cache(cache_path(device, dtype, threads), asdict(peaks))
    return peaks, is_reliable


def from_plain(data: dict[str, Any]) -> Peaks:
    """Build Peaks from their JSON representation.

    Raises:
        KeyError, TypeError: the data does not represent Peaks.
    """
    rates = {name: tuple(Rate(**one) for one in data[name]) for name in ("matmul", "batched", "softmax")}
    return Peaks(**{**data, **rates, "copy": tuple(Bandwidth(**one) for one in data["copy"])})


def best_seconds(
    kernels: Mapping[Kernel, float], device: torch.device, dtype: torch.dtype, threads: int
) -> dict[Kernel, float]:
    """Return the best time of each kernel in seconds, when it runs alone on operands that are in memory.

    Args:
        kernels: seconds of each kernel within a step. A kernel that takes longer alone was disturbed and is measured again.
            The result never exceeds the time within the step.
        device: the device.
        dtype: the dtype of the operands.
        threads: number of CPU threads, to which torch is already set.
    """
    clock = _clock(device, threads)

    def alone(kernel: Kernel, in_step_s: float) -> float:
        call = kernel_call(kernel, device, dtype)  # a local, so that its operands are freed before the next kernel
        call()  # the first call allocates memory and loads libraries
        best = _best(clock, call, KERNEL_S, FEWEST_LONG_RUNS)
        for _ in range(PATIENCE):
            if best > in_step_s:
                best = min(best, _best(clock, call, KERNEL_S, FEWEST_LONG_RUNS))
        return min(best, in_step_s)

    with measuring(), seeded(device, 0):
        return {kernel: alone(kernel, in_step_s) for kernel, in_step_s in kernels.items()}


def _measure(device: torch.device, dtype: torch.dtype, threads: int) -> Peaks:
    clock = _clock(device, threads)
    sizes = SIZES["cpu" if device.type == "cpu" else "gpu"]
    start = time.perf_counter()

    def kernel(kind: str, *sizes: int) -> Callable[[], object]:
        return kernel_call(Kernel(kind, sizes), device, dtype)

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
                best[name] = min(_best(clock, call, EACH_S / ROUNDS), best.get(name, math.inf))
    batched = [
        Rate(tokens, number * tokens**2 * width / min(best["score", tokens], best["mix", tokens]))
        for tokens, width, number in sizes["batched"]
    ]
    return Peaks(
        device=device_name(device),
        threads=threads,
        dtype=dtype_name(dtype),
        matmul=tuple(Rate(side, side**3 / best["matmul", side]) for side in sizes["matmul"]),
        batched=tuple(batched),
        softmax=tuple(Rate(length, rows * length / best["softmax", length]) for length, rows in sizes["softmax"]),
        copy=tuple(Bandwidth(working_set, working_set / best["copy", working_set]) for working_set in sizes["copy"]),
        call_s=best["call"] / 100,
        view_s=best["view"] / 100 if clock.on_processor else None,
        caches=caches(device),
        seconds=time.perf_counter() - start,
    )


def _clock(device: torch.device, threads: int) -> Clock:
    """Return the clock for peaks.

    For one CPU thread it is the CPU time of the thread, which other processes do not affect. For a GPU it does not flush
    the L2 cache, so that operands stay cached.
    """
    if device.type == "cuda":
        return CudaClock(flush=False)
    return ThreadClock() if device.type == "cpu" and threads == 1 else CLOCKS[device.type]()


def kernel_call(kernel: Kernel, device: torch.device, dtype: torch.dtype) -> Callable[[], object]:
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


def _best(clock: Clock, call: Callable[[], object], each_s: float, fewest: int = 1) -> float:
    """Return the time of the fastest of at least `fewest` calls within `each_s` seconds."""
    start = time.perf_counter()
    runs: list[float] = []
    while len(runs) < fewest or time.perf_counter() - start < each_s:
        runs.append(run(clock, call, []).total)
    return max(min(runs), 1e-9)


def caches(device: torch.device, folder: Path = CACHES) -> dict[str, int]:
    """Return the size in bytes of each data cache that a core can use, the smallest first.

    The result is empty if the system does not report caches.
    """
    if device.type == "cuda":
        size = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0)
        return {"L2": size} if size else {}
    found: dict[str, int] = {}
    if device.type != "cpu":
        return found
    for index in sorted(folder.glob("index*")):
        try:
            kind, level, size = ((index / name).read_text().strip() for name in ("type", "level", "size"))
            if kind != "Instruction":
                found[f"L{level}"] = int(size.rstrip("KM")) * (MEBI if size.endswith("M") else 1024)
        except (OSError, ValueError):
            continue
    return dict(sorted(found.items(), key=lambda cache: cache[1]))


def cache_folder() -> Path:
    """Return the folder of attnscope in the user's cache folder."""
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "attnscope"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "attnscope" / "cache"
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "attnscope"


def cache_path(device: torch.device, dtype: torch.dtype, threads: int) -> Path:
    """Return the file of the peaks and of the best yardsticks, whose name is a hash of everything on which they depend."""
    capability = torch.backends.cpu.get_cpu_capability()
    machine = (device_name(device), capability, os.cpu_count(), torch.__version__, str(dtype), threads)
    measured = (SIZES, ROUNDS, EACH_S)
    return cache_folder() / f"peaks-{sha256(repr((machine, measured)).encode()).hexdigest()[:16]}.json"


def read_cache(path: Path) -> dict[str, Any]:
    """Return what is stored in a file; empty if it does not exist or has no JSON object."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}


def update_cache(path: Path, changes: Mapping[str, Any]) -> None:
    """Replace entries of a file and keep the others; readers see the file only when it is complete."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps({**read_cache(path), **changes}), encoding="utf-8")
        unfinished.replace(path)
    except OSError:
        pass  # without a writable cache folder, each process measures for itself
