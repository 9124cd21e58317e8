"""The neighbourhood of a query: how many keys it attends to, and which.

Formulas, comparisons, break-evens, receptive fields and `trace` ask nothing else of where an attention looks. An attention
whose keys lie in another way declares a subclass beside its Spec.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from attnscope.core.sizes import Pair, plural


class Neighbourhood(ABC):
    """The keys that a query attends to. A subclass is a small frozen value."""

    __slots__ = ()

    kind: ClassVar[str]
    """One word for the screen and the JSON: "global", "windowed", "cross"."""
    letter: ClassVar[str] = ""
    """Keys of a query as the paper writes them: `hw`, `M²`."""
    field: ClassVar[str] = ""
    """The field of the Spec that sets its size and `alignment`, for errors."""
    described: ClassVar[tuple[str, ...]] = ()
    """The fields of the Spec that `describe` speaks of."""

    @abstractmethod
    def describe(self, sized: bool = True) -> str:
        """Return it in words, `7×7 windows, shifted`; without its size where that varies."""

    @property
    @abstractmethod
    def tokens(self) -> int:
        """Queries of one image, padding included."""

    @property
    @abstractmethod
    def keys(self) -> int | None:
        """Keys that a query is scored against, masked ones included; None where queries and keys are not scored by token.

        That is so in linear attention and where attention runs over channels.
        """

    @property
    def padding_tokens(self) -> int:
        """How many of the tokens are padding."""
        return 0

    @property
    def waste(self) -> float:
        """The share of the tokens that is padding."""
        return 1 - (self.tokens - self.padding_tokens) / self.tokens

    @property
    def alignment(self) -> Pair:
        """The sides of a grid, down and across, whose multiples need no padding."""
        return 1, 1

    def reach(self, axis: int, side: int) -> Sequence[range]:
        """Return, for each query along an axis, the keys that it attends to at most: masked ones left out, padding not.

        Args:
            axis: 0 is down, 1 is across; a sequence has axis 0.
            side: queries along the axis.
        """
        return [range(side)] * side


@dataclass(frozen=True, slots=True)
class AllTokens(Neighbourhood):
    """Every token of the same image: global attention."""

    kind: ClassVar[str] = "global"
    letter: ClassVar[str] = "hw"

    count: int

    def describe(self, sized: bool = True) -> str:
        """Return `global attention`."""
        return "global attention"

    @property
    def tokens(self) -> int:
        """Queries of one image."""
        return self.count

    @property
    def keys(self) -> int:
        """Keys of a query: all tokens."""
        return self.count


@dataclass(frozen=True, slots=True)
class OtherSequence(Neighbourhood):
    """Every token of another sequence: cross-attention."""

    kind: ClassVar[str] = "cross"

    count: int
    others: int

    def describe(self, sized: bool = True) -> str:
        """Return `all 196 tokens of the other sequence`."""
        return f"all {plural(self.others, 'token') if sized else 'tokens'} of the other sequence"

    @property
    def tokens(self) -> int:
        """Queries of one image."""
        return self.count

    @property
    def keys(self) -> int:
        """Keys of a query: all tokens of the other sequence."""
        return self.others

    def reach(self, axis: int, side: int) -> Sequence[range]:
        """Return all tokens of the other sequence for each query."""
        return [range(self.others)] * side


Seen = Sequence[Pair]
"""For each token along one axis, the first and the last place of the image that it depends on."""


def widen(seen: Seen, neighbourhood: Neighbourhood, axis: int) -> Seen:
    """Return what each token along an axis depends on after self-attention: what any key of its query depended on.

    Padding carries nothing from layer to layer.
    """
    spans: dict[range, Pair] = {}
    widened = []
    for keys in neighbourhood.reach(axis, len(seen)):
        if keys not in spans:  # the tokens of one window have the same keys
            inside = seen[keys.start : keys.stop : keys.step]  # a slice leaves out what is beyond the end
            spans[keys] = min(first for first, _ in inside), max(last for _, last in inside)
        widened.append(spans[keys])
    return widened
