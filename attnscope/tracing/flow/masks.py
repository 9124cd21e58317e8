"""Find the masks of an attention: what is added to its scores or fills them, and depends on no weight and no product."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod

from attnscope.ops.attention import CAUSAL_AT, MASK_AT, NATIVE_MASK_AT
from attnscope.ops.operation import argument
from attnscope.tracing.flow.pairs import FARTHEST, SOFTMAXES, Pair
from attnscope.tracing.flow.record import Node, Value
from attnscope.tracing.flow.rules import ORDERS, VIEWS

CAUSAL, MASKED, ADDED = "causal", "masked", "masked or biased"
"""What is known of a mask: each query has the keys up to its own; some keys are hidden; something constant is added."""
MASKS = (CAUSAL, MASKED, ADDED)
"""These words, the ones that say most first."""
ADDS = frozenset({"add", "add_", "sub", "sub_"})
FILLS = frozenset({"masked_fill", "masked_fill_", "where"})
PASSES = VIEWS | ORDERS | {"slice", "select", "_to_copy", "_unsafe_view", "_reshape_alias", "detach"}
"""Operators whose results have values of their first argument alone."""
TRIANGLES = frozenset({"tril", "tril_", "triu", "triu_"})
"""Operators that leave one triangle of a table."""


def mask_of_fused(node: Node) -> str | None:
    """Return what is known of the mask of a fused attention; None without one."""
    if (at := CAUSAL_AT.get(node.name)) is not None and argument(node.args, at):
        return CAUSAL
    at = MASK_AT.get(node.name, NATIVE_MASK_AT.get(node.name))
    mask = argument(node.args, at) if at is not None else None
    if not isinstance(mask, Value):
        return None
    return strongest(map(_known_of, _terms(mask))) if mask.is_real else MASKED


def mask_of_pair(pair: Pair, consumers: Mapping[Value, Sequence[Node]]) -> str | None:
    """Return what is known of the mask between q·kᵀ and its softmax; None without one."""
    if pair.first is None:
        return None
    ends = [node for node, _ in pair.softmaxes]
    made = _made_from(pair.first.out, consumers)
    return strongest(_found_before(ends, made))


def strongest(masks: Iterable[str | None]) -> str | None:
    """Return the word that says most of several masks; None without any."""
    return min(filter(None, masks), key=MASKS.index, default=None)


def _made_from(scores: Value, consumers: Mapping[Value, Sequence[Node]]) -> set[Value]:
    """Return the values that are made from scores before any softmax and any product."""
    found = {scores}
    queue = [scores]
    for value in queue:
        for node in consumers.get(value, ()):
            if node.name in SOFTMAXES or node.macs or len(found) > FARTHEST:
                continue
            new = [out for out in node.outputs if out not in found]
            found.update(new)
            queue += new
    return found


def _found_before(ends: Sequence[Node], made: set[Value]) -> Iterator[str | None]:
    """Yield what is known of each tensor that was added to scores, or has filled them, before these operators.

    Args:
        ends: the softmaxes, which may take a mask too.
        made: the scores, and all that is made from them.
    """
    seen = {value for node in ends for value in node.inputs}
    queue = [value for value in seen if value in made]
    yield from (MASKED for value in seen - made if not value.is_real)
    for value in queue:
        node = value.maker
        if node is None:
            continue
        others = [each for each in node.inputs if each not in made]
        if node.name in FILLS:
            yield from (MASKED for each in others if not each.is_real)
        elif node.name in ADDS or (node.name.startswith("baddbmm") and argument(node.args, 3) != 0):
            for each in others if node.name in ADDS else others[:1]:
                yield from map(_known_of, _terms(each))
        before = {each for each in node.inputs if each in made} - seen
        seen |= before
        queue += before


def _terms(value: Value) -> Iterator[Value]:
    """Yield the terms of a sum."""
    queue = [value]
    for each in queue:
        node = _origin(each).maker
        if node is not None and node.name in ADDS and each.is_real:
            queue += node.inputs
        else:
            yield _origin(each)


def _origin(value: Value) -> Value:
    """Return the tensor of which another one has values only, also if it was made before a submodule."""
    while True:
        if value.origin is not None:
            value = value.origin
        elif value.maker is None or value.maker.name not in PASSES:
            return value
        else:
            source = next(value.maker.inputs)
            if source.is_real != value.is_real:
                return value
            value = source


def _known_of(value: Value) -> str | None:
    """Return what is known of a term that is added to scores; None for a bias.

    A bias is learned, or a product, or a single number. A term is surely a mask if a boolean filled it, or if it is a
    triangle of a table.
    """
    if prod(value.shape) == 1:
        return None
    found, queue, seen = ADDED, [value], {value}
    for each in queue:
        node = each.maker
        if each.is_trainable or each.is_parameter or each.is_product or len(queue) > FARTHEST:
            return None
        if node is None:
            queue += [each.origin] if each.origin else []
            continue
        if node.name in FILLS | TRIANGLES and each.is_real:
            found = MASKED
        new = [source for source in node.inputs if source not in seen and source.is_real]
        seen.update(new)
        queue += new
    return found
