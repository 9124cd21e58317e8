"""Build the module of a Target on a device, and its seeded inputs; report a failure in one line."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from attnscope.core.dtypes import dtype_name
from attnscope.core.errors import AttnscopeError, DeviceError, UsageError, exceeds_addresses
from attnscope.profiling.building import settled
from attnscope.profiling.options import check_dtype
from attnscope.tracing.failures import ForwardError
from attnscope.tracing.isolation import Inputs
from attnscope.tracing.targets import InputSpec, Target


def built(target: Target, device: str, otherwise: str | None = None) -> nn.Module:
    """Build the module of a target on a device.

    Args:
        target: the target.
        device: the device on which it is built.
        otherwise: a second device to try if this fails.

    Raises:
        UsageError: the arguments of the target are not allowed.
        DeviceError: a tensor of the module does not fit in a 64-bit address space.
        ForwardError: the module could not be built.
    """
    try:
        with torch.device(device):
            return target.build()
    except UsageError:
        raise
    except Exception as error:
        if exceeds_addresses(error):
            raise DeviceError(
                f"{target.name} has a tensor that does not fit in a 64-bit address space; use smaller values of {{arg}}"
            ) from error
        if otherwise is not None:
            return built(target, otherwise)
        if isinstance(error, AttnscopeError):
            raise
        raise ForwardError(f"{target.name} could not be built: {type(error).__name__}: {error}") from error


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
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.get_default_dtype())

    def inputs(device: torch.device) -> Inputs:
        for spec in specs:
            check_dtype(device.type, spec.dtype or dtype_name(dtype))
        with settled(threads, seed, device):
            return (
                tuple([spec.tensor(device, dtype) for spec in specs if not spec.name]),
                {spec.name: spec.tensor(device, dtype) for spec in specs if spec.name},
            )

    return inputs
