"""The roofline lower bound of the time of a step, from the peaks of the machine.

The model is that of Williams et al., "Roofline: An Insightful Visual Performance Model for Multicore Architectures",
2009. A step takes at least the time of its arithmetic at the peak rate. It also takes at least the time in which the
memory moves its operands and its result, each once. Copies, passes and kernels that torch chooses are not part of the
bound. `Alone` in `kernels.py` measures those.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from attnscope.plan.kernels import Alone, kernels_of
from attnscope.plan.peaks import Peaks, Raised
from attnscope.plan.plan import SizedStep

SAME = 1e-9
"""Relative difference up to which two times are equal: that of rounding."""


@dataclass(frozen=True)
class Bound:
    """The `bound` of a step in version 0.1: the time of its kernels alone, limited to the time of the step.

    The next release removes it. `Roofline` is a lower bound, and `Alone` is the time of the kernels.

    Args:
        seconds: the bound.
        binds: the limit that sets it, as in a Roofline.
        intensity: arithmetic intensity; None for a view.
    """

    seconds: float
    binds: str
    intensity: float | None


@dataclass(frozen=True)
class Roofline:
    """The roofline lower bound of a step.

    Args:
        seconds: the lower bound of its time, by the best rates of the machine in the step's dtype and in wider ones.
        binds: the limit that sets it: "compute", a memory such as "memory L2", or "call" if the call overhead
            dominates.
        intensity: arithmetic intensity, FLOPs for each byte that must be moved; None for a step that moves nothing.
        dtype_seconds: the lower bound by the best rates in the step's own dtype.
    """

    seconds: float
    binds: str
    intensity: float | None
    dtype_seconds: float


def roofline(step: SizedStep, machine: Sequence[Peaks]) -> Roofline | None:
    """Return the arithmetic intensity and the roofline lower bound of one call of a step; None for a view.

    Args:
        step: the step.
        machine: the peaks of the step's dtype, then those of wider dtypes.
    """
    if step.is_view:
        return None
    moved = moved_bytes(step)
    limits = _limits(step, machine)
    seconds = max(limits.values())
    binds = next(name for name in ("call", "compute", "memory") if limits[name] == seconds)
    return Roofline(
        seconds,
        f"memory {machine[0].level(moved)}" if binds == "memory" else binds,
        (step.flops + step.other_flops) / moved if moved else None,
        max(_limits(step, machine[:1]).values()),
    )


def raised(step: SizedStep, machine: Sequence[Peaks], seconds: float, by: str, date: str) -> list[Raised]:
    """Return the peaks that a step has shown to be too low: none if its time is not below its lower bound.

    Args:
        step: the step.
        machine: as in `roofline`.
        seconds: the measured time of one call of the step, or of its kernels alone.
        by: the words for what was measured.
        date: the date of the measurement.
    """
    if step.is_view or seconds <= 0:
        return []
    limits = _limits(step, machine)
    moved, elements = moved_bytes(step), _softmax_elements(step)
    found = []
    if limits["compute"] > seconds * (1 + SAME):
        factor = limits["compute"] / seconds
        if step.macs:
            found.append(Raised("matmul", factor * _macs_per_s(machine), by, date))
        if elements:
            found.append(Raised("softmax", factor * _softmax_per_s(machine), by, date))
    if limits["memory"] > seconds * (1 + SAME):
        found.append(Raised("memory", moved / seconds, by, date, moved))
    if limits["call"] > seconds * (1 + SAME):
        found.append(Raised("call", 1 / seconds, by, date))
    return found


def former_bound(
    step: SizedStep, bound: Roofline | None, own: Alone | None, seconds: float, view_s: float | None
) -> Bound | None:
    """Return the bound of version 0.1.

    Args:
        step: the step.
        bound: its roofline lower bound.
        own: the time of its kernels alone.
        seconds: the measured time of the step.
        view_s: the time of a view, in seconds; None on a GPU.
    """
    if bound is None:
        return None if view_s is None else Bound(view_s, "call", None)
    return Bound(max(bound.seconds, min(own.warm_s if own else 0.0, seconds)), bound.binds, bound.intensity)


def moved_bytes(step: SizedStep) -> int:
    """Return the bytes that a step must move: its inputs, its parameters and its outputs, each once."""
    taken = sum([tensor.elements(step.sizes) for tensor in step.step.letters.inputs])
    return step.itemsize * (taken + step.params) + step.output_bytes


def _limits(step: SizedStep, machine: Sequence[Peaks]) -> dict[str, float]:
    """Return the seconds that each limit takes at least: "compute", "memory" and "call"."""
    moved = moved_bytes(step)
    return {
        "compute": step.macs / _macs_per_s(machine) + _softmax_elements(step) / _softmax_per_s(machine),
        "memory": moved / max(peaks.bandwidth(moved) for peaks in machine),
        "call": min(peaks.shortest_call_s for peaks in machine),
    }


def _macs_per_s(machine: Sequence[Peaks]) -> float:
    return max(peaks.macs_per_s for peaks in machine)


def _softmax_per_s(machine: Sequence[Peaks]) -> float:
    return max(peaks.softmax_per_s for peaks in machine)


def _softmax_elements(step: SizedStep) -> int:
    return sum([math.prod(kernel.sizes) for kernel in kernels_of(step) if kernel.kind == "softmax"])
