"""Mutants of a source file: each replaces one piece of its text."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

COMPARISONS: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"), ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="), ast.Is: ("is", "is not"), ast.IsNot: (r"is\s+not", "is"), ast.In: ("in", "not in"),
    ast.NotIn: (r"not\s+in", "in"),
}  # fmt: skip
ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: (r"\+", "-"), ast.Sub: ("-", "+"), ast.Mult: (r"\*", "/"), ast.Div: ("/", "*"), ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"), ast.Pow: (r"\*\*", "*"), ast.BitAnd: ("&", "|"), ast.BitOr: (r"\|", "&"),
}  # fmt: skip
FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any", "floor": "ceil", "ceil": "floor"}
ORDERS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
FLOAT_CHANGES = ("* 1.1", "* 0.9")


@dataclass(frozen=True)
class Mutant:
    """One change: `source[start:end]` becomes `text`.

    `lines` are those of the changed statement, from 1. `function` is True if the statement is in a function, so that calls
    run it; an import runs all other statements.
    """

    start: int
    end: int
    text: str
    line: int
    lines: range
    function: bool

    def apply(self, source: str) -> str:
        """Return the source with the change."""
        return source[: self.start] + self.text + source[self.end :]

    def diff(self, source: str) -> str:
        """Return the changed lines before and after, without their common indentation."""
        first = source.rfind("\n", 0, self.start) + 1
        last = source.find("\n", self.end)
        before = source[first : last if last >= 0 else len(source)]
        changed = self.apply(source)
        after = changed[first : first + len(before) + len(changed) - len(source)]
        pairs = zip(before.splitlines(), after.splitlines(), strict=False)
        old, new = next(((a, b) for a, b in pairs if a != b), (before, after))
        return f"- {old.strip()}\n+ {new.strip()}"


def mutants(source: str) -> list[Mutant]:
    """Return every mutant of a source text that compiles, in the order of the text."""
    found = {}
    for mutant in _Finder(source).find():
        try:
            compile(mutant.apply(source), "<mutant>", "exec")
        except SyntaxError:
            continue
        found[mutant.start, mutant.end, mutant.text] = mutant
    return sorted(found.values(), key=lambda mutant: (mutant.start, mutant.end, mutant.text))


class _Finder:
    """A visitor of the syntax tree of a source text that finds mutants as offsets in the text."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._lines = source.splitlines(keepends=True)
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line))

    def find(self) -> Iterator[Mutant]:
        """Return the mutants of the whole module."""
        return self._statements(ast.parse(self._source).body, function=False)

    def _statements(self, body: list[ast.stmt], function: bool) -> Iterator[Mutant]:
        for statement in body:
            if _is_documentation(statement) or isinstance(statement, ast.Import | ast.ImportFrom):
                continue
            parts = list(_own_parts(statement))
            lines = self._lines_of(statement)
            for start, end, text in [*self._removals(statement), *(c for part in parts for c in self._changes(part))]:
                line = self._source.count("\n", 0, start) + 1
                yield Mutant(start, end, text, line, lines, function)
            inside = function or isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef)
            for block in _blocks(statement):
                yield from self._statements(block, inside)

    def _lines_of(self, statement: ast.stmt) -> range:
        inner = [first.lineno for block in _blocks(statement) for first in block]
        end = statement.end_lineno or statement.lineno
        return range(statement.lineno, max(statement.lineno + 1, min([end + 1, *inner])))

    def _span(self, node: ast.AST) -> tuple[int, int]:
        def offset(line: int, column: int) -> int:
            return self._starts[line - 1] + len(self._lines[line - 1].encode()[:column].decode())

        return offset(node.lineno, node.col_offset), offset(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]

    def _removals(self, statement: ast.stmt) -> Iterator[tuple[int, int, str]]:
        """Yield changes that drop a statement, make it return None or negate its condition."""
        start, end = self._span(statement)
        match statement:
            case ast.Expr() | ast.AugAssign() | ast.Raise() | ast.Delete() | ast.Assert():
                yield start, end, "pass"
            case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
                yield start, end, "pass"
            case ast.Return(value=value) if value is not None and not _is_none(value):
                yield start, end, "return None"
            case ast.Break() | ast.Continue():
                yield start, end, "pass"
            case ast.If(test=test) | ast.While(test=test):
                yield from self._negated(test)

    def _changes(self, node: ast.AST) -> Iterator[tuple[int, int, str]]:
        """Yield the changes in an expression and its subexpressions."""
        if isinstance(node, ast.JoinedStr):
            return  # Python 3.11 has no offsets for the parts of an f-string
        if isinstance(node, ast.expr):
            yield from self._change(node)
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.stmt) and not _is_strict(child):
                yield from self._changes(child)

    def _change(self, node: ast.expr) -> Iterator[tuple[int, int, str]]:
        start, end = self._span(node)
        text = self._source[start:end]
        match node:
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                for before, operator, after in zip([left, *comparators], ops, comparators, strict=False):
                    yield from self._between(before, after, COMPARISONS.get(type(operator)))
            case ast.BinOp(left=left, op=operator, right=right) if not _is_text(left) and not _is_text(right):
                yield from self._between(left, right, ARITHMETIC.get(type(operator)))
            case ast.BoolOp(op=operator, values=values):
                change = ("and", "or") if isinstance(operator, ast.And) else ("or", "and")
                for before, after in pairwise(values):
                    yield from self._between(before, after, change)
            case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
                inner = self._span(operand)
                yield start, end, f"({self._source[inner[0] : inner[1]]})"
            case ast.Constant(value=bool(value)):
                yield start, end, str(not value)
            case ast.Constant(value=int(value)):
                yield start, end, str(value + 1)
                yield start, end, f"({value - 1})"
            case ast.Constant(value=float(value)):
                for change in FLOAT_CHANGES if value else ("+ 1.0",):
                    yield start, end, f"({text} {change})"
            case ast.Call(func=ast.Name(id=name) as called) if name in FUNCTIONS:
                yield *self._span(called), FUNCTIONS[name]
            case ast.Call(func=ast.Attribute(value=ast.Name(id="math"), attr=name) as called) if name in FUNCTIONS:
                yield *self._span(called), f"math.{FUNCTIONS[name]}"
            case ast.IfExp(test=test):
                yield from self._negated(test)
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                for condition in [condition for part in node.generators for condition in part.ifs]:
                    yield from self._negated(condition)

    def _negated(self, test: ast.expr) -> Iterator[tuple[int, int, str]]:
        start, end = self._span(test)
        if not isinstance(test, ast.Compare) or len(test.ops) > 1 or isinstance(test.ops[0], ORDERS):
            yield start, end, f"(not ({self._source[start:end]}))"  # a != b is a mutant of a == b already

    def _between(
        self, before: ast.expr, after: ast.expr, change: tuple[str, str] | None
    ) -> Iterator[tuple[int, int, str]]:
        """Yield the change of the operator between two expressions."""
        if change is None:
            return
        pattern, text = change
        start, end = self._span(before)[1], self._span(after)[0]
        if pattern.isalpha() or "not" in pattern:
            pattern = rf"\b{pattern}\b"
        if found := re.search(pattern, self._source[start:end]):
            yield start + found.start(), start + found.end(), text


def _own_parts(statement: ast.stmt) -> Iterator[ast.AST]:
    """Yield the expressions of a statement, without annotations, decorators and nested statements."""
    match statement:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            yield from [*statement.args.defaults, *filter(None, statement.args.kw_defaults)]
        case ast.ClassDef():
            return
        case ast.AnnAssign(value=value):
            if value is not None:
                yield value
        case _:
            for child in ast.iter_child_nodes(statement):
                if isinstance(child, ast.match_case):
                    yield from [] if child.guard is None else [child.guard]
                elif not isinstance(child, ast.stmt | ast.ExceptHandler):
                    yield child


def _blocks(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    for name in ("body", "orelse", "finalbody"):
        if block := getattr(statement, name, None):
            yield block
    for part in [*getattr(statement, "handlers", []), *getattr(statement, "cases", [])]:
        yield part.body


def _is_documentation(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _is_strict(node: ast.AST) -> bool:
    """Return True for `strict=True` of zip: an assertion that never fails in correct code."""
    return isinstance(node, ast.keyword) and node.arg == "strict"


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
