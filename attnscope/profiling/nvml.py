"""Watch the clock of an NVIDIA GPU and what slows it down, through NVML.

NVML needs the package nvidia-ml-py, which is optional. Without it, or if the driver does not report a value, the value is
None. Clocks are read and never set.
"""

import time
from collections.abc import Callable
from typing import Any

import torch

from attnscope.reports.gpu import GpuState

EVERY_S = 0.05
"""Seconds between two readings, so that they take a small share of the time."""
SLOWDOWNS = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
"""Reasons for a slower clock than a busy GPU would have, by their bits in NVML (`nvmlClocksEventReason…`)."""
SM_CLOCK, CELSIUS_SENSOR = 1, 0  # NVML_CLOCK_SM and NVML_TEMPERATURE_GPU


class GpuWatch:
    """Readings of a GPU during a measurement.

    Args:
        device: the GPU.
        nvml: the module pynvml; None if it is not installed.
        now: returns the current time in seconds.
    """

    def __init__(self, device: torch.device, nvml: Any = None, now: Callable[[], float] = time.perf_counter) -> None:
        self._nvml, self._now = nvml, now
        self._gpu = None if nvml is None else _gpu(nvml, device)
        self._next_s = 0.0
        self._clocks: list[int] = []
        self._celsius: list[int] = []
        self._milliwatts: list[int] = []
        self._bits = 0

    def sampling(self, progress: Callable[..., None] | None) -> Callable[..., None]:
        """Wrap the callback of a measurement, which is called after each pair of runs, to read the GPU now and then."""

        def report(*progressed: object) -> None:
            if self._now() >= self._next_s:
                self.read()
                self._next_s = self._now() + EVERY_S
            if progress is not None:
                progress(*progressed)

        return report

    def read(self) -> None:
        """Read the clock, the temperature, the power and the reasons for a slow clock."""
        self._clocks += self._ask("nvmlDeviceGetClockInfo", SM_CLOCK)
        self._celsius += self._ask("nvmlDeviceGetTemperature", CELSIUS_SENSOR)
        self._milliwatts += self._ask("nvmlDeviceGetPowerUsage")
        reasons = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        for bits in reasons or self._ask("nvmlDeviceGetCurrentClocksThrottleReasons"):  # the name before driver 535
            self._bits |= bits

    def state(self) -> GpuState | None:
        """Return what the readings show; None without a reading of the clock."""
        if not self._clocks:
            return None
        most = self._ask("nvmlDeviceGetMaxClockInfo", SM_CLOCK)
        return GpuState(
            lowest_clock_mhz=min(self._clocks),
            highest_clock_mhz=max(self._clocks),
            max_clock_mhz=most[0] if most else None,
            temperature_c=max(self._celsius, default=None),
            power_w=max(self._milliwatts) / 1000 if self._milliwatts else None,
            slowed_by=[name for bit, name in SLOWDOWNS.items() if self._bits & bit],
        )

    def _ask(self, function: str, *arguments: int) -> list[int]:
        """Return the answer of NVML in a list, which is empty if it has none."""
        if self._gpu is None:
            return []
        try:
            return [getattr(self._nvml, function)(self._gpu, *arguments)]
        except (AttributeError, self._nvml.NVMLError):  # an older package, or a GPU that does not report it
            return []


def gpu_watch(device: torch.device) -> GpuWatch:
    """Return a watch of a GPU, which reads nothing if nvidia-ml-py is not installed or if the GPU is not NVIDIA's."""
    try:
        import pynvml
    except ImportError:
        pynvml = None
    return GpuWatch(device, None if torch.version.hip else pynvml)


def _gpu(nvml: Any, device: torch.device) -> Any:
    """Return NVML's handle of a device; None if it has none.

    Devices have other numbers in NVML if CUDA_VISIBLE_DEVICES is set, and the same UUID.
    """
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)  # since torch 2.5
    try:
        nvml.nvmlInit()
        return None if uuid is None else nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except nvml.NVMLError:
        return None
