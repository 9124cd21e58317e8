"""Fold calls into the rows of a table: by module, source line or function, with repeated blocks in one row.

A row represents all repeats of the same calls. Its `instances` are the calls of each repeat, so that costs are those of one
repeat and times are averages over all.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from attnscope.core.errors import UsageError

if TYPE_CHECKING:
    from attnscope.tracing.calls import Call

GROUPS = {"module": "nested by module", "line": "by source line", "op": "by torch function"}
ROWS = 60
"""The largest number of rows if no depth is given."""
LONGEST_PERIOD = 4
"""The largest number of different blocks in a repeating sequence; Swin's plain and shifted blocks have two."""


@dataclass
class Row:
    """One row of the table. `instances` has its repeats, each a list of indices into the calls."""

    name: str
    path: str
    instances: list[list[int]]

    def module(self, calls: "Sequence[Call]") -> str:
        """Return the class of the module that makes its calls; "" if several do."""
        classes = {calls[index].module for index in self.instances[0]}
        return classes.pop() if len(classes) == 1 else ""

    def visited(self, calls: "Sequence[Call]") -> str:
        """Return the path of the module that its first instance represents; "" if the row does not have a path."""
        depth = len(self.path.split("."))
        return ".".join(calls[self.instances[0][0]].path.split(".")[:depth]) if self.path else ""


def check_rows(group: str, depth: int | None) -> None:
    """Check the options of the rows.

    Raises:
        UsageError: the group is unknown, or the depth is below 1.
    """
    if group not in GROUPS:
        raise UsageError(f"{{group}} {group} is unknown; available: {', '.join(GROUPS)}")
    if depth is not None and depth < 1:
        raise UsageError(f"{{depth}} must be at least 1 (got {depth})")


def rows_of(calls: "Sequence[Call]", group: str, depth: int | None) -> list[Row]:
    """Fold calls into rows.

    Args:
        calls: all calls of a forward, in their order.
        group: a key of GROUPS.
        depth: number of module levels to show; deeper calls are summed. None shows as many levels as fit in ROWS rows.
    """
    if group == "line":
        return _together(calls, lambda call: (call.file, call.line), _line_name)
    if group == "op":
        return _together(calls, lambda call: call.name, lambda call: call.name)
    tree = _fold(_tree(calls, list(range(len(calls))), ()))
    if depth is not None:
        return list(_rows(tree, calls, depth, ""))
    deepest = max([len(_parts(call)) for call in calls], default=0) + 1
    opened = [list(_rows(tree, calls, level, "")) for level in range(1, deepest + 1)]
    return next((rows for rows in reversed(opened) if len(rows) <= ROWS), opened[0])


def _together(calls: "Sequence[Call]", key: "Callable[[Call], Hashable]", name: "Callable[[Call], str]") -> list[Row]:
    groups: dict[Hashable, list[int]] = {}
    for index, call in enumerate(calls):
        groups.setdefault(key(call), []).append(index)
    return [
        Row(name(calls[group[0]]), _common([calls[index].path for index in group]), [group])
        for group in groups.values()
    ]


def _line_name(call: "Call") -> str:
    return f"{Path(call.file).name}:{call.line}" if call.file else "outside your code"


def _common(paths: Sequence[str]) -> str:
    """Return the path of the innermost module that contains all of these paths."""
    shortest = min(paths, key=len).split(".")
    for length in range(len(shortest), 0, -1):
        head = ".".join(shortest[:length])
        if all(path == head or path.startswith(f"{head}.") for path in paths):
            return head
    return ""


def _parts(call: "Call") -> tuple[str, ...]:
    return tuple(call.path.split(".")) if call.path else ()


@dataclass
class _Node:
    """A module with its calls and submodules, or a single call. `instances` has the calls of each repeat."""

    name: str
    signature: Hashable
    instances: list[list[int]]
    children: "list[_Node]" = field(default_factory=list)
    module: bool = True


def _tree(calls: "Sequence[Call]", indices: list[int], at: tuple[str, ...]) -> list[_Node]:
    """Return the nodes of the module at a path: one for each of its own calls, and one for each run of a submodule."""
    nodes: list[_Node] = []

    def inside(index: int) -> str | None:
        parts = _parts(calls[index])
        return parts[len(at)] if len(parts) > len(at) else None

    for name, visit in groupby(indices, inside):
        members = list(visit)
        if name is None:
            nodes += [_Node(calls[i].name, _signature(calls[i]), [[i]], module=False) for i in members]
        else:
            children = _tree(calls, members, (*at, name))
            signature = tuple([(child.module and child.name, child.signature) for child in children])
            nodes.append(_Node(name, hash(signature), [members], children))
    return nodes


def _signature(call: "Call") -> Hashable:
    return call.name, call.module, tuple(call.inputs), tuple(call.outputs), call.macs, call.other_flops, call.params


def _fold(nodes: list[_Node]) -> list[_Node]:
    """Merge modules that repeat one after another into one node, also inside each of them."""
    folded: list[_Node] = []
    at = 0
    while at < len(nodes):
        period, times = _repeats(nodes, at)
        for offset in range(period):
            same = nodes[at + offset : at + period * times : period]
            folded.append(_merged(same) if times > 1 else same[0])
        at += period * times
    for node in folded:
        node.children = _fold(node.children)
    return folded


def _repeats(nodes: list[_Node], at: int) -> tuple[int, int]:
    """Return the number of nodes in the repeating sequence that begins at a position, and the number of its repeats."""
    best = (1, 1)
    for period in range(1, LONGEST_PERIOD + 1):
        first = [node.signature for node in nodes[at : at + period]]
        if not all(node.module for node in nodes[at : at + period]):
            break
        times = 1
        while [node.signature for node in nodes[at + times * period : at + (times + 1) * period]] == first:
            if not all(node.module for node in nodes[at + times * period : at + (times + 1) * period]):
                break
            times += 1
        if times > 1 and period * times > best[0] * best[1]:
            best = period, times
    return best


def _merged(nodes: list[_Node]) -> _Node:
    """Merge equal nodes into one."""
    children = [_merged(list(twins)) for twins in zip(*(node.children for node in nodes), strict=True)]
    instances = [instance for node in nodes for instance in node.instances]
    name = nodes[0].name if len({node.name for node in nodes}) == 1 else _name_of_all([node.name for node in nodes])
    return _Node(name, nodes[0].signature, instances, children, nodes[0].module)


def _name_of_all(names: list[str]) -> str:
    """Return one name for several nodes: `0–11`, `0,2…16` or `a…z`."""
    if all(name.isdigit() for name in names):
        numbers = list(map(int, names))
        steps = {after - before for before, after in pairwise(numbers)}
        if steps == {1}:
            return f"{numbers[0]}–{numbers[-1]}"
        if len(names) == 2:
            return f"{names[0]},{names[1]}"
        if len(steps) == 1:
            return f"{numbers[0]},{numbers[1]}…{numbers[-1]}"
    return f"{names[0]}…{names[-1]}"


def _rows(nodes: list[_Node], calls: "Sequence[Call]", depth: int, at: str) -> Iterator[Row]:
    for node in nodes:
        path = f"{at}.{node.name}".lstrip(".")
        if not node.module:
            yield Row(node.name, at, node.instances)
        elif depth > 1 or len(node.instances[0]) == 1:
            yield from _rows(node.children, calls, depth - 1, path)
        else:
            yield Row(node.name, path, node.instances)
