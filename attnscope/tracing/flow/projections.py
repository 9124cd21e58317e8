"""Find the projections of an attention: the products with weights that make its queries, keys, values and output."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attnscope.tracing.flow.record import Node, Value
from attnscope.tracing.flow.rules import operands

SUMS = frozenset({"add", "add_"})
FARTHEST = 60
"""The largest number of operators between a projection and the attention that are searched."""


@dataclass(frozen=True)
class Layer:
    """An attention with its projections.

    Args:
        dim: channels of an input token; those of a query if queries are not projected.
        out_dim: channels of an output token; those of all heads if the output is not projected.
        macs: MACs of the attention and its projections.
        nodes: the projections.
    """

    dim: int
    out_dim: int
    macs: int
    nodes: tuple[Node, ...] = ()


def layer_of(
    inputs: Sequence[Value], results: Sequence[Value], consumers: Mapping[Value, Sequence[Node]], inner: int, macs: int
) -> Layer:
    """Return an attention with the projections before its queries, keys and values, and after its results.

    Args:
        inputs: the query, key and value of each part of the attention.
        results: the result of each part.
        consumers: the operators that take each tensor.
        inner: channels of all heads.
        macs: MACs of the attention without projections.
    """
    before = [_before(value) for value in inputs]
    after = projections_after(results, consumers, inputs)
    query = before[0]
    nodes = tuple(dict.fromkeys([node for found in (*before, after) for node in found]))
    return Layer(
        dim=channels(data_of(query[0]), query[0]) if query else inner,
        out_dim=channels(after[0].outputs[0], after[0]) if after else inner,
        macs=macs + sum(node.macs for node in nodes),
        nodes=nodes,
    )


def _before(value: Value) -> list[Node]:
    """Return the nearest products with a weight from which a tensor is made."""
    return [each.maker for each in _upstream([value]) if each.maker is not None and is_projection(each.maker)]


def _upstream(values: Iterable[Value]) -> Iterator[Value]:
    """Yield tensors, and those from which they are made without a product."""
    queue = [*values]
    seen = {*queue}
    for each in queue:
        if len(seen) > FARTHEST:
            return
        yield each
        if each.maker is not None and not each.maker.macs:
            new = [before for before in each.maker.inputs if not before.is_weight and before not in seen]
            seen.update(new)
            queue += new


def projections_after(
    values: Iterable[Value], consumers: Mapping[Value, Sequence[Node]], inputs: Iterable[Value]
) -> list[Node]:
    """Return the nearest products with a weight that take these results: one, or one for each part of a loop.

    What follows a residual connection is not of the attention any more.

    Args:
        values: the results of the attention.
        consumers: the operators that take each tensor.
        inputs: its queries, keys and values.
    """
    around = {*_upstream(data_of(node) for value in inputs for node in _before(value))}
    found = [_after(value, consumers, around) for value in values]
    return list(dict.fromkeys([node for node in found if node is not None]))


def _after(value: Value, consumers: Mapping[Value, Sequence[Node]], around: set[Value]) -> Node | None:
    """Return the nearest product with a weight that takes this result, before it is added to what is around."""
    queue = [value]
    seen = {value}
    for each in queue:
        for node in consumers.get(each, ()):
            if is_projection(node):
                return node
            is_residual = node.name in SUMS and any(before in around for before in node.inputs)
            if node.macs or is_residual or len(seen) > FARTHEST:
                continue
            new = [out for out in node.outputs if out not in seen]
            seen.update(new)
            queue += new
    return None


def is_projection(node: Node) -> bool:
    """Return whether an operator multiplies data by a weight."""
    factors = _factors(node)
    is_product = None not in factors and node.macs > 0 and node.fused is None
    return is_product and any(value.is_weight for value in factors)


def data_of(node: Node) -> Value:
    """Return the factor of a projection that is not the weight; the first one of tokens that are learned too."""
    first, second = _factors(node)
    return second if first.is_weight and not second.is_weight else first


def _factors(node: Node) -> Sequence[Any]:
    """Return the two factors of a matmul or of a convolution; None for one that is missing."""
    return node.args[:2] if "conv" in node.name else operands(node)


def channels(value: Value, node: Node) -> int:
    """Return the number of channels of the argument or the result of a projection."""
    return value.shape[1 if "conv" in node.name else -1]
