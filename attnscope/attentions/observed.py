"""An attention as it was observed in the forward of a third-party module: its sizes, from which a family's Spec follows."""

from dataclasses import dataclass
from math import isqrt

from attnscope.core.sizes import Sides

TOKENS, NEIGHBOURHOOD, CROSS, CHANNELS = "tokens", "neighbourhood", "cross-shaped", "channel"
"""The keys of a query: the tokens of a group, those around each query, those of two stripes, or channels."""
LINEAR, SEPARABLE = "linear", "separable"
"""Attentions without scores of pairs."""


@dataclass(frozen=True)
class Rotation:
    """A rotary position embedding as it was observed.

    Args:
        tokens: number of queries that rotate, which excludes tokens without a position.
        halves: whether channel i forms a pair with channel i + d/2, not with its neighbour.
        is_learned: whether the angles are made from parameters.
    """

    tokens: int
    halves: bool
    is_learned: bool


@dataclass(frozen=True)
class Observed:
    """The sizes of one attention, read from the views, matmuls and convolutions of a forward.

    Args:
        scope: TOKENS, NEIGHBOURHOOD, CROSS, CHANNELS, LINEAR or SEPARABLE.
        images: batch size.
        windows: number of groups of queries in an image that have keys of their own.
        tokens: number of queries of a group.
        keys: number of keys of a query; None if tokens have no scores.
        heads: number of heads.
        dim: channels of an input token.
        inner_dim: channels of all heads together.
        out_dim: channels of an output token.
        sides: sides of the grid of queries, without padding; None if unknown.
        window: sides of a group of queries, or the widths of both stripes; None if unknown, or if there is one group.
        is_dilated: whether the tokens of a group are at a distance from each other.
        key_sides: sides of the keys of a query; None if unknown.
        is_other: whether keys come from another sequence than the queries.
        is_biased: whether something is added to the scores, such as a position bias or a mask.
        rotation: the rotary position embedding of queries and keys; None without one.
    """

    scope: str
    images: int
    windows: int
    tokens: int
    keys: int | None
    heads: int
    dim: int
    inner_dim: int
    out_dim: int
    sides: Sides | None = None
    window: Sides | None = None
    is_dilated: bool = False
    key_sides: Sides | None = None
    is_other: bool = False
    is_biased: bool = False
    rotation: Rotation | None = None

    @property
    def grid(self) -> Sides:
        """Return the sides of a grid with these queries, for attention whose cost depends on their number alone.

        Those of a sequence are unknown: they are a square if it has as many tokens as one, and a row otherwise.
        """
        if self.sides and len(self.sides) > 1:
            return self.sides
        tokens = self.windows * self.tokens
        side = isqrt(tokens)
        return (side, side) if side**2 == tokens else (1, tokens)

    @property
    def is_global(self) -> bool:
        """Return whether each query has scores with all tokens of its own image."""
        return self.scope == TOKENS and self.windows == 1 and self.tokens == self.keys and not self.is_other

    @property
    def is_windowed(self) -> bool:
        """Return whether each query has scores with the tokens of its window, whose sides are known."""
        known = self.sides is not None and self.window is not None
        is_own = self.scope == TOKENS and self.tokens == self.keys and not self.is_other
        return is_own and self.windows > 1 and known
