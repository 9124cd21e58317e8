"""The neighbourhood of a query: the number and the positions of the keys that it attends to.

Formulas, comparisons, break-even points, receptive fields and `trace` read all they need from this class. An attention
with another neighbourhood declares a subclass next to its Spec.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

from attnscope.core.sizes import Pair, Sides, plural


class Neighbourhood(ABC):
    """The keys that a query attends to; subclasses are small frozen dataclasses."""

    __slots__ = ()

    kind: ClassVar[str]
    """One word for screens and JSON: "global", "windowed" or "cross"."""
    letter: ClassVar[str] = ""
    """The number of keys of a query in the paper's notation: `hw`, `M²`."""
    field: ClassVar[str] = ""
    """The field of the Spec that sets the size and `alignment`; errors name it."""
    cells: ClassVar[str] = ""
    """The plural noun for the cells: `windows`; empty without cells."""
    described: ClassVar[tuple[str, ...]] = ()
    """The fields of the Spec that `describe` covers."""

    @abstractmethod
    def describe(self, sized: bool = True) -> str:
        """Return a description such as `7×7 windows, shifted`.

        Args:
            sized: include the size; False if it varies.
        """

    @property
    @abstractmethod
    def tokens(self) -> int:
        """Return the number of queries of one image, including padding."""

    @property
    @abstractmethod
    def keys(self) -> int | None:
        """Return the number of keys that a query is scored against, including masked ones.

        It is None if tokens have no scores, as in linear attention and channel attention.
        """

    @property
    def padding_tokens(self) -> int:
        """Return the number of padding tokens."""
        return 0

    @property
    def waste(self) -> float:
        """Return the fraction of the tokens that is padding."""
        return 1 - (self.tokens - self.padding_tokens) / self.tokens

    @property
    def alignment(self) -> Sides:
        """Return the sides such that a grid with multiples of them needs no padding; down and across are the last."""
        return 1, 1

    def queries(self, sides: tuple[int, ...]) -> tuple[int, ...]:
        """Return the sides of the grid of queries for a grid of tokens; they are smaller if queries are pooled."""
        return sides

    def cell(self, axis: int, place: int) -> int:
        """Return the number of the cell of a token along an axis; a picture draws the borders of cells.

        A cell is a window, or the tokens of one key. Without cells there is a single one.
        """
        return 0

    @property
    def parts(self) -> "tuple[Neighbourhood, ...]":
        """Return the neighbourhoods whose union is this one, each for some of the heads; by default one, itself.

        The keys of a query in a part are all combinations of its `reach` along the axes. A cross has two parts.
        """
        return (self,)

    def reach(self, axis: int, side: int) -> Sequence[range]:
        """Return the range of keys that each query along an axis attends to, with padding but without masked keys.

        With several parts it covers the ranges of all parts.

        Args:
            axis: 0 is down, 1 is across; a sequence has axis 0, and a volume has time as axis 0.
            side: number of queries along the axis.
        """
        return [range(side)] * side

    def keys_of(self, place: tuple[int, ...], sides: tuple[int, ...]) -> set[tuple[int, ...]]:
        """Return the places of the keys that a query attends to, with padding but without masked keys.

        Args:
            place: row and column of the query; its number in a sequence.
            sides: sides of the grid of queries.
        """
        return {
            key
            for part in self.parts
            for key in product(*[part.reach(axis, side)[place[axis]] for axis, side in enumerate(sides)])
        }


@dataclass(frozen=True, slots=True)
class AllTokens(Neighbourhood):
    """All tokens of the same image: global attention."""

    kind: ClassVar[str] = "global"
    letter: ClassVar[str] = "hw"

    count: int

    def describe(self, sized: bool = True) -> str:
        """Return `global attention`."""
        return "global attention"

    @property
    def tokens(self) -> int:
        """Return the number of queries of one image."""
        return self.count

    @property
    def keys(self) -> int:
        """Return the number of keys of a query: all tokens."""
        return self.count


@dataclass(frozen=True, slots=True)
class OtherSequence(Neighbourhood):
    """All tokens of another sequence: cross-attention."""

    kind: ClassVar[str] = "cross"

    count: int
    others: int

    def describe(self, sized: bool = True) -> str:
        """Return `all 196 tokens of the other sequence`."""
        return f"all {plural(self.others, 'token') if sized else 'tokens'} of the other sequence"

    @property
    def tokens(self) -> int:
        """Return the number of queries of one image."""
        return self.count

    @property
    def keys(self) -> int:
        """Return the number of keys of a query: all tokens of the other sequence."""
        return self.others

    def reach(self, axis: int, side: int) -> Sequence[range]:
        """Return, for each query, all tokens of the other sequence."""
        return [range(self.others)] * side


Seen = Sequence[Pair]
"""The first and last position of the image that each token along one axis depends on."""


def widen(seen: Seen, neighbourhood: Neighbourhood, axis: int) -> Seen:
    """Return the positions that each token along an axis depends on after a self-attention layer.

    They span the positions that the keys of its query depend on. Padding does not carry information between layers.
    """
    spans: dict[range, Pair] = {}
    widened = []
    for keys in neighbourhood.reach(axis, len(seen)):
        if keys not in spans:  # all tokens of a window share their keys
            inside = seen[keys.start : keys.stop : keys.step]  # slicing drops padding, which is beyond the end
            spans[keys] = min(first for first, _ in inside), max(last for _, last in inside)
        widened.append(spans[keys])
    return widened
