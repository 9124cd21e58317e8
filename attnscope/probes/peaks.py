"""What this machine can do at its best: matmul, softmax, copies, calls. Measured in half a second, then kept."""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attnscope.bounds import Bandwidth, Peaks, Rate
from attnscope.probes.device import device_name, find_device
from attnscope.probes.time import CLOCKS, Clock, ThreadClock, measuring, run
from attnscope.probes.watch import Watch

EACH_S = 0.024
"""How long each kernel is repeated; the fastest run counts."""
FEWEST_RUNS = 3
OTHERS_MAY_KEEP = 0.25
MEBI = 2**20

SIZES: dict[str, dict[str, Any]] = {
    "cpu": {
        "matmul": (512, 1024),
        "batched": ((49, 32, 192), (197, 64, 12)),
        "softmax": ((49, 9408), (197, 2364)),
        "copy": (MEBI // 2, 2 * MEBI, 8 * MEBI, 32 * MEBI, 128 * MEBI),
    },
    "gpu": {
        "matmul": (2048, 4096),
        "batched": ((49, 32, 12288), (197, 64, 768)),
        "softmax": ((49, 602112), (197, 151296)),
        "copy": (2 * MEBI, 8 * MEBI, 32 * MEBI, 128 * MEBI, 512 * MEBI),
    },
}
"""Sides of square matrices; tokens, head width and number of batched ones; length and number of rows; working sets."""


def peaks_of(device: torch.device, dtype: torch.dtype, threads: int) -> Peaks:
    """The peaks that were kept for this machine, or else measured now and kept."""
    path = _path(device, dtype, threads)
    try:
        return from_plain(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return measure_peaks(device, dtype, threads)[0]


def measure_peaks_by_name(device: str, dtype: str, threads: int) -> tuple[Peaks, bool]:
    """The same for a device and a dtype by their names.

    Raises:
        DeviceError: the device is not here.
    """
    return measure_peaks(find_device(device), getattr(torch, dtype), threads)


def measure_peaks(device: torch.device, dtype: torch.dtype, threads: int) -> tuple[Peaks, bool]:
    """Measure, and keep the result where nobody else was busy, or where one thread can be told apart from others.

    Args:
        device: where.
        dtype: type of the numbers.
        threads: of the processor; torch is set to as many.

    Returns:
        The peaks, and whether they can be trusted.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        watch = Watch()
        peaks = _measure(device, dtype, threads)
        others = watch.load().others
    finally:
        torch.set_num_threads(before)
    alone = device.type != "cpu" or threads == 1 or others is None or others <= OTHERS_MAY_KEEP
    if alone:
        _keep(peaks, _path(device, dtype, threads))
    return peaks, alone


def from_plain(data: dict[str, Any]) -> Peaks:
    """Peaks from what JSON keeps of them.

    Raises:
        KeyError, TypeError: it is not that.
    """
    rates = {name: tuple(Rate(**one) for one in data[name]) for name in ("matmul", "batched", "softmax")}
    return Peaks(**{**data, **rates, "copy": tuple(Bandwidth(**one) for one in data["copy"])})


def _measure(device: torch.device, dtype: torch.dtype, threads: int) -> Peaks:
    # the thread's own time is what one thread can do, whoever else is busy
    clock: Clock = ThreadClock() if device.type == "cpu" and threads == 1 else CLOCKS[device.type]()
    sizes = SIZES["cpu" if device.type == "cpu" else "gpu"]
    start = time.perf_counter()

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, device=device, dtype=torch.float32).to(dtype)

    def best(*calls: Callable[[], object]) -> float:
        return min(_best(clock, call) for call in calls)

    with measuring(), torch.random.fork_rng():
        matmul = []
        for side in sizes["matmul"]:
            a, b, out = random(side, side), random(side, side), random(side, side)
            matmul.append(Rate(side, side**3 / best(partial(torch.mm, a, b, out=out))))
        batched = []
        for tokens, width, number in sizes["batched"]:
            q, k, weights = random(number, tokens, width), random(number, width, tokens), random(number, tokens, tokens)
            scores, mixed = torch.empty_like(weights), torch.empty_like(q)
            taken = best(
                partial(torch.bmm, q, k, out=scores),
                partial(torch.bmm, weights, q, out=mixed),
            )
            batched.append(Rate(tokens, number * tokens**2 * width / taken))
        softmax = []
        for length, number in sizes["softmax"]:
            rows = random(number, length)
            softmax.append(Rate(length, rows.numel() / best(partial(rows.softmax, -1))))
        copy = []
        for working_set in sizes["copy"]:
            source = torch.ones(working_set // 8, device=device, dtype=torch.float32)
            target = torch.empty_like(source)
            taken = best(partial(target.copy_, source))
            copy.append(Bandwidth(working_set, working_set / taken))
        one = random(1)
        call_s = best(lambda: [one.add_(0) for _ in range(100)]) / 100
        view_s = best(lambda: [one.view(1) for _ in range(100)]) / 100
    name = str(dtype).removeprefix("torch.")
    return Peaks(
        device_name(device), threads, name, tuple(matmul), tuple(batched), tuple(softmax), tuple(copy), call_s, view_s,
        caches(device), time.perf_counter() - start,
    )  # fmt: skip


def _best(clock: Clock, call: Callable[[], object]) -> float:
    call()
    start = time.perf_counter()
    runs: list[float] = []
    while len(runs) < FEWEST_RUNS or time.perf_counter() - start < EACH_S:
        runs.append(run(clock, call, []).total)
    return max(min(runs), 1e-9)


def caches(device: torch.device) -> dict[str, int]:
    """Bytes of each data cache that a core can use, the smallest first; empty where the system does not tell."""
    if device.type == "cuda":
        size = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0)
        return {"L2": size} if size else {}
    found: dict[str, int] = {}
    if device.type != "cpu":
        return found
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            kind, level, size = ((folder / name).read_text().strip() for name in ("type", "level", "size"))
            if kind != "Instruction":
                found[f"L{level}"] = int(size.rstrip("KM")) * (MEBI if size.endswith("M") else 1024)
        except (OSError, ValueError):
            continue
    return dict(sorted(found.items(), key=lambda cache: cache[1]))


def cache_folder() -> Path:
    """Where a user's programs keep what they can do without."""
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "attnscope"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "attnscope" / "cache"
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "attnscope"


def _path(device: torch.device, dtype: torch.dtype, threads: int) -> Path:
    capability = torch.backends.cpu.get_cpu_capability()
    machine = (device_name(device), capability, os.cpu_count(), torch.__version__, str(dtype), threads, EACH_S)
    return cache_folder() / f"peaks-{sha256(repr(machine).encode()).hexdigest()[:16]}.json"


def _keep(peaks: Peaks, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps(asdict(peaks)), encoding="utf-8")
        unfinished.replace(path)
    except OSError:
        pass  # a machine on which nothing can be kept measures each time
