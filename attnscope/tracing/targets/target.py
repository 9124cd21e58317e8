"""Describe a module that can be built, and its inputs."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

from attnscope.core.axes import Shape
from attnscope.core.dtypes import dtype_name
from attnscope.core.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import torch
    from torch import nn


MOST_DRAWN = 2**26
"""The largest number of random values that are drawn for one input."""


@dataclass(frozen=True)
class InputSpec:
    """One input tensor of a forward: its shape, its dtype, and its name if it is a keyword argument.

    `values` are nested whole numbers that broadcast to the shape, for an input on whose values the forward depends.
    """

    shape: Shape
    dtype: str | None = None
    name: str | None = None
    values: Any = None

    def __str__(self) -> str:
        spelled = "×".join(map(str, self.shape)) + (f" {self.dtype}" if self.dtype else "")
        return f"{self.name} {spelled}" if self.name else spelled

    def tensor(self, device: "torch.device", default: "torch.dtype") -> "torch.Tensor":
        """Return the tensor.

        Without values of its own, it is drawn from a standard normal distribution. Integers are random values of 0 and 1,
        and masks are True.

        Args:
            device: the device of the tensor.
            default: the dtype if this input has none.
        """
        import torch

        dtype = getattr(torch, self.dtype) if self.dtype else default
        if self.values is not None:
            return torch.tensor(self.values, dtype=dtype, device="cpu").expand(self.shape).contiguous().to(device)
        if dtype is torch.bool:
            return torch.ones(self.shape, dtype=dtype, device=device)
        if not dtype.is_floating_point and not dtype.is_complex:
            return _drawn(partial(torch.randint, 0, 2), self.shape, device).to(dtype)
        return _drawn(torch.randn, self.shape, device).to(dtype)


def _drawn(draw: "Callable[..., torch.Tensor]", shape: Shape, device: "torch.device") -> "torch.Tensor":
    """Return random values; from MOST_DRAWN on, they repeat: drawing takes ten times as long as copying."""
    import torch

    if device.type == "meta" or prod(shape) <= MOST_DRAWN:
        return draw(shape, device=device)
    values = draw((MOST_DRAWN,), device=device)
    out = torch.empty(shape, dtype=values.dtype, device=device)
    for part in out.view(-1).split(MOST_DRAWN):
        part.copy_(values[: len(part)])
    return out


@dataclass
class Target:
    """A module that can be built on a device, and its inputs if they are given or can be found."""

    name: str
    build: Callable[[], "nn.Module"]
    inputs: list[InputSpec] = field(default_factory=list)
    find_inputs: Callable[["nn.Module"], list[InputSpec]] = lambda module: []
    other_inputs: Callable[["nn.Module", list[InputSpec], BaseException], list[InputSpec]] = (
        lambda module, given, error: []
    )
    """Returns the inputs to try after the forward raised this error: one more, or another layout; empty without any."""
    notes: tuple[str, ...] = ()
    """Notes for the user about the module that is built."""

    def inputs_of(self, module: "nn.Module") -> list[InputSpec]:
        """Return the inputs that were given, or else those that the module declares.

        Raises:
            UsageError: inputs are neither given nor declared.
        """
        found = self.inputs or self.find_inputs(module) or known_inputs(module)
        if not found:
            takes = ", ".join(inspect.signature(module.forward).parameters)
            raise UsageError(
                f"{{input}} is required, since {type(module).__name__} takes {takes or 'nothing'}; "
                "use shapes such as --input 1,49,96 or --input mask=49,49:bool; for a dict or another object, "
                "wrap the module in a file: def forward(self, x): return self.net({'image': x})"
            )
        return found


def known_inputs(module: "nn.Module") -> list[InputSpec]:
    """Return the inputs that a module declares, as modules of attnscope, timm and Lightning do; empty for others."""
    spec = getattr(module, "spec", None)
    if shape := getattr(spec, "input_shape", None):
        return [InputSpec(tuple(shape))]
    config = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    if isinstance(config, dict) and (size := config.get("input_size")):
        return [InputSpec((1, *size))]
    example = getattr(module, "example_input_array", None)
    if example is not None and hasattr(example, "shape"):
        return [InputSpec(tuple(example.shape), dtype_name(example.dtype))]
    return []


def input_fix(module: "nn.Module", given: Sequence[InputSpec]) -> str:
    """Return which `--input` to add or to rename if the forward does not accept these inputs; "" if it does."""
    try:
        takes = inspect.signature(module.forward).parameters
    except (TypeError, ValueError):
        return ""
    named = [spec.name for spec in given if spec.name]
    takes_any = any(each.kind is each.VAR_KEYWORD for each in takes.values())
    by_name = [name for name, each in takes.items() if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    unknown = [] if takes_any else [name for name in named if name not in by_name]
    if unknown:
        return did_you_mean(unknown[0], [name for name in by_name if name not in named])
    in_order = [name for name, each in takes.items() if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    present = {*in_order[: len(given) - len(named)], *named}
    missing = [name for name in by_name if takes[name].default is inspect.Parameter.empty and name not in present]
    return f"add {' '.join(f'{{input}} {name}=SHAPE' for name in missing)}" if missing else ""
