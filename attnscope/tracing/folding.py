"""Fold calls into the rows of a table: by module, source line or function, with repeated blocks in one row.

A row represents all repeats of the same calls. Its `instances` are the calls of each repeat, so that costs are those of one
repeat and times are averages over all.

The table of modules has at most ROWS lines with its headings, unless the depth is given or all rows are requested. Of the
ways to fold that fit, the one that opens the most levels is taken.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, islice, pairwise
from math import gcd
from typing import TYPE_CHECKING

from attnscope.core.axes import Shape
from attnscope.core.errors import UsageError
from attnscope.core.sizes import plural
from attnscope.reports.outline import CALL, CALLS, MODULE, outline

if TYPE_CHECKING:
    from attnscope.tracing.calls import Call
    from attnscope.tracing.visits import Visit

GROUPS = {"module": "nested by module", "line": "by source line", "op": "by torch function"}
ROWS = 60
"""The largest number of lines of a table, headings included, if no depth is given and not all rows are requested."""
NAMES = 3
"""The largest number of functions in the name of a row."""
LONGEST_PERIOD = 4
"""The largest number of different blocks in a repeating sequence; Swin's plain and shifted blocks have two."""


@dataclass
class Row:
    """One row of the table. `instances` has its repeats, each a list of indices into the calls.

    `op` is the torch function of all its calls, "" if they have several. `represents` is CALL, MODULE or CALLS. `kind` is
    the class of the module whose run the row represents, and `inputs` and `outputs` are those of its first run. They are
    "" and None for a row of calls without their module.
    """

    name: str
    path: str
    instances: list[list[int]]
    op: str = ""
    kind: str = ""
    inputs: list[Shape] | None = None
    outputs: list[Shape] | None = None
    represents: str = CALLS


def check_rows(group: str, depth: int | None, everything: bool = False, top: int | None = None) -> None:
    """Check the options of the rows.

    Raises:
        UsageError: the group is unknown, the depth or the number of rows is below 1, or two options contradict each other.
    """
    if group not in GROUPS:
        raise UsageError(f"{{group}} {group} is unknown; available: {', '.join(GROUPS)}")
    if depth is not None and depth < 1:
        raise UsageError(f"{{depth}} must be at least 1 (got {depth})")
    if top is not None and top < 1:
        raise UsageError(f"{{top}} must be at least 1 (got {top})")
    for flag, value in (("depth", depth), ("top", top)):
        if everything and value is not None:
            raise UsageError(f"{{all}} and {{{flag}}} contradict each other; give one of them")


def rows_of(
    calls: "Sequence[Call]", group: str, depth: int | None, everything: bool = False, tall: bool = False
) -> list[Row]:
    """Fold calls into rows.

    Args:
        calls: all calls of a forward, in their order.
        group: a key of GROUPS.
        depth: number of module levels to show; deeper calls are summed. None shows as many levels as fit in ROWS lines.
        everything: whether all calls are shown; then only repeated modules share a row.
        tall: whether there may be more than ROWS lines, since most of them will be left out.
    """
    if group != "module":
        rows = _together(calls, line_of if group == "line" else lambda call: call.name)
        return rows if everything or tall else heaviest(rows, calls, ROWS)
    nodes = _tree(calls)
    if everything or tall:
        nodes = _fold(nodes)
        return list(_rows(nodes, depth or _height(nodes), ""))
    if depth is not None:
        return list(_rows(_fold(nodes), depth, ""))
    return _on_a_screen(nodes, calls)


def _on_a_screen(tree: "list[_Node]", calls: "Sequence[Call]") -> list[Row]:
    """Return the rows that show the most levels in ROWS lines."""
    rows: list[Row] = []
    for fold in (_repeating, _gathered):
        trees = fold(tree, calls)
        for level in range(_height(tree), 0, -1):
            for nodes in trees:
                rows = list(islice(_rows(nodes, level, ""), ROWS + 1))
                if _fit(rows):
                    return rows
    return heaviest(list(_rows(nodes, 1, "")), calls, ROWS)


def _fit(rows: Sequence[Row]) -> bool:
    return len(rows) <= ROWS and sum(1 for _ in outline(rows)) <= ROWS


def heaviest(rows: list[Row], calls: "Sequence[Call]", limit: int) -> list[Row]:
    """Return the rows with the most MACs in their order, and one row for all others, in at most `limit` lines."""
    macs = [sum(calls[index].macs for instance in row.instances for index in instance) for row in rows]
    by_macs = sorted(range(len(rows)), key=lambda at: -macs[at])
    kept = limit if len(rows) <= limit else limit - 1
    while True:
        few = [rows[at] for at in sorted(by_macs[:kept])]
        rest = [rows[at] for at in sorted(by_macs[kept:])]
        shown = [*few, rest_of(rest)] if rest else few
        lines = sum(1 for _ in outline(shown))
        if lines <= limit or kept == 0:
            return shown
        kept = max(kept - (lines - limit), 0)


def rest_of(rows: Sequence[Row]) -> Row:
    """Return one row for all calls of several rows that are left out."""
    members = sorted(index for row in rows for instance in row.instances for index in instance)
    return Row(f"… {plural(len(members), 'call')} in {plural(len(rows), 'more row')}", "", [members])


def _together(calls: "Sequence[Call]", key: "Callable[[Call], Hashable]") -> list[Row]:
    groups: dict[Hashable, list[int]] = {}
    for index, call in enumerate(calls):
        groups.setdefault(key(call), []).append(index)
    return [
        Row(functions(calls, group), _common([calls[index].path for index in group]), [group], _op(calls, group))
        for group in groups.values()
    ]


def functions(calls: "Sequence[Call]", indices: Iterable[int]) -> str:
    """Return the names of the torch functions of calls: `linear, reshape`, or `linear, reshape, permute, …`."""
    names = list(dict.fromkeys(calls[index].name for index in indices))
    return ", ".join([*names[:NAMES], *["…"] * (len(names) > NAMES)])


def _op(calls: "Sequence[Call]", group: list[int]) -> str:
    names = {calls[index].name for index in group}
    return names.pop() if len(names) == 1 else ""


def line_of(call: "Call") -> Hashable:
    """Return the source line of a call: its file and the number of the line."""
    return call.file, call.line


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
    """A run of a module with its calls and submodules, or calls. `instances` has the calls of each repeat.

    Nodes with equal signatures do the same. `is_module` is False for calls, and `op` is their torch function, "" if they
    have several. `kind` is the class of a module that ran, and "" for a module that only holds others, such as a
    ModuleList.
    """

    name: str
    signature: Hashable
    instances: list[list[int]]
    inputs: list[Shape]
    outputs: list[Shape]
    children: "list[_Node]" = field(default_factory=list)
    is_module: bool = True
    kind: str = ""
    op: str = ""


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
    return _Node(call.name, signature, [[index]], call.inputs, call.outputs, is_module=False, op=call.name)


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


def _without_macs(nodes: list[_Node], calls: "Sequence[Call]") -> list[_Node]:
    """Merge neighbours without MACs into one node, also inside each module."""
    merged: list[_Node] = []
    for works, run in groupby(nodes, lambda node: _has_macs(node, calls)):
        members = list(run)
        if works or len(members) == 1:
            merged += [replace(node, children=_without_macs(node.children, calls)) for node in members]
        else:
            merged.append(_run(members))
    return merged


def _has_macs(node: _Node, calls: "Sequence[Call]") -> bool:
    """Return whether a node has MACs, or may have some."""
    return any(calls[index].macs or "macs" in calls[index].unknown for index in node.instances[0])


def _run(nodes: list[_Node]) -> _Node:
    """Return one node for neighbours that differ, with as many instances as the module around them has."""
    times = gcd(*[len(node.instances) for node in nodes])
    parts = [_split(node.instances, times) for node in nodes]
    instances = [[index for part in each for index in part] for each in zip(*parts, strict=True)]
    name = f"… {plural(len(instances[0]), 'call')} without MACs"
    signature = tuple([node.signature for node in nodes])
    return _Node(name, signature, instances, nodes[0].inputs, nodes[-1].outputs, is_module=False)


def _split(instances: list[list[int]], times: int) -> list[list[int]]:
    """Return the calls of the instances in as many equal parts."""
    size = len(instances) // times
    return [[index for part in instances[at * size : (at + 1) * size] for index in part] for at in range(times)]


def _gather(nodes: list[_Node], calls: "Sequence[Call]", key: "Callable[[Call], Hashable]") -> list[_Node]:
    """Merge all runs of a submodule and all calls with the same key within a module, wherever they are."""
    alike: dict[Hashable, list[_Node]] = {}
    for node in nodes:
        each = (True, node.name) if node.is_module else (False, key(calls[node.instances[0][0]]))
        alike.setdefault(each, []).append(node)
    gathered = [
        _merged(same) if len({node.signature for node in same}) == 1 else _sum(same, calls) for same in alike.values()
    ]
    return _fold([replace(node, children=_gather(node.children, calls, key)) for node in gathered])


def _sum(nodes: list[_Node], calls: "Sequence[Call]") -> _Node:
    """Return one node for nodes that differ, with the calls of all of them as one instance."""
    first = nodes[0]
    members = [index for node in nodes for instance in node.instances for index in instance]
    return replace(
        first,
        name=first.name if first.is_module else functions(calls, members),
        signature=tuple([node.signature for node in nodes]),
        instances=[members],
        outputs=nodes[-1].outputs,
        children=[child for node in nodes for child in node.children],
        op="" if first.is_module else _op(calls, members),
    )


def _repeating(tree: list[_Node], calls: "Sequence[Call]") -> list[list[_Node]]:
    """Fold in ways that keep the order of the calls, from the one with the most rows to that with the fewest."""
    loops = _fold_loops(tree)
    return [_fold(tree), loops, _without_macs(loops, calls)]


def _gathered(tree: list[_Node], calls: "Sequence[Call]") -> list[list[_Node]]:
    """Fold in ways for calls that do not repeat: by source line, and by torch function."""
    keys: tuple[Callable[[Call], Hashable], ...] = (line_of, lambda call: call.name)
    return [_without_macs(_gather(tree, calls, key), calls) for key in keys]


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
            yield Row(node.name, at, node.instances, node.op, represents=CALL if node.op else CALLS)
        elif depth > 1 or len(node.instances[0]) == 1:
            yield from _rows(node.children, depth - 1, path)
        else:
            yield Row(node.name, path, node.instances, node.op, node.kind, node.inputs, node.outputs, MODULE)
