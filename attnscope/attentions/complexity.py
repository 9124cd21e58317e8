"""The complexity of an attention by its paper's formula, beside that of global attention on the same tokens.

Those of global attention and of attention in windows are Liu et al., arXiv 2103.14030, equations 1 and 2.

What an attention costs grows with its tokens as a polynomial of second degree at most. `growth` finds it from the closed
form that the audit holds against the steps, so that a crossover is solved in whole numbers and not read off a chart.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

from attnscope.core.axes import spell
from attnscope.core.formula import Expression, symbol
from attnscope.core.sizes import Pair


@dataclass(frozen=True)
class Term:
    """One Ω: its name, and its cost in MACs of one layer for one image, of which formula, values and number follow."""

    name: str
    cost: Expression

    @property
    def formula(self) -> str:
        """The cost in letters: `4hwC² + 2(hw)²C`."""
        return str(self.cost)

    @property
    def values(self) -> str:
        """The values of its letters: `hw = 3136, C = 96`."""
        return ", ".join(letter.words for letter in self.cost.symbols)

    @property
    def macs(self) -> int:
        """The cost as a number."""
        return self.cost.value

    def of_batch(self, batch: int) -> "Term":
        """Return the cost of a batch, `b(4hwC² + 2(hw)²C)`; a batch of 1 has no letter."""
        return self if batch == 1 else Term(self.name, symbol("b", batch) * self.cost)


@dataclass(frozen=True)
class Complexity:
    """An attention beside global attention on the same tokens.

    Args:
        batch: images.
        own: what this attention costs by its own paper's formula.
        reference: what global attention costs. Of global attention itself it is `own`.
        saving: how the attention that needs fewer MACs gets by with them, in words.
        supposed: where `own` is the reference, another cost to hold beside it.
    """

    batch: int
    own: Term
    reference: Term
    saving: str
    supposed: Term | None = None

    @property
    def terms(self) -> tuple[Term, ...]:
        """The formulas of the batch to print: the reference, then what is held beside it, if there is anything."""
        beside = self.supposed if self.own == self.reference else self.own
        return tuple(term.of_batch(self.batch) for term in (self.reference, beside) if term)

    @property
    def own_macs(self) -> int:
        """MACs of this attention for the batch."""
        return self.batch * self.own.macs

    @property
    def reference_macs(self) -> int:
        """MACs of global attention for the batch."""
        return self.batch * self.reference.macs

    @property
    def ratio(self) -> float:
        """The ratio of the MACs of the first formula to those of the last."""
        return self.terms[0].macs / self.terms[-1].macs


def global_attention(tokens: int, dim: int, kv_dim: int | None = None) -> Term:
    """Return Ω(MSA): hw tokens of width C, each looking at all; keys and values of width G where heads share them."""
    hw, (C, G) = symbol("hw", tokens), widths(dim, kv_dim)
    return Term("Ω(MSA)", projections(hw, C, G) + 2 * hw**2 * C)


def windowed_attention(
    tokens: int,
    dim: int,
    window: Pair | int,
    padding: int = 0,
    kv_dim: int | None = None,
    name: str = "Ω(W-MSA)",
) -> Term:
    """Return Ω(W-MSA): the same where each token attends to M² keys.

    Args:
        tokens: tokens of the image; with the padding they are HW.
        dim: channels of a token.
        window: height and width of a window, or its tokens where the sides are not known.
        padding: tokens that are added to the image.
        kv_dim: channels of the keys, and of the values.
        name: what the formula is called.
    """
    padded, (C, G) = padded_tokens((tokens,), (tokens + padding,)), widths(dim, kv_dim)
    return Term(name, projections(padded, C, G) + 2 * window_keys(window) * padded * C)


def widths(dim: int, kv_dim: int | None) -> tuple[Expression, Expression]:
    """Return the letters of the channels of a token, and of its key and value: C twice where these are as many."""
    C = symbol("C", dim)
    return C, C if kv_dim in (None, dim) else symbol("G", kv_dim or dim)


def window_keys(*windows: Pair | int) -> Expression:
    """Return M², the keys of a query in a window; several windows are those of a network's stages."""
    keys = [window if isinstance(window, int) else window[0] * window[1] for window in windows]
    spelled = tuple(str(window) if isinstance(window, int) else spell(window) for window in windows)
    return symbol("M²", *keys, spelled=spelled)


def padded_tokens(tokens: tuple[int, ...], padded: tuple[int, ...]) -> Expression:
    """Return the tokens that attention in windows has: HW with padding, hw where there is none."""
    return symbol("hw", *tokens) if tokens == padded else symbol("HW", *padded, note="with padding")


def projections(hw: Expression, C: Expression, G: Expression) -> Expression:
    """Return the MACs of the projections of q, k, v and the output."""
    return 2 * hw * C**2 + 2 * hw * G * C


MLP_RATIO = 4
"""How much wider than a token the hidden layer of a block's MLP is, in ViT and in Swin."""


@dataclass(frozen=True)
class Growth:
    """MACs of one layer for N tokens: constant + linear·N + quadratic·N²."""

    constant: int
    linear: int
    quadratic: int

    def __call__(self, tokens: int) -> int:
        return self.constant + self.linear * tokens + self.quadratic * tokens**2

    def with_mlp(self, dim: int) -> "Growth":
        """The same for a whole block: the layer and its MLP, 8C² a token."""
        return replace(self, linear=self.linear + mlp(1, dim))

    @property
    def balance(self) -> Fraction | None:
        """The tokens from which the quadratic term is the largest: hw = 2C for global attention. None without one."""
        return Fraction(self.linear, self.quadratic) if self.quadratic else None

    def multiple_of(self, other: "Growth") -> Fraction | None:
        """How many times the other one this one is, if that is the same for any number of tokens."""
        mine, others = ((g.constant, g.linear, g.quadratic) for g in (self, other))
        ratio = Fraction(self.linear, other.linear) if other.linear else None
        return ratio if ratio is not None and all(m == ratio * o for m, o in zip(mine, others, strict=True)) else None


def mlp(tokens: int, dim: int) -> int:
    """MACs of a block's two linear layers: 8hwC²."""
    return 2 * MLP_RATIO * tokens * dim**2


def growth(macs: Callable[[int], int], side: int) -> Growth | None:
    """The polynomial behind a closed form.

    Args:
        macs: MACs on a square grid with this side.
        side: the grids are looked at in multiples of it, on which nothing is padded.

    Returns:
        The only polynomial of second degree through three values, or None where a fourth one does not lie on it.
    """
    tokens = [(side * times) ** 2 for times in (1, 2, 3, 4)]
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
    """Where two growths cross for the last time: between two neighbouring whole numbers, or at one (`low` = `high`)."""

    low: int
    high: int

    @property
    def exact(self) -> bool:
        return self.low == self.high


def break_even(one: Growth, other: Growth) -> BreakEven | None:
    """The largest number of tokens for which both need the same MACs, solved in whole numbers; None where there is none.

    For global attention and windows of M² tokens it is hw = M².
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
