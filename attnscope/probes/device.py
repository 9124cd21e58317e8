"""Which devices are here, what fits in their memory, and what is needed to repeat a run on them."""

import os
import platform
from pathlib import Path
from typing import Any

import psutil
import torch

from attnscope.errors import DeviceError
from attnscope.probes import process


def find_device(name: str) -> torch.device:
    """The device with this name; `auto` is the first there is of cuda, mps and cpu.

    Raises:
        DeviceError: it is not here; the line says what is.
    """
    present = devices()
    if name == "auto":
        return torch.device(present[0])
    if name not in present:
        raise DeviceError(f"{{device}} {name} is not here; there is: {', '.join(present)}")
    return torch.device(name)


def devices() -> list[str]:
    """The devices that are here, the fastest first."""
    here = ["cuda"] if torch.cuda.is_available() else []
    here += ["mps"] if torch.backends.mps.is_available() else []
    return [*here, "cpu", "meta"]


def free_memory(device: torch.device) -> int | None:
    """Bytes that can be allocated on the device; None where it has no memory of its own to ask for."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_host_memory() if device.type in ("cpu", "mps") else None


def free_host_memory() -> int:
    """Bytes that this process may still take: of the machine, or of the container's limit where that is lower."""
    free = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return free if limit == "max" else min(free, int(limit) - int(used))
    except (OSError, ValueError):
        return free


def environment(device: torch.device, threads: int, seed: int) -> dict[str, Any]:
    """What is needed to repeat a run: versions, device, processor, threads, allocator, seed, load."""
    return {
        "torch": torch.__version__,
        "device": str(device),
        "device_name": device_name(device),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": threads,
        "cores": process.cores(),
        "allocator": process.allocator,
        "denormals": _denormals(device),
        "driver": _driver(device),
        "seed": seed,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def _denormals(device: torch.device) -> str | None:
    """Whether the processor reckons with numbers below the smallest normal one, or takes them for 0; both cost time."""
    if device.type != "cpu":
        return None
    tiny = torch.tensor(1e-40)
    return "kept" if float(tiny + tiny) else "flushed"


def _driver(device: torch.device) -> str | None:
    """The version that the GPU's driver speaks."""
    if device.type != "cuda":
        return None
    return f"HIP {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    if device.type == "cpu" and Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
