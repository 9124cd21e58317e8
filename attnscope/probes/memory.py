"""What the device's allocator held while each step ran."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from attnscope.probes.time import measuring
from attnscope.steps import Step, listening

REQUESTED = "requested_bytes.all"


def allocated_bytes(module: nn.Module, x: tuple[Tensor, ...]) -> list[int]:
    """Bytes at the fullest moment of each step that runs, beyond what was there before, by CUDA's caching allocator.

    Bytes that were asked for: the blocks in which they lie are multiples of 512 bytes, the large ones up to a MiB longer.

    Args:
        module: on a CUDA device; it runs twice, first to let libraries take their workspaces.
        x: its inputs.
    """
    device = x[0].device
    held: list[int] = []

    def listener(path: str, attention: Any, step: Step, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            torch.cuda.reset_peak_memory_stats(device)
            result = method(*args)
            held.append(torch.cuda.memory_stats(device)[f"{REQUESTED}.peak"] - before)
            return result

        return call

    with measuring():
        module(*x)
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_stats(device)[f"{REQUESTED}.current"]
        with listening(module, listener):
            module(*x)
    return held
