"""Find the tensors whose last axis surely counts channels, since weights sum over their tokens as well."""

from collections import defaultdict
from collections.abc import Iterator

from attnscope.tracing.flow.axes import Root
from attnscope.tracing.flow.projections import data_of, is_projection
from attnscope.tracing.flow.record import Flow, Node, Value

SEQUENCE = 2
"""Number of axes of tokens and channels, without a batch axis."""
COPIES = frozenset({"expand", "repeat"})
"""Operators that give each image its learned tokens."""
PARTS = frozenset({"slice", "cat", "pad", "gather"})
"""Origins of axes that have positions of another one."""


def channels_last(flow: Flow) -> frozenset[Value]:
    """Return the inputs and learned tokens of which weights sum over both axes, in a flow whose axes are known.

    One of both weights mixes tokens, and the other one projects channels. The axes of each alone do not show which:
    then tokens come before channels, as in nearly all modules (Tolstikhin et al., arXiv 2105.01601).
    """
    axes = _last_axes(flow)
    if not axes:
        return frozenset()
    summed: dict[Value, set[int]] = defaultdict(set)
    for node in flow.history:
        for root in _summed_by(node):
            if root in axes:
                value, place = axes[root]
                summed[value].add(place)
    return frozenset(value for value, places in summed.items() if len(places) == SEQUENCE)


def _last_axes(flow: Flow) -> dict[Root, tuple[Value, int]]:
    """Return the last two axes of each input or table of sequences, with their places."""
    begun = [*flow.inputs, *flow.first_inputs]
    begun += [value for node in flow.history if node.name in COPIES for value in node.inputs if value.maker is None]
    return {
        value.axes[place][0].root: (value, place)
        for value in begun
        if len(value.shape) == len(value.axes) == SEQUENCE + 1 and value.is_real
        for place in (-2, -1)
        if value.axes[place]
    }


def _summed_by(node: Node) -> Iterator[Root]:
    """Yield the axis over which a weight sums, and those of which it has the positions."""
    if not is_projection(node):
        return
    data = data_of(node)
    axis = data.axes[1 if "conv" in node.name else -1] if len(data.axes) > 1 else ()
    queue = [atom.root for atom in axis] if len(axis) == 1 else []
    for root in queue:
        yield root
        if root.how in PARTS:
            queue += [atom.root for atom in root.origin]
