"""One axis of a shape comment, such as `N`, `num_patches + 1` or `(H/4)*(W/4)`, and the sizes that it allows."""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

ELLIPSIS = re.compile(r"\.\.\.?|…|\*+\s*\w*")
"""Any number of axes: `...`, `*`, `*spatial_dims`."""
UNKNOWN = re.compile(r"-1|\?|_+|None|:|any|~")
"""One axis of any size."""
OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Pow)
LARGEST_POWER = 8
MOST_WORDS = 3
"""Number of words that a name may have, such as `hidden state size`."""
ENGLISH = frozenset(
    """
    an as at be by do if in is it no of on or so to up

    we and the for not with but see max min all then are
    """.split()  # noqa: SIM905
)
"""English words, which never name axes."""
SIGNS = str.maketrans({"×": "*", "·": "*", "⋅": "*", "^": "**", "²": "**2", "³": "**3", "−": "-", "'": "ʼ", "′": "ʼ"})
"""Other spellings of operators. The prime of `H'` becomes a letter that Python allows in names."""

Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Axis:
    """One axis of a comment. `tree` is its arithmetic, None if any size is allowed."""

    text: str
    tree: ast.expr | None = None
    is_ellipsis: bool = False

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Return the names in the axis, such as `N`, `self.num_heads` or `window_size[0]`, each as often as it occurs."""
        return tuple(_names(self.tree)) if self.tree else ()

    @cached_property
    def key(self) -> str:
        """Return the expression as text. It is a name too if the comment is all that is known of the names in it."""
        return ast.unparse(self.tree) if self.tree else ""

    @property
    def number(self) -> int | None:
        """Return the size of an axis that is a number, or arithmetic of numbers such as `3*64`; None for others."""
        sizes = self.sizes({}) if self.tree is not None and not self.names else None
        return sizes.start if sizes is not None and len(sizes) == 1 else None

    @property
    def is_name(self) -> bool:
        return self.tree is not None and not isinstance(self.tree, ast.BinOp | ast.Constant)

    def sizes(self, of: Sizes) -> range | None:
        """Return the sizes that the axis may have. A division may be rounded up or down.

        Args:
            of: the sizes of names.

        Returns:
            The allowed sizes, or None if a name in it has no size.
        """
        if self.tree is None:
            return None
        if any(name not in of for name in self.names):
            return range(of[self.key], of[self.key] + 1) if self.key in of else None
        try:
            least, most = _bounds(self.tree, of)
        except (ZeroDivisionError, OverflowError):
            return None
        return range(least, most + 1)

    def solve(self, size: int, of: Sizes) -> tuple[str, int | None] | None:
        """Return the only unknown name of the axis and its size, or the whole expression if that is all that can be said.

        The size is None if the axis has `size` for no size of its name, and the result is None without unknown names.
        """
        unknown = {name for name in self.names if name not in of}
        if not unknown:
            return None
        name = unknown.pop()
        if self.is_name or unknown or _divides(self.tree):
            return self.key, size
        low, high = 0, max(size, 1) * 64  # the axis may be a fraction of the name, such as C/4
        while low < high:
            middle = (low + high) // 2
            allowed = self.sizes({**of, name: middle})
            if allowed is None or allowed.stop - 1 < size:
                low = middle + 1
            else:
                high = middle
        here, after = self.sizes({**of, name: low}), self.sizes({**of, name: low + 1})
        is_only = here == range(size, size + 1) and after is not None and size not in after
        return name, low if is_only else None


def read_axis(text: str, *, in_list: bool = True) -> Axis | None:
    """Return the axis that a text spells, or None if it spells none.

    Args:
        text: a number, name or arithmetic expression, such as `3*C`, `H//2`, `2C`, `(h d)`, `C (channels)` or `N=196`.
        in_list: True if commas separate the axes, so that the words of a name may have spaces between them.
    """
    text = text.strip().strip('`<>"').strip()
    if ELLIPSIS.fullmatch(text):
        return Axis("...", is_ellipsis=True)
    if UNKNOWN.fullmatch(text):
        return Axis(text)
    spelled = re.sub(r"^[^=]+=(?!=)", "", text) if in_list else text  # N=196
    spelled = spelled.translate(SIGNS)
    spelled = re.sub(r"^(\w)x(\w)$|^(\w+) x (\w+)$", r"\1\3*\2\4", spelled.lstrip("# "))  # kxk
    spelled = re.sub(r"(?<=[A-Za-z_])\s+\([^()]*\)$", "", spelled)  # C (channels)
    if in_list:
        words = re.findall(r"[A-Za-z_]+(?=[ ]|$)", spelled)
        if len(words) > MOST_WORDS or ENGLISH & {word.lower() for word in words[1:]}:
            return None
        spelled = re.sub(r"(?<=[A-Za-z_])[ ](?=[A-Za-z_])", " " if spelled.startswith("(") else "_", spelled)
    spelled = re.sub(r"(?<![\w.])(\d+)(?=[A-Za-z_(])", r"\1*", spelled)  # 2C
    spelled = re.sub(r"(?<=[\w)])\s+(?=[\w(])", "*", spelled.strip())  # (h d)
    spelled = re.sub(r"\)(?=\w)", ")*", spelled)
    if not re.fullmatch(r"[\w\s.+*/()\[\],-]+", spelled):
        return None
    try:
        tree = ast.parse(spelled.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError):
        return None
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name):
        return Axis(text)  # such as ceil(H / 2)
    return Axis(text, tree) if _is_arithmetic(tree) else None


def _is_arithmetic(tree: ast.expr) -> bool:
    if isinstance(tree, ast.BinOp):
        if isinstance(tree.op, ast.Pow) and not (
            isinstance(tree.right, ast.Constant) and tree.right.value in range(LARGEST_POWER)
        ):
            return False
        return isinstance(tree.op, OPERATORS) and _is_arithmetic(tree.left) and _is_arithmetic(tree.right)
    if isinstance(tree, ast.Constant):
        return type(tree.value) is int
    return _is_name(tree)


def _is_name(tree: ast.expr) -> bool:
    if isinstance(tree, ast.Subscript):
        return isinstance(tree.slice, ast.Constant) and type(tree.slice.value) is int and _is_name(tree.value)
    return isinstance(tree, ast.Name) or (isinstance(tree, ast.Attribute) and _is_name(tree.value))


def _names(tree: ast.expr) -> list[str]:
    if isinstance(tree, ast.BinOp):
        return [*_names(tree.left), *_names(tree.right)]
    return [] if isinstance(tree, ast.Constant) else [ast.unparse(tree)]


def _divides(tree: ast.expr | None) -> bool:
    return isinstance(tree, ast.BinOp) and (
        isinstance(tree.op, ast.Div | ast.FloorDiv) or _divides(tree.left) or _divides(tree.right)
    )


def _bounds(tree: ast.expr, of: Sizes) -> tuple[int, int]:
    """Return the least and the largest size of an expression."""
    if isinstance(tree, ast.Constant):
        return int(tree.value), int(tree.value)  # type: ignore[arg-type] # checked when it was read
    if not isinstance(tree, ast.BinOp):
        return of[ast.unparse(tree)], of[ast.unparse(tree)]
    (low, high), (other_low, other_high) = _bounds(tree.left, of), _bounds(tree.right, of)
    match tree.op:
        case ast.Add():
            return low + other_low, high + other_high
        case ast.Sub():
            return low - other_high, high - other_low
        case ast.Mult():
            return low * other_low, high * other_high
        case ast.Pow():
            return low**other_low, high**other_high
    return low // other_high, -(-high // other_low)
