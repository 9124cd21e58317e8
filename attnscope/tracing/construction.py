"""Build the module of a Target on a device, and its seeded inputs; report a failure in one line."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from attnscope.core.dtypes import dtype_name
from attnscope.core.errors import (
    FAILURES,
    AttnscopeError,
    DeviceError,
    UsageError,
    exceeds_addresses,
    literal,
    ran_out_of_memory,
)
from attnscope.profiling.building import gigabytes, settled, shortage
from attnscope.profiling.devices import free_memory
from attnscope.profiling.options import check_dtype
from attnscope.tracing.costs import name_of_operator
from attnscope.tracing.failures import ForwardError, is_metas
from attnscope.tracing.isolation import Inputs
from attnscope.tracing.targets import InputSpec, Target
from attnscope.tracing.tree import named_parameters, tensors_of

SMALLER = "use smaller values of {arg}"
"""The fix that an error suggests if a target does not fit."""


def built(target: Target, device: str, otherwise: str | None = None) -> nn.Module:
    """Build the module of a target on a device.

    Args:
        target: the target.
        device: the device on which it is built.
        otherwise: a second device to try if meta cannot build it.

    Raises:
        UsageError: the arguments of the target are not allowed.
        DeviceError: the parameters do not fit in the memory of the device, or a tensor not in a 64-bit address space.
        ForwardError: the module could not be built.
    """
    try:
        with (
            torch.device(device),
            nullcontext() if device == "meta" else _Allocation(target.name, torch.device(device)),
        ):
            return target.build()
    except (UsageError, DeviceError):
        raise
    except FAILURES as error:
        if exceeds_addresses(error):
            raise DeviceError(
                f"{target.name} has a tensor that does not fit in a 64-bit address space; use smaller values of {{arg}}"
            ) from error
        if ran_out_of_memory(error):
            raise DeviceError(f"{target.name} does not fit in the memory of {device}; {SMALLER}") from None
        if otherwise is not None and is_metas(error):
            return built(target, otherwise)
        if isinstance(error, AttnscopeError):
            raise
        message = literal(f"{target.name} could not be built: {type(error).__name__}: {error}")
        raise ForwardError(" ".join(message.split())) from error


def parameters_short(module: nn.Module, device: torch.device) -> str | None:
    """Return `44.7 TiB, but cpu has 12.1 GiB free` if the tensors of a module do not fit on a device, else None."""
    return shortage(sum(tensor.nbytes for tensor in tensors_of(module)), device)


class _Allocation(TorchDispatchMode):
    """A mode that refuses to build a module as soon as its tensors exceed the free memory of their device.

    Most memory of a new tensor is not in use before it is written, so that the refusal comes in time.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.name, self.device, self.bytes = name, device, 0
        self.free = free_memory(device)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.free is not None and name_of_operator(func).startswith("empty") and isinstance(out, torch.Tensor):
            self.bytes += out.nbytes
            if self.bytes > self.free:
                short = f"more than the {gigabytes(self.free)} that {self.device.type} has free"
                raise DeviceError(f"{self.name} needs {short}; {SMALLER}")
        return out


def inputs_maker(
    module: nn.Module, specs: Sequence[InputSpec], threads: int, seed: int
) -> Callable[[torch.device], Inputs]:
    """Return a function that builds the inputs of a module on a device, with the same values in each call.

    Args:
        module: the module, whose dtype is the default one of the inputs.
        specs: shape, dtype and name of each input.
        threads: number of CPU threads.
        seed: random seed.
    """
    dtype = next((p.dtype for _, p in named_parameters(module) if p.is_floating_point()), torch.get_default_dtype())

    def inputs(device: torch.device) -> Inputs:
        for spec in specs:
            check_dtype(device.type, spec.dtype or dtype_name(dtype))
        with settled(threads, seed, device):
            return (
                tuple([spec.tensor(device, dtype) for spec in specs if not spec.name]),
                {spec.name: spec.tensor(device, dtype) for spec in specs if spec.name},
            )

    return inputs
