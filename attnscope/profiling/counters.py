"""Independent counts of a module's MACs, step by step: fvcore with handles of our own, and torch's FlopCounterMode.

fvcore's default handles miss fused attention, mix elementwise work into the MACs and undercount some matmuls, so each
operator that we know has a handle here, which returns its MACs and its elementwise FLOPs under separate names.
"""

import math
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from attnscope.plan.plan import place
from attnscope.plan.step import ELEMENTWISE_FLOPS, Step
from attnscope.profiling.hooks import listening


@dataclass
class Counts:
    """What one counter saw: MACs and elementwise FLOPs by the place of each step, and what it could not count."""

    macs: dict[str, int] = field(default_factory=dict)
    other_flops: dict[str, int] = field(default_factory=dict)
    uncounted: list[str] = field(default_factory=list)


def count_with_fvcore(module: nn.Module, *inputs: Tensor) -> Counts:
    """Count with fvcore's FlopCountAnalysis, which traces one real forward.

    Raises:
        Exception: whatever fvcore or TorchScript cannot do here; the caller shows it as "not available".
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
            analysis = FlopCountAnalysis(_Traced(module, steps), inputs).clear_op_handles().set_op_handle(**_HANDLES)
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
            analysis.ancestor_mode("caller")  # a step counts what its linear layers do
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
    """MACs of the real backward as torch's FlopCounterMode counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    inputs = tuple(tensor.detach().requires_grad_(input_grad) for tensor in inputs)
    with torch.enable_grad():
        result = module(*inputs)
        with FlopCounterMode(display=False) as counter:
            result.backward(torch.ones_like(result))
    module.zero_grad(set_to_none=True)
    return counter.get_total_flops() // 2


class _StepModule(nn.Module):
    """A step dressed as a module, since fvcore tells its counts by module."""

    def __init__(self, method: Callable[..., Any]) -> None:
        super().__init__()
        self.method = method

    def forward(self, *args: Any) -> Any:
        return self.method(*args)


class _Traced(nn.Module):
    """A module, and its steps as modules beside it."""

    def __init__(self, module: nn.Module, steps: nn.ModuleList) -> None:
        super().__init__()
        self.module = module
        self.steps = steps

    def forward(self, *inputs: Tensor) -> Any:
        return self.module(*inputs)


def _shape(value: Any) -> list[int]:
    sizes: list[int] | None = value.type().sizes()
    if sizes is None:
        raise ValueError("an operator of unknown shape")
    return sizes


def _linear(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    made = math.prod(_shape(outputs[0]))
    bias = 0 if inputs[2].type().kind() == "NoneType" else ELEMENTWISE_FLOPS["bias"] * made
    return Counter({"mac:linear": made * _shape(inputs[1])[-1], "flop:bias": bias})


def _matmul(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    return Counter({"mac:matmul": math.prod(_shape(outputs[0])) * _shape(inputs[0])[-1]})


def _fused_attention(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    *batch, queries, width = _shape(inputs[0])
    pairs = math.prod(batch) * queries * _shape(inputs[1])[-2]
    each = ELEMENTWISE_FLOPS["scale"] + ELEMENTWISE_FLOPS["softmax"]
    return Counter({"mac:attend": pairs * (width + _shape(inputs[2])[-1]), "flop:attend": pairs * each})


def _elementwise(kind: str) -> Callable[[list[Any], list[Any]], Counter[str]]:
    def handle(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        shape = _shape(outputs[0])
        # a number without axes is the tracer's arithmetic on sizes
        return Counter({f"flop:{kind}": ELEMENTWISE_FLOPS[kind] * math.prod(shape)} if shape else {})

    return handle


def _free(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Views, copies and whole-number arithmetic on sizes: no FLOPs by convention."""
    return Counter()


def _convolution(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    made = math.prod(_shape(outputs[0]))
    bias = 0 if inputs[2].type().kind() == "NoneType" else ELEMENTWISE_FLOPS["bias"] * made
    return Counter({"mac:convolution": made * math.prod(_shape(inputs[1])[1:]), "flop:bias": bias})


def _mean(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    return Counter({"flop:mean": ELEMENTWISE_FLOPS["mean"] * math.prod(_shape(inputs[0]))})


def _length(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    return Counter({"flop:normalize": 2 * math.prod(_shape(inputs[0]))})  # squares and their sum; the division is apart


def _division(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    return Counter({"flop:division": math.prod(_shape(outputs[0]))} if _shape(outputs[0]) else {})


_FREE = (
    "unflatten pad repeat neg sub rsub clamp clamp_min exp expand_as expand select cat repeat_interleave split chunk "
    "permute contiguous"
)
"""Views, copies, whole-number arithmetic on sizes, and a few operations on as many numbers as there are heads or tokens."""

_HANDLES = {
    "aten::linear": _linear,
    "aten::matmul": _matmul,
    "aten::bmm": _matmul,
    "aten::scaled_dot_product_attention": _fused_attention,
    "aten::softmax": _elementwise("softmax"),
    "aten::mul": _elementwise("scale"),
    "aten::mul_": _elementwise("scale"),
    "aten::add": _elementwise("bias"),
    "aten::_convolution": _convolution,
    "aten::layer_norm": _elementwise("layer_norm"),
    "aten::gelu": _elementwise("gelu"),
    "aten::relu": _elementwise("relu"),
    "aten::relu_": _elementwise("relu"),
    "aten::sigmoid": _elementwise("sigmoid"),
    "aten::linalg_vector_norm": _length,
    "aten::div": _division,
    "aten::mean": _mean,
    **{f"aten::{name}": _free for name in _FREE.split()},
}
