"""What the device's allocator held while each step ran."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from attnscope.plan.step import Step
from attnscope.profiling.hooks import listening
from attnscope.profiling.timing import measuring


def allocated_bytes(module: nn.Module, x: tuple[Tensor, ...], count: str = "allocated_bytes") -> list[int]:
    """Bytes at the fullest moment of each step that runs, beyond what was there before, by CUDA's caching allocator.

    Blocks are whole multiples of 512 bytes, the large ones up to a MiB longer, so that it may tell more than the plan does.

    Args:
        module: on a CUDA device; it runs twice, first to let libraries take their workspaces.
        x: its inputs.
        count: what of torch.cuda.memory_stats is told: "requested_bytes" are those that were asked for, before blocks.
    """
    device = x[0].device
    held: list[int] = []

    def told(moment: str) -> int:
        return torch.cuda.memory_stats(device)[f"{count}.all.{moment}"]

    def listener(path: str, attention: Any, step: Step, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            torch.cuda.reset_peak_memory_stats(device)
            result = method(*args)
            held.append(told("peak") - before)
            return result

        return call

    with measuring():
        module(*x)
        torch.cuda.synchronize(device)
        before = told("current")
        with listening(module, listener):
            module(*x)
    return held
