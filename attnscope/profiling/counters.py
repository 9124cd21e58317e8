"""Count the MACs of each step independently of the plan: with fvcore, and with torch's FlopCounterMode.

fvcore's default handles miss fused attention, count elementwise work as MACs and undercount some matmuls. Each operator of
the registry therefore has a handle here, which returns its MACs and its elementwise FLOPs under separate names.
"""

import math
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from attnscope.ops import OPERATIONS, Operation
from attnscope.plan.plan import place
from attnscope.plan.step import Step
from attnscope.profiling.hooks import listening

NUMBERS = ("IntType", "FloatType")
"""The kinds of numbers in a traced graph."""


@dataclass
class Counts:
    """MACs and elementwise FLOPs of one counter by the place of each step, and the operators that it cannot count."""

    macs: dict[str, int] = field(default_factory=dict)
    other_flops: dict[str, int] = field(default_factory=dict)
    uncounted: list[str] = field(default_factory=list)


def count_with_fvcore(module: nn.Module, *inputs: Tensor) -> Counts:
    """Count with fvcore's FlopCountAnalysis, which traces one real forward.

    Raises:
        Exception: any error of fvcore or TorchScript; the caller reports the count as not available.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fvcore traces with TorchScript, which torch has deprecated
        from fvcore.nn import FlopCountAnalysis

        names: list[str] = []
        steps = nn.ModuleList()

        def listener(path: str, attention: Any, step: Step, method: Callable[..., Any]) -> Callable[..., Any]:
            names.append(place(path, step.name))
            steps.append(_StepModule(method))
            return steps[-1]

        with listening(module, listener), torch.no_grad():
            analysis = FlopCountAnalysis(_Traced(module, steps), inputs).clear_op_handles().set_op_handle(**_handles())
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
            analysis.ancestor_mode("caller")  # the MACs of a linear layer count for the step that calls it
            by_module = analysis.by_module_and_operator()
        counts = Counts(uncounted=sorted(analysis.unsupported_ops()))
    for index, name in enumerate(names):
        of_step = by_module[f"steps.{index}"]
        counts.macs[name] = sum([value for key, value in of_step.items() if key.startswith("mac:")])
        counts.other_flops[name] = sum([value for key, value in of_step.items() if key.startswith("flop:")])
    seen, total = sum(counts.macs.values()), sum(v for k, v in by_module[""].items() if k.startswith("mac:"))
    if seen != total:
        counts.macs["outside the steps"] = total - seen
    return counts


def count_with_torch(module: nn.Module, *inputs: Tensor) -> Counts:
    """Count with torch's FlopCounterMode (2 FLOPs a MAC), one for each step."""
    from torch.utils.flop_counter import FlopCounterMode

    counts = Counts()

    def listener(path: str, attention: Any, step: Step, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            with FlopCounterMode(display=False) as counter:
                result = method(*args)
            counts.macs[place(path, step.name)] = counter.get_total_flops() // 2
            return result

        return call

    with listening(module, listener), torch.no_grad():
        module(*inputs)
    return counts


def count_backward_with_torch(module: nn.Module, *inputs: Tensor, input_grad: bool) -> int:
    """Return the MACs of the whole backward, counted with torch's FlopCounterMode while it runs.

    Args:
        module: the module.
        inputs: its inputs.
        input_grad: whether the inputs need a gradient.
    """
    from torch.utils.flop_counter import FlopCounterMode

    inputs = tuple(tensor.detach().requires_grad_(input_grad) for tensor in inputs)
    with torch.enable_grad():
        result = module(*inputs)
        mapping = {torch.ops.aten.convolution_backward: _convolution_backward}
        with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
            result.backward(torch.ones_like(result))
    module.zero_grad(set_to_none=True)
    return counter.get_total_flops() // 2


def _convolution_backward(*shapes: Any, out_shape: Any) -> int:
    """Return the FLOPs of the backward of a convolution, with the weight gradient of a grouped convolution corrected.

    torch 2.14 counts the weight gradient as if each output channel depended on the input channels of all groups.
    """
    from torch.utils.flop_counter import flop_registry

    count: Callable[..., int] = flop_registry[torch.ops.aten.convolution_backward]
    (*operands, groups, (of_input, of_weight, _)) = shapes

    def flops(*mask: bool) -> int:
        return count(*operands, groups, mask, out_val=out_shape)

    return flops(of_input, False, False) + flops(False, of_weight, False) // groups


class _StepModule(nn.Module):
    """A step as a module, since fvcore reports its counts by module."""

    def __init__(self, method: Callable[..., Any]) -> None:
        super().__init__()
        self.method = method

    def forward(self, *args: Any) -> Any:
        return self.method(*args)


class _Traced(nn.Module):
    """A module, with its steps as additional submodules."""

    def __init__(self, module: nn.Module, steps: nn.ModuleList) -> None:
        super().__init__()
        self.module = module
        self.steps = steps

    def forward(self, *inputs: Tensor) -> Any:
        return self.module(*inputs)


class _Value:
    """A value of a traced graph, with the shape that the formulas of the registry read."""

    def __init__(self, shape: list[int]) -> None:
        self.shape = tuple(shape)

    def numel(self) -> int:
        return math.prod(self.shape)

    def dim(self) -> int:
        return len(self.shape)

    def element_size(self) -> int:
        return 1


def _value(value: Any) -> Any:
    """Convert a tensor of the traced graph, or a list of them, to `_Value`, and return a constant number as it is.

    Anything else is None.
    """
    kind = value.type().kind()
    if kind == "TensorType":
        sizes = value.type().sizes()
        if sizes is None:
            raise ValueError("an operator of unknown shape")
        return _Value(sizes)
    if kind == "ListType" and value.node().kind() == "prim::ListConstruct":
        return [_value(each) for each in value.node().inputs()]
    return value.toIValue() if kind in NUMBERS else None


def _handle(operation: Operation) -> Callable[[list[Any], list[Any]], Counter[str]]:
    """Return an fvcore handle that counts the MACs and the elementwise FLOPs of an operation under separate names."""

    def handle(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        if operation.macs is None and operation.flops is None:
            return Counter()
        arguments, out = [_value(each) for each in inputs], _value(outputs[0])
        if out is None or (not out.shape and not any(isinstance(each, _Value) and each.shape for each in arguments)):
            return Counter()  # scalars come from the tracer's arithmetic on sizes
        counted = {"mac": operation.macs, "flop": operation.flops}
        return Counter({f"{kind}:{operation.name}": of(arguments, out) for kind, of in counted.items() if of})

    return handle


def _handles() -> dict[str, Callable[[list[Any], list[Any]], Counter[str]]]:
    """Return a handle for each operation of the registry and for its in-place variant, by aten name."""
    return {
        f"aten::{name}{in_place}": _handle(operation)
        for name, operation in OPERATIONS.items()
        if "." not in name
        for in_place in ("", "_")
    }
