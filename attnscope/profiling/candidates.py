"""A module that is compared as it is, whether it was built from a Spec or by the user."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True)
class Candidate:
    """A module with its counts, and a function that builds it and its inputs on a device.

    Args:
        label: the module as it was typed.
        words: its description.
        counts: counts by the names of quantities; None if one is unknown.
        at_least: lower bounds of the unknown ones.
        resident_bytes: the size of parameters and inputs.
        peak_bytes: the peak activation memory, or a lower bound.
        build: builds the module in evaluation mode, and its inputs.
        notes: notes for the user.
        shape: the shape of its first input; its first axis is the batch.
    """

    label: str
    words: str
    counts: Mapping[str, int | None]
    at_least: Mapping[str, int]
    resident_bytes: int
    peak_bytes: int
    build: Callable[["torch.device"], "tuple[nn.Module, tuple[Tensor, ...]]"]
    notes: tuple[str, ...] = field(default=())
    shape: tuple[int, ...] = ()

    def measured(self, seconds: float) -> dict[str, float | None]:
        """Return the measured quantities of a forward that takes this long; None if a count is unknown."""
        macs = self.counts.get("macs")
        return {
            "latency": seconds,
            "throughput": (self.shape or (1,))[0] / seconds,
            "latency-per-mac": seconds / macs if macs else None,
        }
