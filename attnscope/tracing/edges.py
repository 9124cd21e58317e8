"""Follow the tensors from row to row: the edges of the graph of a forward."""

from collections.abc import Sequence

from attnscope.reports.report import Edge
from attnscope.tracing.calls import Call
from attnscope.tracing.flow.record import INPUT, Flow
from attnscope.tracing.folding import Row


def edges_of(rows: Sequence[Row], calls: Sequence[Call], flow: Flow) -> list[Edge]:
    """Return an edge for each two rows of which one takes a tensor that the other made, in the order of the calls.

    A tensor that operators outside of all rows made counts as made by the rows that these operators depend on.
    """
    row_of = {
        id(calls[index]): number for number, row in enumerate(rows) for instance in row.instances for index in instance
    }
    makers: dict[int, dict[int | None, None]] = {}
    edges: dict[Edge, None] = {}
    for node in flow.nodes:
        sources: dict[int | None, None] = {}
        for value in node.inputs:
            if value.maker is not None:
                sources.update(makers.get(id(value.maker), {}))
            elif value.source == INPUT:
                sources[None] = None
        row = row_of.get(id(node.call))
        makers[id(node)] = sources if row is None else {row: None}
        if row is not None:
            edges.update({Edge(source, row): None for source in sources if source != row})
    return list(edges)
