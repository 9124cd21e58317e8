"""The same attention with another kernel, which runs beside the steps."""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from attnscope.attentions.spec import Spec
from attnscope.core.errors import DeviceError
from attnscope.profiling.building import needed_bytes, shortage
from attnscope.profiling.options import RunOptions

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from attnscope.profiling.kernels import Contenders

LONGEST_FUSED_S = 0.3
"""The fused kernel is not timed beside a forward that takes longer, unless all kernels are requested."""


def build_fused(spec: Spec, module: "nn.Module", x: "tuple[Tensor, ...]", options: RunOptions) -> "Contenders | None":
    """Build the fused kernel that is timed beside the steps; None if it is not requested or the forward is too slow."""
    if not options.measures_time or options.kernels or spec.kernel != "eager":
        return None
    from attnscope.profiling.kernels import contenders
    from attnscope.profiling.timing import seconds_of

    if seconds_of(module, x) > LONGEST_FUSED_S:
        return None
    return contenders({"sdpa": partial(build_if_it_fits, spec, x[0].device, kernel="sdpa")}, module, x)


def build_if_it_fits(spec: Spec, device: "torch.device", **changes: Any) -> "nn.Module":
    """Build the module of a Spec with another kernel, on the CPU, for a run on the device.

    Raises:
        UsageError: the attention does not have that kernel.
        DeviceError: its run needs more memory than the device has free.
    """
    import torch

    spec = replace(spec, **changes)
    short = shortage(needed_bytes(spec.plan()), device)
    if short is not None:
        raise DeviceError(f"it needs {short}")
    with torch.device("cpu"):
        return spec.build()
