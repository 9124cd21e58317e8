"""Calls as the rows of a table: grouped by module, source line or function; repeated blocks are one row.

A row stands for the same call in each of its repeats: `instances` has the calls of each, so that costs are those of one
and times can be averaged over all.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from attnscope.core.errors import UsageError

if TYPE_CHECKING:
    from attnscope.tracing.calls import Call

GROUPS = {"module": "as the modules stand in each other", "line": "by source line", "op": "by torch function"}
ROWS = 60
"""Without a depth, modules are opened as deep as this many rows allow."""
LONGEST_PERIOD = 4
"""Blocks that repeat in turns, such as Swin's plain and shifted ones, are recognised up to this many."""


@dataclass
class Row:
    """One row: `instances` are its repeats, each a list of indices into the calls."""

    name: str
    path: str
    instances: list[list[int]]

    def module(self, calls: "Sequence[Call]") -> str:
        """The class of the module that its calls stand in, where that is one."""
        classes = {calls[index].module for index in self.instances[0]}
        return classes.pop() if len(classes) == 1 else ""

    def visited(self, calls: "Sequence[Call]") -> str:
        """The path of the module that its first instance is, where it is one."""
        depth = len(self.path.split("."))
        return ".".join(calls[self.instances[0][0]].path.split(".")[:depth]) if self.path else ""


def check_rows(group: str, depth: int | None) -> None:
    """Whether rows can be made so.

    Raises:
        UsageError: an unknown group, or a depth below 1.
    """
    if group not in GROUPS:
        raise UsageError(f"{{group}} {group} is unknown; there is: {', '.join(GROUPS)}")
    if depth is not None and depth < 1:
        raise UsageError(f"{{depth}} {depth} is too small; the smallest is 1")


def rows_of(calls: "Sequence[Call]", group: str, depth: int | None) -> list[Row]:
    """The calls in rows.

    Args:
        calls: all of a forward's, in their order.
        group: a key of GROUPS.
        depth: how many levels of modules are opened; what is deeper is summed. None: as deep as ROWS rows allow.

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
    """The module that all of these stand in."""
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
    """A module with what runs in it, or one call. `instances` are the calls of each repeat that it stands for."""

    name: str
    signature: Hashable
    instances: list[list[int]]
    children: "list[_Node]" = field(default_factory=list)
    module: bool = True


def _tree(calls: "Sequence[Call]", indices: list[int], at: tuple[str, ...]) -> list[_Node]:
    """What runs in the module `at`: its own calls, and a node for each visit to a module inside."""
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
    """Modules that repeat in a row as one, and so inside each of them."""
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
    """How many nodes from here on repeat, and how often."""
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
    """Alike nodes as one."""
    children = [_merged(list(twins)) for twins in zip(*(node.children for node in nodes), strict=True)]
    instances = [instance for node in nodes for instance in node.instances]
    name = nodes[0].name if len({node.name for node in nodes}) == 1 else _name_of_all([node.name for node in nodes])
    return _Node(name, nodes[0].signature, instances, children, nodes[0].module)


def _name_of_all(names: list[str]) -> str:
    """`0–11`, `0,2…16`, `a…z`."""
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
