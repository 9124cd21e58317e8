"""Count the MACs of the backward of each torch call, from the operators that its forward ran.

The backward of a matmul or a convolution has one product of the same size for each operand that needs a gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from attnscope.core.optional import sum_of
from attnscope.ops.attention import FUSED, MASK_AT
from attnscope.tracing.calls import Call
from attnscope.tracing.flow.contractions import MATMULS
from attnscope.tracing.flow.record import INPUT, Flow, Node, Value
from attnscope.tracing.flow.rules import operands

CONVOLUTIONS = frozenset({"convolution", "_convolution", "convolution_overrideable"})
PRODUCTS = MATMULS | {"linear", "addmv", "addmm_", "_addmm_activation", "addbmm"}
CUTS = frozenset({"detach", "detach_", "detach_copy"})
"""Operators whose result has no gradient."""
NATIVE = {"_native_multi_head_attention": 10, "_transformer_encoder_layer_fwd": None}
"""Operators of torch's attention modules that only run without gradients, and the index of their `need_weights`."""


@dataclass(frozen=True, slots=True)
class BackwardMacs:
    """The MACs of the backward of a call; `macs` is None if they are unknown, and `at_least` is the known part."""

    macs: int | None
    at_least: int

    def __add__(self, other: "BackwardMacs") -> "BackwardMacs":
        return BackwardMacs(sum_of([self.macs, other.macs]), self.at_least + other.at_least)


def exactly(macs: int) -> BackwardMacs:
    """Return known MACs."""
    return BackwardMacs(macs, macs)


def at_least(macs: int) -> BackwardMacs:
    """Return a lower bound of unknown MACs."""
    return BackwardMacs(None, macs)


def backward_macs(flow: Flow, calls: Sequence[Call], input_grad: bool, device: str) -> list[BackwardMacs]:
    """Count the MACs of the backward of each call, which starts at all results of the forward.

    Args:
        flow: the operators that ran.
        calls: all calls.
        input_grad: whether the inputs of the forward need a gradient.
        device: cpu, cuda, mps or meta. A count that depends on the device is unknown on meta.
    """
    needing = _needing(flow, input_grad)
    counted: dict[int, BackwardMacs] = {}
    lacking = {id(call) for call in calls if "macs" in call.unknown}
    for node in _in_backward(flow, needing):
        key = id(node.call)
        macs = at_least(0) if key in lacking else _of_node(node, needing, device)
        counted[key] = counted.get(key, exactly(0)) + macs
    return [counted.get(id(call), exactly(0)) for call in calls]


def _needing(flow: Flow, input_grad: bool) -> set[Value]:
    """Return the tensors that need a gradient."""
    needing: set[Value] = set()
    for node in flow.nodes:
        inputs = list(node.inputs)
        needing.update(
            value for value in inputs if value.is_trainable or (input_grad and value.source == INPUT and value.is_real)
        )
        if node.name not in CUTS and not needing.isdisjoint(inputs):
            needing.update(value for value in node.outputs if value.is_real)
    return needing


def _in_backward(flow: Flow, needing: set[Value]) -> list[Node]:
    """Return the operators whose backward runs: the results of the forward depend on them, and they need a gradient."""
    reached = needing & set(flow.results)
    nodes = []
    for node in reversed(flow.nodes):
        if not reached.isdisjoint(node.outputs):
            nodes.append(node)
            reached |= needing & set(node.inputs)
    return nodes


def _of_node(node: Node, needing: set[Value], device: str) -> BackwardMacs:
    """Return the MACs of the backward of an operator."""
    if node.name in NATIVE:
        return _native(node, needing)
    if node.name in FUSED:
        return _fused(node, needing, device)
    if not node.macs:
        return exactly(0)
    if node.name in PRODUCTS or node.name in CONVOLUTIONS:
        factors = node.args[:2] if node.name in CONVOLUTIONS else operands(node)
        return exactly(node.macs * sum(factor in needing for factor in factors))
    return at_least(0)


def _fused(node: Node, needing: set[Value], device: str) -> BackwardMacs:
    """Count the backward of fused attention: five products if its kernel recomputes the scores, or else four.

    Kernels for CPU and CUDA recompute them (Dao et al., arXiv 2205.14135, algorithm 4). torch computes step by step on
    other devices, and on a CPU for a bias that needs a gradient.
    """
    query, key, value = node.args[:3]
    at = MASK_AT[node.name]
    has_learned_bias = at is not None and len(node.args) > at and node.args[at] in needing
    is_plain = len(query.shape) == 4 and query.shape[-1] == value.shape[-1] and query.shape[1] == key.shape[1]
    with_scores, without = 5 * node.macs // 2, 2 * node.macs
    if not all(each in needing for each in (query, key, value)):
        return at_least(0)
    if device not in ("cpu", "cuda", "meta") or (device == "cpu" and has_learned_bias):
        return exactly(without)
    if not node.is_aligned or not is_plain or (device == "meta" and has_learned_bias):
        return at_least(without)
    return exactly(with_scores)


def _native(node: Node, needing: set[Value]) -> BackwardMacs:
    """Count the backward of torch's attention modules, which with gradients run linear layers and fused attention."""
    assert node.fused is not None
    if not all(value in needing for value in node.inputs if value.is_real):
        return at_least(0)
    at = NATIVE[node.name]
    keeps_weights = at is not None and (len(node.args) <= at or bool(node.args[at]))
    return exactly(2 * (node.macs - node.fused.macs) + (4 if keeps_weights else 5) * node.fused.macs // 2)
