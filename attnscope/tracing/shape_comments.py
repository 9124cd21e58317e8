"""Check shape comments, such as `x = self.qkv(x)  # (B, N, 3*C)`, against the shapes of the values at run time.

A comment is read as a shape only if it can hardly mean anything else; all others are ignored. A name in it that is a local
variable with an integer value has this size. Any other name keeps its first size for one call of the function.
"""

import ast
import io
import linecache
import math
import re
import textwrap
import tokenize
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from functools import cache
from types import CodeType, FrameType
from typing import Any

from attnscope.core.axes import Shape, spell
from attnscope.reports.report import WrongShape

AXIS_NAME = re.compile(r"[A-Za-z](?:\d|_|')?|[a-z]{1,2}[A-Z]{1,2}|[A-Z][a-z]|[hH][wW]|dim|dims")
"""Pattern of names that look like an axis: `B`, `n`, `B_`, `nW`, `Wh`, `hw`."""
NO_AXES = frozenset("xyzijkuvqkv")
"""Letters that name coordinates or tensors, not axes, if a comment has no other names."""
ENGLISH = frozenset("an as at be by do if in is it no of on or so to up we and the for not with".split())  # noqa: SIM905
"""English words, which never name axes."""
ELLIPSIS = "..."


@dataclass(frozen=True)
class Axis:
    """One axis of a comment: a number times names, divided by a number times names. An ellipsis is any number of axes."""

    text: str
    number: int = 1
    names: tuple[str, ...] = ()
    over: tuple[str, ...] = ()
    under: int = 1

    @property
    def is_ellipsis(self) -> bool:
        return self.text == ELLIPSIS


def read_shape(comment: str) -> tuple[Axis, ...] | None:
    """Return the axes of a comment, or None if it is not a shape.

    Supported are `(B, N, C)`, `[B, N, C]`, `B, N, C`, `b h n d` and `B x N x C`. An axis may also be `3*C`, `H/2`,
    `C // heads`, `2C`, `(h d)` or an ellipsis. A name or `->` may precede the shape, and text may follow a shape in
    brackets.
    """
    text = comment.strip().rstrip(".").strip()
    if "->" in text or "→" in text:
        text = re.split("->|→", text)[-1].strip()
    text = re.sub(r"^(?:shape|[A-Za-z_]\w*)\s*[:=]\s*", "", text)
    bracketed = re.fullmatch(r"[(\[](.*)[)\]]", text)
    explained = re.match(r"[(\[]([^()\[\]]*,[^()\[\]]*)[)\]](?=[\s,:;])", text)
    if bracketed and "," in bracketed[1] and _balanced(bracketed[1]):
        parts = _split(bracketed[1])
    elif explained:
        parts = _split(explained[1])
    elif "," in text and not bracketed:
        parts = _split(text)
    elif re.fullmatch(r"\S+(?: [x×] \S+)+", text):
        parts = re.split(" [x×] ", text)
    else:
        inner = bracketed[1] if bracketed and _balanced(bracketed[1]) else text
        parts = re.findall(r"\([^()]*\)|\S+", inner) if " " in inner else []
        if not all(re.fullmatch(r"\([^()]*\)|\.\.\.|…|[\w'*/]+", part) for part in parts):
            return None
    if len(parts) < 2:
        return None
    axes = [_axis(part) for part in parts]
    read = [axis for axis in axes if axis is not None]
    if len(read) < len(axes) or not _is_shape(read):
        return None
    return tuple(read)


def mismatch(
    axes: tuple[Axis, ...], shape: Shape, local_sizes: Mapping[str, int], bound: MutableMapping[str, int]
) -> str | None:
    """Compare a shape with the axes of a comment.

    Args:
        axes: the axes of the comment.
        shape: the shape of the value.
        local_sizes: local variables with integer values.
        bound: sizes of other names in this call of the function; new names are added.

    Returns:
        None if they agree, else the shape that the comment says: `(B, N, C) = 1×49×96`.
    """
    written = f"({', '.join(axis.text for axis in axes)})"
    dots = [index for index, axis in enumerate(axes) if axis.is_ellipsis]
    if len(dots) > 1:
        return None
    if dots:
        after = len(axes) - dots[0] - 1
        if len(shape) < len(axes) - 1:
            return f"{written}, at least {len(axes) - 1} axes"
        axes = axes[: dots[0]] + axes[len(axes) - after :]
        shape = shape[: dots[0]] + shape[len(shape) - after :]
    if len(axes) != len(shape):
        sizes = [bound.get(axis.text, local_sizes.get(axis.text)) for axis in axes]
        expected = f" = {spell(tuple(size for size in sizes if size is not None))}" if None not in sizes else ""
        return f"{written}{expected}, {len(axes)} axes"
    fresh: dict[str, int] = {}
    for axis, size in zip(axes, shape, strict=True):
        sizes_of = {**fresh, **bound, **local_sizes}
        if not _agrees(axis, size, sizes_of, fresh):
            expected = "×".join(str(value) if (value := _value(each, sizes_of)) is not None else "?" for each in axes)
            return f"{written} = {expected}"
    bound.update(fresh)
    return None


class CommentCheck:
    """A trace function (see `sys.settrace`) that checks the shape comments of the running code against its values."""

    def __init__(self, is_users: Any, is_tensor: Any) -> None:
        self.is_users, self.is_tensor = is_users, is_tensor
        self.checked: set[tuple[str, int]] = set()
        self.wrong: dict[tuple[str, int], WrongShape] = {}

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        if not self.is_users(frame.f_code):
            return None
        statements = commented(frame.f_code)
        return _FrameCheck(self, statements).event if statements else None

    def check(self, statement: "Statement", value: Any, frame: FrameType, bound: dict[str, int]) -> None:
        """Check the value of a statement against its comment."""
        tensors = [item for item in (value if isinstance(value, tuple | list) else [value]) if self.is_tensor(item)]
        shapes = {tuple(tensor.shape) for tensor in tensors}
        if len(shapes) != 1:
            return  # not a tensor, or tensors of different shapes
        shape = shapes.pop()
        local_sizes = {name: size for name, size in frame.f_locals.items() if type(size) is int}
        if not any(axis.names or axis.over for axis in statement.axes) and len(shape) != len(statement.axes):
            return  # a comment of numbers only, of another length, may mean something else
        place = (frame.f_code.co_filename, statement.comment_line)
        says = mismatch(statement.axes, shape, local_sizes, bound)
        self.checked.add(place)
        if says is not None:
            self.wrong.setdefault(place, WrongShape(*place, statement.comment, says, shape))


class _FrameCheck:
    """The check of one call of a function, from line to line."""

    def __init__(self, check: CommentCheck, statements: dict[int, "Statement"]) -> None:
        self.check, self.statements = check, statements
        self.pending: Statement | None = None
        self.bound: dict[str, int] = {}

    def event(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "exception":
            self.pending = None
        elif event == "return":
            if self.pending is not None:
                value = arg if self.pending.returns else self.values_of(self.pending, frame)
                self.check.check(self.pending, value, frame, self.bound)
        elif event == "line":
            here = self.statements.get(frame.f_lineno)
            if self.pending is not None and here is not self.pending and not self.pending.returns:
                self.check.check(self.pending, self.values_of(self.pending, frame), frame, self.bound)
                self.pending = None
            self.pending = here or self.pending
        return self.event

    def values_of(self, statement: "Statement", frame: FrameType) -> Any:
        return [frame.f_locals.get(name) for name in statement.targets]


@dataclass(frozen=True)
class Statement:
    """A statement with a shape comment. `targets` are the names that it assigns, `returns` is True for a return."""

    axes: tuple[Axis, ...]
    comment: str
    comment_line: int
    targets: tuple[str, ...]
    returns: bool


@cache
def commented(code: CodeType) -> dict[int, Statement]:
    """Return the statements of a function that have a shape comment, by each of their lines."""
    first = code.co_firstlineno
    last = max([line for _, _, line in code.co_lines() if line is not None], default=first)
    lines = linecache.getlines(code.co_filename)[first - 1 : last]
    if not any("#" in line for line in lines):
        return {}
    source = textwrap.dedent("".join(lines))
    try:
        comments = {
            token.start[0]: token.string.lstrip("#").strip()
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type == tokenize.COMMENT
        }
        shapes = {line: axes for line, comment in comments.items() if (axes := read_shape(comment)) is not None}
        tree = ast.parse(source) if shapes else ast.Module([], [])
    except (SyntaxError, tokenize.TokenError, IndentationError):
        return {}
    found: dict[int, Statement] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.Return) and node.end_lineno in shapes:
            line = node.end_lineno
            returns = isinstance(node, ast.Return)
            targets = () if returns else _targets(node)
            if returns or targets:
                statement = Statement(shapes[line], comments[line], line + first - 1, targets, returns)
                found |= dict.fromkeys(range(node.lineno + first - 1, line + first), statement)
    return found


def _targets(node: Any) -> tuple[str, ...]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    names = [item for target in targets for item in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return tuple(item.id for item in names if isinstance(item, ast.Name))


def _split(text: str) -> list[str]:
    """Split at the commas outside of brackets."""
    parts, depth, start = [], 0, 0
    for index, letter in enumerate(text):
        depth += letter in "(["
        depth -= letter in ")]"
        if letter == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    return [part.strip() for part in [*parts, text[start:]] if part.strip()]


def _balanced(text: str) -> bool:
    depth = 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if depth < 0:
            return False
    return depth == 0


def _axis(text: str) -> Axis | None:
    """Parse one axis, such as `3*C`, `H//2`, `2C`, `(h d)` or `nW*B`; None if it is not one."""
    text = text.strip()
    if text in (ELLIPSIS, "…"):
        return Axis(ELLIPSIS)
    above, slash, below = re.sub(r"\s*//?\s*", "/", text).partition("/")
    over: tuple[str, ...] = ()
    under = 1
    if slash:
        divisor = _product(below)
        if divisor is None:
            return None
        under, over = divisor
    product = _product(above)
    return None if product is None else Axis(text, product[0], product[1], over, under)


def _product(text: str) -> tuple[int, tuple[str, ...]] | None:
    text = text.strip()
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1]
    number, names = 1, []
    for word in re.split(r"\s*[*·×]\s*|\s+", text.strip()):
        stuck = re.fullmatch(r"(\d+)?([A-Za-z_]\w*'?)?", word)
        if stuck is None or not word:
            return None
        number *= int(stuck[1] or 1)
        if stuck[2]:
            names.append(stuck[2])
    return number, tuple(names)


def _is_shape(axes: list[Axis]) -> bool:
    """Return whether axes look like a shape: most of their names look like axes, and they are not coordinates."""
    names = [name for axis in axes for name in (*axis.names, *axis.over)]
    if not names:
        return len(axes) > 2 or any(axis.number > 9 for axis in axes)
    if set(names) <= NO_AXES and not any(axis.is_ellipsis or axis.number > 1 for axis in axes):
        return False
    short = [name for name in names if AXIS_NAME.fullmatch(name)]
    words = [name for name in names if not AXIS_NAME.fullmatch(name) and "_" not in name]
    return (
        bool(short) and len(words) <= len(short) and all(word.islower() for word in words) and not ENGLISH & set(words)
    )


def _value(axis: Axis, sizes: Mapping[str, int]) -> int | None:
    """Return the size of an axis, or None if a name in it has no size."""
    if axis.is_ellipsis or any(name not in sizes for name in (*axis.names, *axis.over)):
        return None
    above = axis.number * math.prod(sizes[name] for name in axis.names)
    below = axis.under * math.prod(sizes[name] for name in axis.over)
    return above // below if below else None


def _agrees(axis: Axis, size: int, sizes: Mapping[str, int], fresh: MutableMapping[str, int]) -> bool:
    """Return whether a size may be that of an axis. If exactly one name in it has no size yet, add its size to `fresh`."""
    unknown = {name for name in (*axis.names, *axis.over) if name not in sizes}
    if not unknown:
        above = axis.number * math.prod(sizes[name] for name in axis.names)
        below = axis.under * math.prod(sizes[name] for name in axis.over)
        return below == 0 or size in (above // below, -(-above // below))  # rounded down or up
    if len(unknown) > 1 or axis.over or axis.under > 1:
        return True  # too many unknowns to decide
    name, power = unknown.copy().pop(), sum(name in unknown for name in axis.names)
    factor = axis.number * math.prod(sizes[other] for other in axis.names if other in sizes)
    if factor == 0 or size % factor:
        return factor == 0 and size == 0
    root = round((size // factor) ** (1 / power))
    if root**power != size // factor:
        return False
    fresh[name] = root
    return True
