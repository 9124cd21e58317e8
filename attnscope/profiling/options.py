"""Options of a run: device, threads, seed, and what to measure."""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from attnscope.core.dtypes import DTYPE_BYTES
from attnscope.core.errors import DeviceError, UsageError, quoted
from attnscope.profiling import process

DEVICES = {
    "auto": "the fastest available device",
    "cpu": "the CPU",
    "cuda": "an NVIDIA or AMD GPU",
    "mps": "an Apple GPU",
    "meta": "shapes only, without computation",
}
UNKNOWN_DTYPES = {"mps": ("float64", "complex128")}
"""Dtypes that a device does not support."""
BUDGET_S = 0.3
LIMIT_S = 10.0
"""The budget of a run that goes on until its interval is narrow enough."""
MOST_PROCESSES = 100

Progress = Callable[[str, float], None]
"""A callback that receives the name of the current measurement, and the fraction of it that is done."""
Item = TypeVar("Item")


def tracked(points: Iterable[Item], count: int, progress: Progress | None) -> Iterator[Item]:
    """Yield the points, and report the progress before each one."""
    for index, point in enumerate(points):
        if progress is not None:
            progress(f"{count:,} points", index / count)
        yield point


class ProgressOption:
    """Options with a callback that reports the progress of measurements."""

    progress: Progress | None

    def progress_of(self, what: str) -> Callable[[float], None] | None:
        """Return the callback for the progress of one measurement, or None if these options have no callback."""
        return partial(self.progress, what) if self.progress else None


@dataclass(frozen=True)
class RunOptions(ProgressOption):
    """Options that say how to run a Spec and what to measure; see `attnscope.explore`.

    Raises:
        UsageError: a value is not allowed.
    """

    device: str = "auto"
    time: bool = True
    budget: float = BUDGET_S
    threads: int = 1
    seed: int = 0
    audit: bool = False
    backward: bool = False
    input_grad: bool = True
    kernels: bool = False
    progress: Progress | None = None
    processes: int = 1
    until: float | None = None
    cold: bool = False

    def __post_init__(self) -> None:
        check_arguments(self.device, self.budget, self.threads, self.seed)
        check_processes(self.processes)
        check_until(self.until)

    @property
    def block_s(self) -> float:
        """Return the seconds of one block of runs; with `until`, the budget is that of all blocks together."""
        return self.budget if self.until is None else min(self.budget, BUDGET_S)

    @property
    def runs(self) -> bool:
        """Return whether the module is built and run, on the meta device or on one that computes."""
        return self.time or self.audit or self.device == "meta"

    @property
    def measures_time(self) -> bool:
        """Return whether anything is timed; the meta device has no times."""
        return self.time and self.device != "meta"

    @property
    def possible_devices(self) -> tuple[str, ...]:
        """Return the devices that `device` may become; `auto` is resolved only once torch is imported."""
        if self.device != "auto":
            return (self.device,)
        return ("mps", "cpu") if sys.platform == "darwin" else ("cuda", "cpu")


def check_arguments(device: str, budget: float = BUDGET_S, threads: int = 1, seed: int = 0) -> None:
    """Raise a UsageError if a value is not allowed."""
    if device not in DEVICES:
        raise UsageError(f"{{device}} {quoted(device)} is unknown; {_meant(device)}")
    if not 0 < budget <= 3600:
        raise UsageError(f"{{budget}} must be above 0 and at most 3600 s (got {budget:.15g})")
    if not 1 <= threads <= process.cores():
        here = (
            f"from 1 to {process.cores()}, the CPUs available" if process.cores() > 1 else "1, the only CPU available"
        )
        raise UsageError(f"{{threads}} must be {here} (got {threads})")
    if not 0 <= seed < 2**63:
        raise UsageError(f"{{seed}} must be an integer from 0 to {2**63 - 1} (got {seed})")


def _meant(device: str) -> str:
    """Return the device that a word such as `gpu` or `cuda:0` means, or the list of devices."""
    name, _, number = device.lower().partition(":")
    meant = "cuda" if name == "gpu" else name
    if meant not in DEVICES:
        return f"available: {', '.join(DEVICES)}"
    which = f", and set CUDA_VISIBLE_DEVICES={number} to choose it" if meant == "cuda" and number.isdecimal() else ""
    return f"write {{device}} {meant}{which}" if which else f"did you mean {meant}?"


def check_processes(processes: int, fewest: int = 1) -> None:
    """Raise a UsageError if the number of processes is not allowed."""
    if not fewest <= processes <= MOST_PROCESSES:
        raise UsageError(f"{{processes}} must be from {fewest} to {MOST_PROCESSES} (got {processes})")


def check_until(until: float | None) -> None:
    """Raise a UsageError if the width of the interval is not allowed."""
    if until is not None and not 0 < until < 1:
        raise UsageError(f"{{until}} must be above 0% and below 100%, such as 2% (got {until:.4g})")


def check_dtype(device: str, dtype: str) -> None:
    """Raise a DeviceError if this device, such as mps, does not support the dtype. Does not import torch."""
    unsupported = UNKNOWN_DTYPES.get(device, ())
    if dtype in unsupported:
        supported = ", ".join(name for name in DTYPE_BYTES if name not in unsupported)
        raise DeviceError(f"{device} does not support {dtype}; use {supported}, or {{device}} cpu")
