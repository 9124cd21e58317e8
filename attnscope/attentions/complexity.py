"""Complexity of an attention by its paper's formula, compared with global attention on the same tokens.

The formulas of global attention and of attention in windows are from Liu et al., arXiv 2103.14030, equations 1 and 2.

The cost of an attention is a polynomial in its number of tokens, of degree two at most. `growth` derives it from the
closed form that the audit compares with the steps. A crossover is then solved in integers instead of read off a chart.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

from attnscope.core.axes import spell
from attnscope.core.formula import Expression, symbol
from attnscope.core.sizes import AXES, Sides


@dataclass(frozen=True)
class Term:
    """A complexity Ω: its name, and the MACs of one layer for one image as an expression."""

    name: str
    cost: Expression

    @property
    def formula(self) -> str:
        """Return the cost as a formula: `4hwC² + 2(hw)²C`."""
        return str(self.cost)

    @property
    def values(self) -> str:
        """Return the values of its variables: `hw = 3136, C = 96`."""
        return ", ".join(letter.words for letter in self.cost.symbols)

    @property
    def macs(self) -> int:
        """Return the cost as a number of MACs."""
        return self.cost.value

    def of_batch(self, batch: int) -> "Term":
        """Return the cost of a batch, `b(4hwC² + 2(hw)²C)`; the factor b is left out for a batch size of 1."""
        return self if batch == 1 else Term(self.name, symbol("b", batch) * self.cost)


@dataclass(frozen=True)
class Complexity:
    """The cost of an attention and that of global attention on the same tokens.

    Args:
        batch: batch size.
        own: cost of this attention by its paper's formula.
        reference: cost of global attention; equal to `own` for global attention itself.
        saving: reason why one of them needs fewer MACs, as a phrase.
        supposed: cost to compare with if `own` is the reference.
    """

    batch: int
    own: Term
    reference: Term
    saving: str
    supposed: Term | None = None

    @property
    def terms(self) -> tuple[Term, ...]:
        """Return the formulas to print for the batch: the reference, then the formula compared with it, if any."""
        compared = self.supposed if self.own == self.reference else self.own
        return tuple(term.of_batch(self.batch) for term in (self.reference, compared) if term)

    @property
    def own_macs(self) -> int:
        """Return the MACs of this attention for the batch."""
        return self.batch * self.own.macs

    @property
    def reference_macs(self) -> int:
        """Return the MACs of global attention for the batch."""
        return self.batch * self.reference.macs

    @property
    def ratio(self) -> float:
        """Return the ratio of the MACs of the first formula to those of the last."""
        return self.terms[0].macs / self.terms[-1].macs


WINDOWED, GRID = "Ω(W-MSA)", "Ω(grid)"
"""Names of the formulas of attention in windows whose tokens are neighbours, or at a distance."""


def global_attention(tokens: int, dim: int, kv_dim: int | None = None, letters: str = "hw") -> Term:
    """Return Ω(MSA): hw tokens of dimension C attend to all tokens.

    Keys and values have dimension G if heads share them. `letters` is the name of the number of tokens.
    """
    hw, (C, G) = symbol(letters, tokens), widths(dim, kv_dim)
    return Term("Ω(MSA)", projections(hw, C, G) + 2 * hw**2 * C)


def windowed_attention(
    tokens: int,
    dim: int,
    window: Sides | int,
    padding: int = 0,
    kv_dim: int | None = None,
    name: str = WINDOWED,
    letters: str = "hw",
) -> Term:
    """Return Ω(W-MSA): the cost of global attention if each token attends to M² keys.

    Args:
        tokens: number of tokens of the image, hw; HW includes the padding.
        dim: embedding dimension, C.
        window: sides of a window, or its number of tokens if the sides are unknown.
        padding: number of padding tokens.
        kv_dim: dimension of keys and of values, G.
        name: name of the formula.
        letters: name of the number of tokens.
    """
    padded, (C, G) = padded_tokens((tokens,), (tokens + padding,), letters), widths(dim, kv_dim)
    return Term(name, projections(padded, C, G) + 2 * window_keys(window) * padded * C)


def widths(dim: int, kv_dim: int | None) -> tuple[Expression, Expression]:
    """Return the variables for the dimension of a token and of a key: C and G, or C twice if they are equal."""
    C = symbol("C", dim)
    return C, C if kv_dim in (None, dim) else symbol("G", kv_dim or dim)


def window_keys(*windows: Sides | int) -> Expression:
    """Return the keys of a query in a window, with one value for each window (one for each stage).

    They are M², and PM² in a volume, whose windows have P frames.
    """
    sides = [(window,) if isinstance(window, int) else window for window in windows]
    name = "PM²" if len(sides[0]) == len(AXES) else "M²"
    return symbol(name, *map(math.prod, sides), spelled=tuple(map(spell, sides)))


def padded_tokens(tokens: tuple[int, ...], padded: tuple[int, ...], letters: str = "hw") -> Expression:
    """Return the number of tokens of attention in windows: HW with padding, hw without."""
    return symbol(letters, *tokens) if tokens == padded else symbol(letters.upper(), *padded, note="with padding")


def projections(hw: Expression, C: Expression, G: Expression) -> Expression:
    """Return the MACs of the projections of q, k, v and the output."""
    return 2 * hw * C**2 + 2 * hw * G * C


MLP_RATIO = 4
"""MLP hidden size as a multiple of the embedding dimension, in ViT and in Swin."""


@dataclass(frozen=True)
class Growth:
    """Growth of the MACs of one layer with N tokens: constant + linear·N + quadratic·N²."""

    constant: int
    linear: int
    quadratic: int

    def __call__(self, tokens: int) -> int:
        return self.constant + self.linear * tokens + self.quadratic * tokens**2

    def with_mlp(self, dim: int) -> "Growth":
        """Return the growth of a whole block: the layer and its MLP, 8C² for each token."""
        return replace(self, linear=self.linear + mlp(1, dim))

    @property
    def balance(self) -> Fraction | None:
        """Return the number of tokens above which the quadratic term dominates, or None without a quadratic term.

        For global attention it is hw = 2C.
        """
        return Fraction(self.linear, self.quadratic) if self.quadratic else None

    def multiple_of(self, other: "Growth") -> Fraction | None:
        """Return the ratio of this growth to another one, or None if it depends on the number of tokens."""
        mine, others = ((g.constant, g.linear, g.quadratic) for g in (self, other))
        ratio = Fraction(self.linear, other.linear) if other.linear else None
        return ratio if ratio is not None and all(m == ratio * o for m, o in zip(mine, others, strict=True)) else None


def mlp(tokens: int, dim: int) -> int:
    """Return the MACs of the two linear layers of a block's MLP: 8hwC²."""
    return 2 * MLP_RATIO * tokens * dim**2


def growth(macs: Callable[[int], int], side: int, frames: int = 1) -> Growth | None:
    """Derive the polynomial of a closed form.

    Args:
        macs: function from the side of a square grid, in tokens, to MACs.
        side: unit of the sides that are evaluated; grids with multiples of it need no padding.
        frames: number of frames, each with such a grid.

    Returns:
        The polynomial of degree two through three values, or None if a fourth value does not satisfy it.
    """
    tokens = [frames * (side * times) ** 2 for times in (1, 2, 3, 4)]
    (x, y, z, last), (at_x, at_y, at_z, at_last) = tokens, [macs(side * times) for times in (1, 2, 3, 4)]
    slope = Fraction(at_y - at_x, y - x)
    quadratic = (Fraction(at_z - at_y, z - y) - slope) / (z - x)
    linear = slope - quadratic * (x + y)
    constant = at_x - linear * x - quadratic * x**2
    if any(part.denominator != 1 for part in (constant, linear, quadratic)):
        return None
    found = Growth(int(constant), int(linear), int(quadratic))
    return found if found(last) == at_last else None


@dataclass(frozen=True)
class BreakEven:
    """The last crossing of two growths: between two consecutive integers, or at one (`low` = `high`), in tokens."""

    low: int
    high: int

    @property
    def exact(self) -> bool:
        return self.low == self.high


def break_even(one: Growth, other: Growth) -> BreakEven | None:
    """Return the largest number of tokens for which both need the same MACs, or None if it does not exist.

    The equation is solved in integers. For global attention and windows of M² tokens the solution is hw = M².
    """
    a, b, c = (getattr(one, part) - getattr(other, part) for part in ("quadratic", "linear", "constant"))
    if a < 0:
        a, b, c = -a, -b, -c
    if a:
        square = b * b - 4 * a * c
        if square < 0:
            return None
        low = (-b + math.isqrt(square)) // (2 * a)
    elif b:
        low = -c // b
    else:
        return None
    exact = a * low**2 + b * low + c == 0
    return BreakEven(low, low if exact else low + 1) if low > 0 else None
