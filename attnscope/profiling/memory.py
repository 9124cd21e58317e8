"""Measure the memory that the device's allocator holds while each step runs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from attnscope.plan.step import Step
from attnscope.profiling.hooks import listening
from attnscope.profiling.timing import measuring


def allocated_bytes(module: nn.Module, x: tuple[Tensor, ...], count: str = "allocated_bytes") -> list[int]:
    """Return the peak memory of each step that runs in bytes, above the memory held before, from CUDA's allocator.

    The caching allocator rounds blocks up to multiples of 512 bytes, and large ones by up to 1 MiB. The result may
    therefore exceed the plan.

    Args:
        module: a module on a CUDA device. It runs twice, since libraries allocate their workspaces in the first run.
        x: its inputs.
        count: the counter of torch.cuda.memory_stats; "requested_bytes" counts tensors without the rounding to blocks.
    """
    device = x[0].device
    peaks: list[int] = []

    def counted(moment: str) -> int:
        return torch.cuda.memory_stats(device)[f"{count}.all.{moment}"]

    def listener(path: str, attention: Any, step: Step, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            torch.cuda.reset_peak_memory_stats(device)
            result = method(*args)
            peaks.append(counted("peak") - before)
            return result

        return call

    with measuring():
        module(*x)
        torch.cuda.synchronize(device)
        before = counted("current")
        with listening(module, listener):
            module(*x)
    return peaks
