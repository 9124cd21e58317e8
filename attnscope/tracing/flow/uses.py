"""Find the softmaxes of a forward on which no result depends, and the work that is done for them alone."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from attnscope.tracing.flow.record import Flow, Node

TAKEN = frozenset({"detach", "write"})
"""Operators whose results may be used where no operator shows it."""


@dataclass(frozen=True)
class Unused:
    """Softmaxes on which no result depends, and the MACs that are done for them alone."""

    softmaxes: list[Node] = field(default_factory=list)
    macs: int = 0


def unused_among(softmaxes: Iterable[Node], flow: Flow) -> Unused:
    """Return those of some softmaxes on which no result of the forward depends.

    An operator without a tensor as its result counts as used, since Python took a number. So does `detach`, with which
    NumPy takes an array, and an operator that writes in place, since other tensors may share its memory. A forward
    without a tensor among its results uses everything.
    """
    softmaxes = list(softmaxes)
    if not softmaxes or not any(value.maker for value in flow.results):
        return Unused()
    used = {value.maker for value in flow.results if value.maker}
    used |= {node for node in flow.nodes if not node.outputs or node.name in TAKEN or node.name.endswith("_")}
    needed = _before(used)
    unused = [node for node in softmaxes if node not in needed]
    return Unused(unused, sum(node.macs for node in _before(unused) - needed))


def _before(nodes: Iterable[Node]) -> set[Node]:
    """Return these operators and all on which they depend."""
    found = {*nodes}
    queue = list(found)
    for node in queue:
        makers = {value.maker for value in node.inputs if value.maker} - found
        found |= makers
        queue += makers
    return found
