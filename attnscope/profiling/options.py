"""How something is to be run, and what is to be found out by it."""

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
"""Is told now and then what is being measured, and which share of that is done."""


class Telling:
    """What has a `progress` that may be told something."""

    progress: Progress | None

    def telling(self, what: str) -> Callable[[float], None] | None:
        """What is to be told which share of this is measured."""
        return partial(self.progress, what) if self.progress else None


@dataclass(frozen=True)
class Asked(Telling):
    """How a Spec is to be run, and what is to be found out; see `attnscope.explore`."""

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


def may_be(device: str) -> tuple[str, ...]:
    """What a device may turn out to be, as far as that is known before torch has looked: `auto` is one of several."""
    if device != "auto":
        return (device,)
    return ("mps", "cpu") if sys.platform == "darwin" else ("cuda", "cpu")


def check_arguments(device: str, budget: float = BUDGET_S, threads: int = 1, seed: int = 0) -> None:
    """Raises a UsageError where something cannot be asked for."""
    if device not in DEVICES:
        raise UsageError(f"{{device}} {quoted(device)} is unknown; there is: {', '.join(DEVICES)}")
    if not 0 < budget <= 3600:
        raise UsageError(f"{{budget}} {budget:g} is no time to measure in; give seconds above 0, up to 3600")
    if not 1 <= threads <= process.cores():
        here = f"are 1 to {process.cores()}" if process.cores() > 1 else "is 1"
        raise UsageError(f"{{threads}} {threads} cannot be had here; there {here}")
    if not 0 <= seed < 2**63:
        raise UsageError(f"{{seed}} {seed} is no seed; give a whole number from 0 to {2**63 - 1}")


def check_dtype(device: str, dtype: str) -> None:
    """Raises a DeviceError where this device, such as mps, does not know numbers of this type. No torch."""
    unknown = UNKNOWN_DTYPES.get(device, ())
    if dtype in unknown:
        known = ", ".join(name for name in DTYPE_BYTES if name not in unknown)
        raise DeviceError(f"{device} knows no {dtype}; there is: {known}, or {{device}} cpu")
