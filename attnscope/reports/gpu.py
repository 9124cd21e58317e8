"""The state of a GPU during a measurement."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GpuState:
    """The clock of a GPU during a measurement, and what slowed it down. A value that is not reported is None.

    Args:
        lowest_clock_mhz, highest_clock_mhz: the lowest and the highest clock of the multiprocessors; they are equal if
            the clock is locked.
        max_clock_mhz: the highest clock that the GPU allows.
        temperature_c: the highest temperature in °C.
        power_w: the highest power in watts.
        slowed_by: reasons for which the GPU lowered its clock, such as "power cap".
    """

    lowest_clock_mhz: int
    highest_clock_mhz: int
    max_clock_mhz: int | None
    temperature_c: int | None
    power_w: float | None
    slowed_by: list[str]
