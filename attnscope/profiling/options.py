"""How to run an attention, and what to find out from the run."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from attnscope.core.dtypes import DTYPE_BYTES
from attnscope.core.errors import DeviceError, UsageError, quoted
from attnscope.profiling import process

DEVICES = {
    "auto": "the fastest that is here",
    "cpu": "this processor",
    "cuda": "an NVIDIA or AMD GPU",
    "mps": "an Apple GPU",
    "meta": "shapes alone, nothing is computed",
}
UNKNOWN_DTYPES = {"mps": ("float64", "complex128")}
"""Types of numbers that a device does not know."""
BUDGET_S = 0.3

Progress = Callable[[str, float], None]
"""Called now and then with what is being measured, and the share of it that is done."""


class ProgressOption:
    """An option that reports progress while something is measured."""

    progress: Progress | None

    def progress_of(self, what: str) -> Callable[[float], None] | None:
        """Return the callback for the progress of one measurement, or None if nobody wants to know."""
        return partial(self.progress, what) if self.progress else None


@dataclass(frozen=True)
class RunOptions(ProgressOption):
    """How to run a Spec, and what to find out; see `attnscope.explore`.

    Raises:
        UsageError: a value that is not allowed.
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

    def __post_init__(self) -> None:
        check_arguments(self.device, self.budget, self.threads, self.seed)

    @property
    def runs(self) -> bool:
        """Whether the module is built and run, on meta or where it computes."""
        return self.time or self.audit or self.device == "meta"

    @property
    def measures_time(self) -> bool:
        """Whether anything is timed; on meta nothing can be."""
        return self.time and self.device != "meta"

    @property
    def possible_devices(self) -> tuple[str, ...]:
        """The devices that `device` can stand for before torch has looked: `auto` is one of several."""
        if self.device != "auto":
            return (self.device,)
        return ("mps", "cpu") if sys.platform == "darwin" else ("cuda", "cpu")


def check_arguments(device: str, budget: float = BUDGET_S, threads: int = 1, seed: int = 0) -> None:
    """Raise a UsageError if a value is not allowed."""
    if device not in DEVICES:
        raise UsageError(f"{{device}} {quoted(device)} is unknown; there is: {', '.join(DEVICES)}")
    if not 0 < budget <= 3600:
        raise UsageError(f"{{budget}} must be above 0 and at most 3600 s (got {budget:g})")
    if not 1 <= threads <= process.cores():
        here = (
            f"from 1 to {process.cores()}, the CPUs available" if process.cores() > 1 else "1, the only CPU available"
        )
        raise UsageError(f"{{threads}} must be {here} (got {threads})")
    if not 0 <= seed < 2**63:
        raise UsageError(f"{{seed}} must be a whole number from 0 to {2**63 - 1} (got {seed})")


def check_dtype(device: str, dtype: str) -> None:
    """Raise a DeviceError if this device, such as mps, does not support the dtype. No torch."""
    unknown = UNKNOWN_DTYPES.get(device, ())
    if dtype in unknown:
        known = ", ".join(name for name in DTYPE_BYTES if name not in unknown)
        raise DeviceError(f"{device} knows no {dtype}; there is: {known}, or {{device}} cpu")
