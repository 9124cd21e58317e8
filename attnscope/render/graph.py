"""The graph of a traced module as Mermaid or DOT: a node for each row, in boxes of modules, and the flow of tensors."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from attnscope.core.axes import spell
from attnscope.core.text import visible
from attnscope.render import words
from attnscope.render.trace import Line, lines_of
from attnscope.reports.report import Edge, TraceReport

INDENT = "  "
INPUT = "input"
MERMAID_CODES = {character: f"#{ord(character)};" for character in '"#&<>`\\'}
"""Characters that end a label or have a meaning inside it, and their codes."""


@dataclass(frozen=True)
class Syntax:
    """The way in which a language of graphs writes its parts.

    Args:
        head, foot: the first and the last lines.
        node: returns the line of a node from its name and the lines of its label.
        box: returns the first line of a box from its name and the lines of its label.
        end: the last line of a box.
        edge: returns the line of an edge from the names of two nodes.
    """

    head: tuple[str, ...]
    foot: tuple[str, ...]
    node: Callable[[str, list[str]], str]
    box: Callable[[str, list[str]], str]
    end: str
    edge: Callable[[str, str], str]


def _mermaid(label: list[str]) -> str:
    escaped = ["".join(MERMAID_CODES.get(character, character) for character in visible(line)) for line in label]
    return f'"{"<br/>".join(escaped)}"'


def _dot(label: list[str]) -> str:
    return '"' + "\\n".join(re.sub(r'(["\\])', r"\\\1", visible(line)) for line in label) + '"'


MERMAID = Syntax(
    head=("flowchart TD",),
    foot=(),
    node=lambda name, label: f"{name}[{_mermaid(label)}]",
    box=lambda name, label: f"subgraph {name}[{_mermaid(label)}]",
    end="end",
    edge=lambda source, target: f"{source} --> {target}",
)
DOT = Syntax(
    head=("digraph {", f"{INDENT}node [shape=box]"),
    foot=("}",),
    node=lambda name, label: f"{name} [label={_dot(label)}]",
    box=lambda name, label: f"subgraph cluster_{name} {{ label={_dot(label)}",
    end="}",
    edge=lambda source, target: f"{source} -> {target}",
)
SYNTAXES = {"mermaid": MERMAID, "dot": DOT}


def graph_of(report: TraceReport, form: str) -> str:
    """Return the rows of a report and the tensors between them as a graph.

    Args:
        report: the report of a traced module.
        form: a key of SYNTAXES.
    """
    syntax = SYNTAXES[form]
    edges = [syntax.edge(*_ends(edge)) for edge in report.edges]
    takes_input = any(edge.source is None for edge in report.edges)
    inputs = [syntax.node(INPUT, [INPUT, *report.spec["inputs"]])] if takes_input else []
    body = [f"{INDENT}{line}" for line in (*inputs, *_nodes(report, syntax), *edges)]
    return "\n".join([*syntax.head, *body, *syntax.foot]) + "\n"


def _nodes(report: TraceReport, syntax: Syntax) -> Iterator[str]:
    """Yield the lines of all nodes, each in the boxes of the headings above it.

    A row without edges passes its input on unchanged, such as dropout in evaluation mode, and has no node.
    """
    linked = {end for edge in report.edges for end in (edge.source, edge.target)}
    boxes, rows, opened = 0, 0, 0
    for line in lines_of(report):
        while opened > line.level:
            opened -= 1
            yield INDENT * opened + syntax.end
        if line.row is None:
            yield INDENT * opened + syntax.box(f"module{boxes}", _label(line))
            boxes, opened = boxes + 1, opened + 1
        else:
            if rows in linked or not linked:
                yield INDENT * opened + syntax.node(_name(rows), _label(line))
            rows += 1
    while opened:
        opened -= 1
        yield INDENT * opened + syntax.end


def _label(line: Line) -> list[str]:
    """Return the name with the class, the shapes, and the MACs and parameters of all instances."""
    counts = line.counts
    shapes = [] if line.row is None else [" → ".join(filter(None, (_spell(counts.inputs), _spell(counts.outputs))))]
    macs = None if counts.macs is None else counts.times * counts.macs
    figures = [f"{words.metric(macs)} MACs"] if macs != 0 else []
    figures += [f"{words.metric(counts.new_params)} params"] if counts.new_params else []
    return [line.label.strip(), *filter(None, shapes), *filter(None, [", ".join(figures)])]


def _spell(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join(map(spell, shapes[:2])) + (", …" if len(shapes) > 2 else "")


def _name(row: int) -> str:
    return f"row{row}"


def _ends(edge: Edge) -> tuple[str, str]:
    return INPUT if edge.source is None else _name(edge.source), _name(edge.target)
