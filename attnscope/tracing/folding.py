"""Fold calls into the rows of a table: by module, source line or function, with repeated blocks in one row.

A row represents all repeats of the same calls. Its `instances` are the calls of each repeat, so that costs are those of one
repeat and times are averages over all.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from attnscope.core.axes import Shape
from attnscope.core.errors import UsageError

if TYPE_CHECKING:
    from attnscope.tracing.calls import Call
    from attnscope.tracing.visits import Visit

GROUPS = {"module": "nested by module", "line": "by source line", "op": "by torch function"}
ROWS = 60
"""The largest number of rows if no depth is given."""
LONGEST_PERIOD = 4
"""The largest number of different blocks in a repeating sequence; Swin's plain and shifted blocks have two."""


@dataclass
class Row:
    """One row of the table. `instances` has its repeats, each a list of indices into the calls.

    `op` is the torch function of all its calls, "" if they have several. `kind` is the class of the module whose run the
    row represents, and `inputs` and `outputs` are those of its first run. They are "" and None for a row of calls without
    their module.
    """

    name: str
    path: str
    instances: list[list[int]]
    op: str = ""
    kind: str = ""
    inputs: list[Shape] | None = None
    outputs: list[Shape] | None = None


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
    tree = _tree(calls)
    if depth is not None:
        return list(_rows(_fold(tree), depth, ""))
    for simpler in (_fold, _fold_loops, _gather):
        nodes = simpler(tree)
        for level in range(_height(nodes), 0, -1):
            rows = list(islice(_rows(nodes, level, ""), ROWS + 1))
            if len(rows) <= ROWS:
                return rows
    return list(_rows(nodes, 1, ""))


def _together(calls: "Sequence[Call]", key: "Callable[[Call], Hashable]", name: "Callable[[Call], str]") -> list[Row]:
    groups: dict[Hashable, list[int]] = {}
    for index, call in enumerate(calls):
        groups.setdefault(key(call), []).append(index)
    return [
        Row(name(calls[group[0]]), _common([calls[index].path for index in group]), [group], _op(calls, group))
        for group in groups.values()
    ]


def _op(calls: "Sequence[Call]", group: list[int]) -> str:
    return calls[group[0]].name if len(group) == 1 else ""


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


@dataclass
class _Node:
    """A run of a module with its calls and submodules, or a single call. `instances` has the calls of each repeat.

    Nodes with equal signatures do the same. `is_module` is False for a call. `kind` is the class of a module that ran,
    and "" for a module that only holds others, such as a ModuleList.
    """

    name: str
    signature: Hashable
    instances: list[list[int]]
    inputs: list[Shape]
    outputs: list[Shape]
    children: "list[_Node]" = field(default_factory=list)
    is_module: bool = True
    kind: str = ""


def _tree(calls: "Sequence[Call]") -> list[_Node]:
    """Return the nodes of the whole module: one for each call of its own, and one for each run of a submodule."""
    places: dict[Visit, list[_Place]] = {}
    numbers: dict[Hashable, int] = {}

    def number(*signature: Hashable) -> int:
        """Return a small number for each signature, since comparing long ones takes quadratic time."""
        return numbers.setdefault(signature, len(numbers))

    def below(indices: list[int], depth: int) -> list[_Node]:
        nodes: list[_Node] = []
        for place, run in groupby(indices, lambda index: _place(calls[index].visit, depth, places)):
            members = list(run)
            if place is None:
                nodes += [_of_call(calls[i], i, number(*calls[i].signature)) for i in members]
            else:
                nodes.append(_of_module(place, members, below(members, depth + 1), number))
        return nodes

    return below(list(range(len(calls))), 0)


_Place = tuple[str, "Visit | None"]
"""A name in the tree of modules, and the run of the module there; None for a module that only holds others."""


def _place(visit: "Visit | None", depth: int, places: "dict[Visit, list[_Place]]") -> _Place | None:
    """Return the place at some depth above the calls of a run; None if these calls are at this depth themselves."""
    if visit is None:
        return None
    if visit not in places:
        missing = []
        around: Visit | None = visit
        while around is not None and around not in places:
            missing.append(around)
            around = around.caller
        for each in reversed(missing):
            own: list[_Place] = [(name, None) for name in each.names[:-1]]
            own += [(name, each) for name in each.names[-1:]]
            places[each] = (places[each.caller] if each.caller else []) + own
    return places[visit][depth] if depth < len(places[visit]) else None


def _of_call(call: "Call", index: int, signature: int) -> _Node:
    return _Node(call.name, signature, [[index]], call.inputs, call.outputs, is_module=False)


def _of_module(place: _Place, members: list[int], children: list[_Node], number: Callable[..., int]) -> _Node:
    name, visit = place
    inputs = visit.inputs if visit else children[0].inputs
    outputs = visit.outputs if visit else children[-1].outputs
    # in a list that calls one item at a time, the items differ in their names alone
    names = [child.is_module and child.name for child in children] if visit or len(children) > 1 else []
    kind = visit.kind if visit else ""
    signature = number(
        kind, tuple(inputs), tuple(outputs), tuple(names), tuple([child.signature for child in children])
    )
    return _Node(name, signature, [members], inputs, outputs, children, kind=kind)


def _height(nodes: list[_Node]) -> int:
    """Return the number of levels of nodes."""
    return 1 + max([_height(node.children) for node in nodes], default=0) if nodes else 1


def _fold(nodes: list[_Node], longest: int = LONGEST_PERIOD, with_calls: bool = False) -> list[_Node]:
    """Merge modules that repeat one after another into one node, also inside each of them.

    Args:
        nodes: the nodes of one level.
        longest: the largest number of nodes in a repeating sequence.
        with_calls: whether a sequence may have calls too, as in the body of a loop.
    """
    folded = _folded(_folded(nodes, longest, with_calls), longest, with_calls, renamed=False)
    return [replace(node, children=_fold(node.children, longest, with_calls)) for node in folded]


def _folded(nodes: list[_Node], longest: int, with_calls: bool, renamed: bool = True) -> list[_Node]:
    folded: list[_Node] = []
    at = 0
    while at < len(nodes):
        period, times = _repeats(nodes, at, longest, with_calls, renamed)
        for offset in range(period):
            same = nodes[at + offset : at + period * times : period]
            folded.append(_merged(same) if times > 1 else same[0])
        at += period * times
    return folded


def _fold_loops(nodes: list[_Node]) -> list[_Node]:
    """Merge repeating sequences of modules and calls, as the body of a loop, into one row for each of its parts."""
    return _fold(nodes, ROWS, with_calls=True)


def _gather(nodes: list[_Node]) -> list[_Node]:
    """Merge all runs of a submodule and all calls of a function within a module, wherever they are."""
    alike: dict[Hashable, list[_Node]] = {}
    for node in nodes:
        alike.setdefault((node.is_module, node.name), []).append(node)
    gathered = [_merged(same) if len({node.signature for node in same}) == 1 else _sum(same) for same in alike.values()]
    return _fold([replace(node, children=_gather(node.children)) for node in gathered])


def _sum(nodes: list[_Node]) -> _Node:
    """Return one node for nodes that differ, with the calls of all of them as one instance."""
    first = nodes[0]
    members = [index for node in nodes for instance in node.instances for index in instance]
    children = [child for node in nodes for child in node.children]
    signature = tuple([node.signature for node in nodes])
    return replace(first, signature=signature, instances=[members], outputs=nodes[-1].outputs, children=children)


def _repeats(nodes: list[_Node], at: int, longest: int, with_calls: bool, renamed: bool) -> tuple[int, int]:
    """Return the number of nodes in the repeating sequence that begins at a position, and the number of its repeats.

    A repeat has either the same modules as the one before, or modules with new names if `renamed` allows it. So a loop over
    two equal modules a and b has a row for each.
    """
    best = (1, 1)
    for period in range(1, longest + 1):
        if at + period >= len(nodes) or not (with_calls or nodes[at + period - 1].is_module):
            break
        names = {node.name for node in nodes[at : at + period]}
        is_same = nodes[at].name == nodes[at + period].name
        length = period
        # node by node, since a slice of a long sequence that does not repeat would take quadratic time
        while at + length < len(nodes):
            node, before = nodes[at + length], nodes[at + length - period]
            if before.signature != node.signature or not (with_calls or node.is_module):
                break
            if is_same != (before.name == node.name) and node.is_module:
                break
            if node.is_module and not is_same and (not renamed or node.name in names):
                break
            names.add(node.name)
            length += 1
        times = length // period
        if times > 1 and period * times > best[0] * best[1]:
            best = period, times
    return best


def _merged(nodes: list[_Node]) -> _Node:
    """Merge equal nodes into one."""
    children = [_merged(list(twins)) for twins in zip(*(node.children for node in nodes), strict=True)]
    instances = [instance for node in nodes for instance in node.instances]
    names = list(dict.fromkeys(node.name for node in nodes))
    name = names[0] if len(names) == 1 else _name_of_all(names)
    return replace(nodes[0], name=name, instances=instances, children=children)


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


def _rows(nodes: list[_Node], depth: int, at: str) -> Iterator[Row]:
    for node in nodes:
        path = f"{at}.{node.name}".lstrip(".")
        if not node.is_module:
            yield Row(node.name, at, node.instances, op=node.name)
        elif depth > 1 or len(node.instances[0]) == 1:
            yield from _rows(node.children, depth - 1, path)
        else:
            yield Row(node.name, path, node.instances, kind=node.kind, inputs=node.inputs, outputs=node.outputs)
