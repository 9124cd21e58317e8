"""Which devices are here, what fits in their memory, their random numbers, and what is needed to repeat a run on them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from attnscope.core.errors import DeviceError
from attnscope.profiling import process
from attnscope.profiling.host import free_host_memory, nvidia_driver, processor_name


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
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch keeps what was freed
        return torch.cuda.mem_get_info(device)[0] + unused
    return free_host_memory() if device.type in ("cpu", "mps") else None


@contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """The random numbers of the processor and of this device as the seed has them; both generators are put back at the end.

    torch.manual_seed would seed those of all other devices too, and nobody would put them back.
    """
    own = [device] if device.type in ("cuda", "mps") else []
    with torch.random.fork_rng(own, device_type=device.type if own else "cuda"):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        elif device.type == "mps":
            torch.mps.manual_seed(seed)
        yield


def environment(device: torch.device, threads: int, seed: int) -> dict[str, Any]:
    """What is needed to repeat a run: versions, device, processor, threads, allocator, seed, load."""
    return {
        "torch": torch.__version__,
        "device": str(device),
        "device_name": device_name(device),
        "cpu": processor_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": threads,
        "cores": process.cores(),
        "allocator": process.allocator,
        "denormals": _denormals(device),
        "toolkit": _toolkit(device),
        "driver": nvidia_driver() if device.type == "cuda" else None,
        "seed": seed,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def _denormals(device: torch.device) -> str | None:
    """Return whether the CPU computes with subnormal numbers ("kept") or takes them for 0 ("flushed"); None elsewhere."""
    if device.type != "cpu":
        return None
    tiny = torch.tensor(1e-40, dtype=torch.float32, device="cpu")  # torch may have other defaults
    return "kept" if float(tiny + tiny) else "flushed"


def _toolkit(device: torch.device) -> str | None:
    """What torch was built with for GPUs; the driver is another matter."""
    if device.type != "cuda":
        return None
    return f"HIP {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"


def device_name(device: torch.device) -> str:
    """The GPU's or the processor's name; an Apple GPU is part of its processor."""
    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else processor_name()
