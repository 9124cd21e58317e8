"""Find the available devices, their free memory and their names; seed them; describe the environment of a run."""

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

from attnscope.core.errors import DeviceError
from attnscope.profiling import process
from attnscope.profiling.host import free_host_memory, nvidia_driver, processor_name


def find_device(name: str) -> torch.device:
    """Return the device with this name; `auto` is the first available one of cuda, mps and cpu.

    Raises:
        DeviceError: the device is not available; the message lists those that are.
    """
    present = devices()
    if name == "auto":
        name = present[0]
    if name not in present:
        raise DeviceError(f"{{device}} {name} is not available here; available: {', '.join(present)}")
    if name == "cuda":
        _open_context()
    return torch.device(name)


@functools.cache
def _open_context() -> None:
    """Run a kernel in autograd's thread of the GPU: torch warns if a matmul is the first that runs there (2.11).

    A GPU without free memory fails here as in the run, which explains the error.
    """
    with suppress(RuntimeError), torch.inference_mode(False), torch.enable_grad():
        (torch.ones((), device="cuda", requires_grad=True) * 2).backward()


def devices() -> list[str]:
    """Return the names of the available devices, the fastest first."""
    gpus = ["cuda"] if torch.cuda.is_available() else []
    gpus += ["mps"] if torch.backends.mps.is_available() else []
    return [*gpus, "cpu", "meta"]


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that can be allocated on the device; None for the meta device, which has no memory."""
    if device.type == "cuda":
        # torch's caching allocator keeps freed blocks, which the driver reports as used
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return free_host_memory() if device.type in ("cpu", "mps") else None


@contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Set the seed of the generators of the CPU and of this device within a `with` block; restore both at the end.

    torch.manual_seed would also seed the generators of all other devices, which fork_rng does not restore here.
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
    """Describe the environment of a run, to repeat it: versions, device, CPU, threads, allocator, seed and load."""
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
    """Return "kept" if the CPU computes with subnormal numbers, "flushed" if it treats them as 0; None on other devices."""
    if device.type != "cpu":
        return None
    tiny = torch.tensor(1e-40, dtype=torch.float32, device="cpu")  # the user may have set other defaults
    return "kept" if float(tiny + tiny) else "flushed"


def _toolkit(device: torch.device) -> str | None:
    """Return the version of CUDA or HIP that torch was built with, which may differ from the driver's; None off GPUs."""
    if device.type != "cuda":
        return None
    return f"HIP {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"


def device_name(device: torch.device) -> str:
    """Return the name of the GPU or the CPU. An Apple GPU is part of its CPU and has the same name."""
    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else processor_name()
