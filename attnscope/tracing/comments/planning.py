"""Find the shape comments of a function, and say for each which values it is about and when they exist."""

import ast
import inspect
import io
import linecache
import re
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from types import CodeType
from typing import Any

from attnscope.tracing.comments.comparing import Axes
from attnscope.tracing.comments.reading import Said, read_shapes

RESULTS = frozenset(
    "out output outputs result results res returns return becomes gives get gets after final dim dims new".split()  # noqa: SIM905
)
"""Words that name the result of a statement."""
FILLERS = frozenset(("", "and", "of", "the", "output", "both", "now", "has", "is", "形状", "shape"))
"""Words beside the names of variables before a shape."""
OPERATIONS = frozenset(
    """
    scale flatten merge join combine collapse fold unfold swap split sum mean average reduce pool pad shift roll crop resize

    normalize softmax
    """.split()  # noqa: SIM905
)
"""Words for operations on axes, before which a pair in brackets may be their arguments: `flatten (H, W)`."""
PAIR = 2
SIMPLE = ast.Assign | ast.AnnAssign | ast.AugAssign | ast.Return


@dataclass(frozen=True, eq=False)
class Watch:
    """One shape of a comment, and when to look at the values that it may be about.

    `lines` are those of its statements. `before` are the variables to look at when the first statement begins. `after` are
    those to look at before the statements in `starts` and when the last has ended, with `returns` also the returned value.
    `position` is the place of the value in a tuple of the given length; None for all values.
    `is_above` is True for a comment above its statement, which may be about a value that does not exist yet.
    `is_evidence` is True for the shape before an arrow, which gives names sizes if it fits, and is not checked.
    """

    options: tuple[Axes, ...]
    file: str
    comment: str
    comment_line: int
    lines: range
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    starts: tuple[int, ...] = ()
    returns: bool = False
    position: tuple[int, int] | None = None
    is_sure: bool = True
    is_above: bool = False
    is_evidence: bool = False
    binds: bool = False

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Return the names in the axes, in alphabetical order."""
        return tuple(sorted({name for axes in self.options for axis in axes for name in axis.names}))


@dataclass(frozen=True)
class Comment:
    """A comment; `is_alone` is True if it has a line of its own."""

    line: int
    column: int
    text: str
    is_alone: bool

    @property
    def said(self) -> tuple[Said, ...]:
        return read_shapes(self.text)


def watches(code: CodeType) -> dict[int, tuple[Watch, ...]]:
    """Return the shape comments of a function by the lines of their statements."""
    linecache.getlines(code.co_filename)
    version = linecache.cache.get(code.co_filename, ())[:2]
    return watches_in(code.co_filename, code, version)


@cache
def watches_in(file: str, code: CodeType, version: tuple[Any, ...] = ()) -> dict[int, tuple[Watch, ...]]:
    """Return the shape comments of a function in a file: functions with the same code are equal in all files.

    `version` is the size and time of the file, since an edit of its comments leaves the code as it is.
    """
    first = code.co_firstlineno
    lines = linecache.getlines(file)[first - 1 :]
    last = max([line for _, _, line in code.co_lines() if line is not None], default=first) - first + 2
    if not any("#" in line for line in lines[:last]):
        return {}
    try:
        source = inspect.getblock(lines)
        comments = _comments(source)
        if not any(comment.said for comment in comments.values()):
            return {}
        # the indentation becomes that of a block
        tree = (
            ast.parse("if True:\n" + "".join(source)) if source[0][:1].isspace() else ast.parse("\n" + "".join(source))
        )
    except (SyntaxError, tokenize.TokenError, IndentationError):
        return {}
    ast.increment_lineno(tree, -1)
    variables = frozenset((*code.co_varnames, *code.co_cellvars, *code.co_freevars))
    found: dict[int, tuple[Watch, ...]] = {}
    for watch in _Function(file, source, comments, tree, variables, first - 1).watches():
        for line in watch.lines:
            found[line] = (*found.get(line, ()), watch)
    return found


def _comments(source: list[str]) -> dict[int, Comment]:
    found = {}
    tokens = tokenize.generate_tokens(io.StringIO("".join(source)).readline)
    try:
        for token in tokens:
            if token.type == tokenize.COMMENT:
                line, column = token.start
                text = token.string.lstrip("#!").strip()
                found[line] = Comment(line, column, text, not token.line[:column].strip())
    except IndentationError:
        pass  # a comment with less indentation than the function follows it
    return found


class _Function:
    """The statements and comments of one function."""

    def __init__(
        self,
        file: str,
        source: list[str],
        comments: dict[int, Comment],
        tree: ast.Module,
        variables: frozenset[str],
        offset: int,
    ) -> None:
        self.file = file
        self.source, self.comments, self.variables, self.offset = source, comments, variables, offset
        self.tree = tree
        self.by_line: dict[int, tuple[ast.stmt, list[ast.stmt]]] = {}
        """Each statement with those of its block, by its first line."""
        for node in ast.walk(tree):
            for block in (getattr(node, field, None) for field in ("body", "orelse", "finalbody")):
                if isinstance(block, list):
                    for statement in block:
                        self.by_line[statement.lineno] = statement, block

    def watches(self) -> Iterator[Watch]:
        for node, block in self.by_line.values():
            yield from self._sources(node, block)
        for statement, _ in self.by_line.values():
            if isinstance(statement, SIMPLE):
                yield from self._beside(statement)
        for line in self.by_line:
            yield from self._above(line)
        for each in ast.walk(self.tree):
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from self._of_arguments(each)

    def _of_arguments(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Watch]:
        """Yield what the comments beside the arguments of a function say when its first statement begins."""
        first = node.body[1] if ast.get_docstring(node) is not None and len(node.body) > 1 else node.body[0]
        for line in range(node.lineno, first.lineno):
            if (comment := self.comments.get(line)) and len(comment.said) == 1 and not comment.is_alone:
                name = self._argument(comment)
                if name is not None:
                    lines = range(first.lineno, first.lineno + 1)
                    yield self._watch(comment.said[0], comment, lines, before=(name,))

    def _sources(self, node: ast.stmt, block: list[ast.stmt]) -> Iterator[Watch]:
        """Yield the shapes before the arrows of comments beside and above a statement."""
        if not isinstance(node, SIMPLE):
            return
        lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
        for line in (node.lineno - 1, *lines):
            comment = self.comments.get(line)
            if comment is None or not comment.said or (line < node.lineno and not comment.is_alone):
                continue
            first = comment.said[0]
            if first.source is not None:
                source = Said((first.source,))
                yield self._watch(source, comment, lines, before=self._before(node, block), is_evidence=True)

    def _beside(self, node: ast.stmt) -> Iterator[Watch]:
        """Yield what the comments on the lines of a statement say."""
        assert node.end_lineno is not None
        lines = range(node.lineno, node.end_lineno + 1)
        beside = [self.comments[line] for line in lines if line in self.comments]
        ends = [node.end_lineno]
        if isinstance(getattr(node, "value", None), ast.Call):
            ends.append(node.value.end_lineno)  # type: ignore[attr-defined] # the last call of a chain in parentheses
        if len(beside) == 1:
            ends.append(node.lineno)
        last = next((self.comments[end] for end in ends if end in self.comments and self.comments[end].said), None)
        for comment in beside:
            if comment is last:
                if not comment.is_alone:
                    yield from self._of_result(node, comment)
            elif (name := self._argument(comment)) is not None and len(comment.said) == 1:
                yield self._watch(comment.said[0], comment, lines, before=(name,))

    def _argument(self, comment: Comment) -> str | None:
        """Return the variable that is alone on the line of a comment."""
        match = re.fullmatch(
            r"\s*([A-Za-z_]\w*)(?:\s*:[^=]*)?(?:\s*=\s*\w+)?,?\s*", self.source[comment.line - 1][: comment.column]
        )
        return match[1] if match and match[1] in self.variables else None

    def _of_result(self, node: ast.stmt, comment: Comment) -> Iterator[Watch]:
        lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
        targets, returns = _targets(node), isinstance(node, ast.Return)
        said = comment.said
        unpacked = _unpacked(node)
        for index, each in enumerate(said):
            named = self._named(each)
            if unpacked and not named:
                if len(said) == 1:
                    yield self._watch(each, comment, lines, before=(unpacked,), binds=True)
            elif named:
                # "out: (B, N, C)" may name the result, although a variable of that name exists
                is_result = {*named} <= RESULTS
                before = () if {*named} & {*targets} else named
                after = (*named, *targets) if is_result else named
                yield self._watch(each, comment, lines, before=before, after=after, returns=returns and is_result)
            elif not self._is_of(each, node) and len(said) == 1:
                continue
            elif len(said) == 1:
                is_evidence = self._may_be_arguments(each, node)
                yield self._watch(each, comment, lines, after=targets, returns=returns, is_evidence=is_evidence)
            elif len(targets) == len(said):
                yield self._watch(each, comment, lines, after=(targets[index],))
            elif returns or len(targets) == 1:
                yield self._watch(each, comment, lines, after=targets, returns=returns, position=(index, len(said)))

    def _above(self, line: int) -> Iterator[Watch]:
        """Yield what the comments above a statement say; of those that name no variable, the last."""
        node, block = self.by_line[line]
        above = []
        while (comment := self.comments.get(line - 1)) and comment.is_alone and comment.column == node.col_offset:
            above.append(comment)
            line -= 1
        unnamed = 0
        for comment in above:
            if not comment.said or _is_code(comment.text):
                continue
            for each in comment.said:
                if named := self._named(each):
                    if isinstance(node, SIMPLE | ast.Expr):
                        lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
                        results = _targets(node) if {*named} <= RESULTS else ()
                        yield self._watch(each, comment, lines, before=named, after=(*named, *results))
                elif isinstance(node, SIMPLE) and len(comment.said) == 1:
                    unnamed += 1
                    if unnamed == 1 and self._is_of(each, node):
                        yield self._of_block(each, comment, node, block)

    def _of_block(self, each: Said, comment: Comment, node: ast.stmt, block: list[ast.stmt]) -> Watch:
        """Return what an unnamed comment above a statement says: of its result, or of the value before it.

        It may be about any statement up to the next empty line or comment, unless it names a call of the statement.
        """
        unpacked = None if each.is_result or each.label else _unpacked(node)
        place = block.index(node)
        last = node
        is_of_one = unpacked or each.label.removesuffix("()") in _words_of(node)
        rest = [] if is_of_one else block[place + 1 :]
        for statement in rest:
            if statement.lineno > (last.end_lineno or last.lineno) + 1 or not isinstance(statement, SIMPLE):
                break
            last = statement
        lines = range(node.lineno, (last.end_lineno or last.lineno) + 1)
        if unpacked:
            return self._watch(each, comment, lines, before=(unpacked,), binds=True)
        statements = block[place : block.index(last) + 1]
        targets = tuple(dict.fromkeys(name for statement in statements for name in _targets(statement)))
        return self._watch(
            each,
            comment,
            lines,
            before=() if each.is_result else self._before(node, block),
            after=targets,
            starts=tuple(statement.lineno + self.offset for statement in statements[1:]),
            returns=isinstance(last, ast.Return),
            is_above=True,
            is_evidence=self._may_be_arguments(each, node),
        )

    def _before(self, node: ast.stmt, block: list[ast.stmt]) -> tuple[str, ...]:
        """Return the variables that a statement uses and that the statement before it assigns."""
        place = block.index(node)
        names = [item.id for item in ast.walk(node) if isinstance(item, ast.Name) and item.id in self.variables]
        return tuple(dict.fromkeys((*names, *(_targets(block[place - 1]) if place else ()))))

    def _named(self, each: Said) -> tuple[str, ...]:
        """Return the variables that the words before a shape consist of."""
        words = [word for word in re.split(r"[\s,&/]+|的", each.label) if word.lower() not in FILLERS]
        return tuple(words) if words and all(word in self.variables for word in words) else ()

    def _may_be_arguments(self, each: Said, node: ast.stmt) -> bool:
        """Return whether the axes may be the arguments of an operation that a comment names, not those of its result."""
        label = each.label.removesuffix("()")
        is_word = label.lower() in OPERATIONS or label in _outermost(node)
        return is_word and not (each.is_labelled or each.is_result) and all(len(axes) <= PAIR for axes in each.options)

    def _is_of(self, each: Said, node: ast.stmt) -> bool:
        """Return whether a shape whose words name no variable is that of the result of a statement."""
        label = each.label.removesuffix("()")
        if label in _words_of(node) and label not in _outermost(node):
            return False  # a call whose result is an operand of another
        if each.is_result or not label.isascii() or not label.isidentifier():
            return "." not in label or each.is_result
        return not each.is_labelled or label.lower() in RESULTS or label in _words_of(node)

    def _watch(
        self,
        said: Said,
        comment: Comment,
        lines: range,
        *,
        before: tuple[str, ...] = (),
        after: tuple[str, ...] = (),
        **more: object,
    ) -> Watch:
        line = comment.line + self.offset
        lines = range(lines.start + self.offset, lines.stop + self.offset)
        return Watch(said.options, self.file, comment.text, line, lines, before, after, is_sure=said.is_sure, **more)  # type: ignore[arg-type]


def _is_code(text: str) -> bool:
    """Return whether a comment is a statement that is commented out."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of backslashes in the text
            tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call | ast.Return)]
    return bool(calls) and "torch.Size" not in text and not all(map(_is_word, calls))


def _is_word(node: ast.AST) -> bool:
    """Return whether a call is a word before a shape in parentheses: `output (B, N, C)`, `形状 (B, N, C)`."""
    name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
    return bool(name) and (not name.isascii() or name.lower() in RESULTS | FILLERS)


def _words_of(node: ast.stmt) -> set[str]:
    return {
        item.attr if isinstance(item, ast.Attribute) else item.id
        for item in ast.walk(node)
        if isinstance(item, ast.Attribute | ast.Name)
    }


def _outermost(node: ast.stmt) -> set[str]:
    """Return the names in the outermost call of a statement, without those of its arguments and of the calls before it."""
    value = getattr(node, "value", None)
    while isinstance(value, ast.Attribute | ast.Subscript):
        value = value.value
    if not isinstance(value, ast.Call):
        return _words_of(node)
    func = value.func
    return {func.attr} if isinstance(func, ast.Attribute) else {getattr(func, "id", "")}


def _targets(node: ast.stmt) -> tuple[str, ...]:
    """Return the variables that a statement assigns."""
    if not isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        return ()
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    names = [item for target in targets for item in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return tuple(item.id for item in names if isinstance(item, ast.Name))


def _unpacked(node: ast.stmt) -> str | None:
    """Return the variable whose shape a statement such as `B, N, C = x.shape` gives names to."""
    if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple)):
        return None
    value = node.value.func if isinstance(node.value, ast.Call) and not node.value.args else node.value
    if isinstance(value, ast.Attribute) and value.attr in ("shape", "size") and isinstance(value.value, ast.Name):
        return value.value.id
    return None
