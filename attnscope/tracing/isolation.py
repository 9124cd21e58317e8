"""Isolate a third-party module: find its device, copy it to another one, and restore its state after a run."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from attnscope.core.dtypes import dtype_name
from attnscope.profiling.options import check_dtype
from attnscope.tracing.calls import ForwardFailedError

Inputs = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a forward."""


def tensors_of(module: nn.Module) -> list[Tensor]:
    """Return the parameters and buffers of a module."""
    return [*module.parameters(), *module.buffers()]


def home(module: nn.Module) -> torch.device:
    """Return the device of a module's first tensor; the CPU if it has no tensors."""
    first = next(iter(tensors_of(module)), None)
    return first.device if first is not None else torch.device("cpu")


def moved(module: nn.Module, device: torch.device) -> nn.Module:
    """Return the module itself if it is already on the device, else a copy on the device.

    Raises:
        DeviceError: the device does not support the dtype of the module.
        ForwardFailedError: the module cannot be copied.
    """
    homes = {tensor.device for tensor in tensors_of(module)}
    if all(home.type == device.type and device.index in (None, home.index) for home in homes) and homes:
        return module
    for tensor in tensors_of(module):
        check_dtype(device.type, dtype_name(tensor.dtype))
    return _shadow(module) if device.type == "meta" else copy.deepcopy(module).to(device)


def _shadow(module: nn.Module) -> nn.Module:
    """Copy a module to the meta device without copying its data: each tensor is replaced by one on meta."""
    memo: dict[int, Any] = {}
    for tensor in tensors_of(module):
        shadow = tensor.detach().to("meta")
        memo[id(tensor)] = nn.Parameter(shadow, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else shadow
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:
        raise ForwardFailedError(error, "", "copying it", [], None, None) from error


def moved_inputs(inputs: Inputs, device: torch.device) -> Inputs:
    """Return the inputs on a device. A tensor that appears twice remains one tensor.

    Raises:
        DeviceError: the device does not support the dtype of an input.
    """
    seen: dict[int, Tensor] = {}  # forwards test whether `query is key`

    def moved(value: Any) -> Any:
        if isinstance(value, Tensor):
            check_dtype(device.type, dtype_name(value.dtype))
            return seen.setdefault(id(value), value.detach().to(device))
        if isinstance(value, tuple | list):
            return type(value)(map(moved, value)) if type(value) in (tuple, list) else value
        if isinstance(value, dict):
            return {key: moved(item) for key, item in value.items()}
        return value

    args, keywords = inputs
    return moved(args), moved(dict(keywords))


@contextmanager
def left_as_it_was(module: nn.Module) -> Iterator[None]:
    """Set evaluation mode within a `with` block; restore the mode and the buffers of the module at the end."""
    modes = [(submodule, submodule.training) for submodule in module.modules()]
    buffers = [
        (owner, name, buffer, buffer.detach().clone())
        for owner in module.modules()
        for name, buffer in owner._buffers.items()
        if buffer is not None
    ]
    module.eval()
    try:
        yield
    finally:
        for submodule, training in modes:
            submodule.training = training
        with torch.no_grad():
            for owner, name, buffer, values in buffers:
                if buffer.device.type != "meta" and not torch.equal(buffer, values):
                    buffer.copy_(values)
                owner._buffers[name] = buffer
