"""Break-evens: the sizes at which two contenders need the same MACs, solved or searched in integers. No torch."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from functools import cached_property, lru_cache
from itertools import combinations, pairwise

from attnscope.analyses.contenders import Contender, Meeting, Place
from attnscope.analyses.quantities import block_macs, dim_of, macs
from attnscope.attentions.complexity import Growth, break_even, growth
from attnscope.attentions.spec import FRAMES, Spec
from attnscope.core.errors import UsageError
from attnscope.core.neighbourhood import Neighbourhood
from attnscope.core.sizes import Pair
from attnscope.networks.spec import NetworkSpec
from attnscope.reports.comparison import BLOCK, LAYER, NETWORK, Crossover

LARGEST_SEARCHED = 1000
"""Largest side of a grid of tokens in a search."""
LARGEST_IMAGE = 4096
"""Largest side of an image in a search, in pixels."""

SMALLEST_UNITS = (1, 4, 16, 64)
"""The smallest grids from which a polynomial is derived, in units."""

Cost = Callable[[int], int]
"""A function from the side of a square grid to MACs; it raises a UsageError for a side that a Spec refuses."""


class Grower:
    """The MACs of a contender for one image or video, on square grids of any side."""

    def __init__(self, contender: Contender, place: Place, spec: Spec) -> None:
        self.label, self.contender, self.spec = contender.label, contender, spec
        self.values = {**place.values, "batch": 1}
        self.frames: int = place.values.get(FRAMES, 1)
        self._specs: dict[int, Spec | UsageError] = {}
        self.layer, self.block = lru_cache(maxsize=None)(self._layer), lru_cache(maxsize=None)(self._block)

    def at(self, side: int) -> Spec:
        """Return the Spec on a square grid.

        Raises:
            UsageError: the contender cannot take it.
        """
        if side not in self._specs:
            try:
                self._specs[side] = self.contender.at((side, side), self.values)
            except UsageError as error:
                self._specs[side] = error
        found = self._specs[side]
        if isinstance(found, UsageError):
            raise found
        return found

    def _layer(self, side: int) -> int:
        """Return the MACs of the layer or the network, padding included."""
        return macs(self.at(side))

    def _block(self, side: int) -> int:
        """Return the MACs of the layer and its MLP, padding included."""
        return block_macs(self.at(side))

    def takes(self, side: int) -> bool:
        """Return whether the contender can take a square grid of this side."""
        try:
            self.at(side)
        except UsageError:
            return False
        return True

    @cached_property
    def unit(self) -> int:
        """Return the sides whose multiples need no padding and leave no token out."""
        if isinstance(self.spec, NetworkSpec):
            return math.lcm(*self.spec.patch)
        return math.lcm(*self.spec.neighbourhood.alignment[-2:])

    @cached_property
    def is_padded(self) -> bool:
        """Return whether it pads other grids than those, rather than to refuse them or to leave tokens out."""
        other = 2 * self.unit + 1
        return self.unit > 1 and self.takes(other) and self.at(other).neighbourhood.padding_tokens > 0

    @cached_property
    def grown(self) -> Growth | None:
        """Return the MACs as a polynomial in the tokens on grids of whole units.

        The result is None if they are not a polynomial of degree 2 or if such grids are too large.
        """
        for times in SMALLEST_UNITS:  # some refuse small grids, such as those below their neighbourhood
            try:
                return growth(self.layer, times * self.unit, self.frames)
            except UsageError:
                continue
        return None


def crossovers(meeting: Meeting, place: Place, specs: Mapping[str, Spec]) -> list[Crossover]:
    """Find the sizes at which two contenders need the same MACs, for each pair: in a layer and in a block, or in a network.

    Args:
        meeting: the contenders.
        place: the values that the Specs share, except for the size of the grid.
        specs: the Spec of each contender that can take this place, by label.
    """
    growers = [Grower(each, place, specs[each.label]) for each in meeting.contenders if each.label in specs]
    found = []
    for first, other in combinations(growers, 2):
        if meeting.of_networks:
            found.append(searched(first, other, NETWORK, (first.layer, other.layer)))
            continue
        layers, blocks = (first.layer, other.layer), (first.block, other.block)
        for scope, costs in ((LAYER, layers), (BLOCK, blocks)):
            if first.grown is None or other.grown is None:
                found.append(searched(first, other, scope, costs))
            else:
                found.append(_solved(first, other, scope, costs, meeting.pad))
    return found


def _solved(first: Grower, other: Grower, scope: str, costs: tuple[Cost, Cost], pad: bool) -> Crossover:
    """Return the break-even of two polynomials, and the side from which on it holds with padding if grids are padded."""
    assert first.grown is not None
    assert other.grown is not None
    dims = dim_of(first.spec), dim_of(other.spec)
    looks = first.spec.neighbourhood, other.spec.neighbourhood
    grown = first.grown, other.grown
    if scope == BLOCK:
        grown = grown[0].with_mlp(dims[0]), grown[1].with_mlp(dims[1])
    found = crossover(first.label, other.label, scope, *grown, dims, looks, first.frames)
    padded = [each for each in (first, other) if pad and each.is_padded]
    refusing = [each.unit for each in (first, other) if each not in padded]
    found.pads, found.unit = bool(padded), math.lcm(*refusing)
    if padded and grown[0] != grown[1]:
        largest = max(first.unit, other.unit)
        found.first_padded_from, found.padded_from = cheaper_from(
            grown, costs, largest, found.unit, max(first.frames, 1)
        )
    return found


def crossover(
    first: str,
    other: str,
    scope: str,
    one: Growth,
    two: Growth,
    dims: Pair,
    looks: tuple[Neighbourhood, Neighbourhood],
    frames: int = 1,
) -> Crossover:
    """Return the break-even of two polynomials, with its formula."""
    met = break_even(one, two)
    tokens: int | Pair | None = None
    if met is not None:
        tokens = met.low if met.exact else (met.low, met.high)
    balance = one.balance
    terms, other_terms = (_terms(*each, scope, frames) for each in zip((one, two), dims, looks, strict=True))
    formula = values = equation = None
    if terms and other_terms and dims[0] == dims[1]:
        letters, values = (f"({theirs}) / ({ours})" for theirs, ours in zip(other_terms, terms, strict=True))
        if terms[0] != other_terms[0]:
            formula = letters
            named = [_letter(look, frames) for look in looks]
            equation = " = ".join(sorted(named, key=lambda letter: not letter.endswith("hw")))
    always = two.multiple_of(one)
    return Crossover(
        first,
        other,
        scope,
        tokens,
        None if always is None else float(always),
        formula,
        values,
        None,
        None if balance is None else float(balance),
        equation,
        fewer=None if one == two else first if grows_slower(one, two) else other,
    )


def grows_slower(one: Growth, other: Growth) -> bool:
    """Return whether the first polynomial is the smaller one for many tokens."""
    return astuple(one)[::-1] < astuple(other)[::-1]


def cheaper_from(
    grown: tuple[Growth, Growth], costs: Sequence[Cost], unit: int, step: int = 1, frames: int = 1
) -> tuple[int | None, int | None]:
    """Return the side of a square grid from which on the first, or the second, needs fewer MACs, padding included.

    The one that grows more slowly is the cheaper one on large grids. Padding adds less than `unit` to a side. The search
    begins at a side from which on that one is cheaper even with that much padding. From there, it goes down to the last
    side at which that one is not cheaper.

    Args:
        grown: the MACs of both as polynomials in the number of tokens, without padding.
        costs: the MACs of both on a square grid of a side, padding included.
        unit: the largest unit of both.
        step: the sides are multiples of this number.
        frames: number of frames, each with this grid.

    Returns:
        The side in tokens for the cheaper one, and None for the other one; None for both if it is unknown. If a Spec
        refuses smaller sides, such as those below its window, this is the first side that both allow.
    """
    first_is_cheaper = grows_slower(*grown)
    slow, fast = grown if first_is_cheaper else grown[::-1]
    cheap, dear = costs if first_is_cheaper else costs[::-1]
    sides = range(step, LARGEST_SEARCHED + 1, step)
    dearer = (side for side in reversed(sides) if slow(frames * (side + unit - 1) ** 2) >= fast(frames * side**2))
    enough = next(dearer, 0) + step
    if enough > LARGEST_SEARCHED:
        return None, None

    def is_cheaper(side: int) -> bool:
        try:
            return cheap(side) < dear(side)
        except UsageError:  # a Spec refuses this side
            return False

    lowest = next((side + step for side in range(enough - step, 0, -step) if not is_cheaper(side)), step)
    found = next((side for side in range(lowest, LARGEST_SEARCHED + 1, step) if is_cheaper(side)), None)
    return (found, None) if first_is_cheaper else (None, found)


def searched(first: Grower, other: Grower, scope: str, costs: tuple[Cost, Cost]) -> Crossover:
    """Return the break-even between two consecutive sides that both can take, without a polynomial.

    The search compares the MACs at all multiples of both units, up to the largest side.
    """
    unit = math.lcm(first.unit, other.unit)
    largest = LARGEST_IMAGE if scope == NETWORK else LARGEST_SEARCHED
    stride = unit if scope == NETWORK or largest < 100 * unit else unit * (largest // (100 * unit))
    sides = [side for side in range(unit, largest + 1, stride) if first.takes(side) and other.takes(side)]
    found = Crossover(first.label, other.label, scope, None, None, None, None, None, None)
    found.unit, found.searched_to = unit, sides[-1] if sides else 0
    signs = {side: _sign(costs[1](side) - costs[0](side)) for side in sides}
    decided = [side for side in sides if signs[side]]
    if not decided:
        found.always = 1.0 if sides else None
        return found
    found.fewer = first.label if signs[decided[-1]] > 0 else other.label
    changes = [(low, high) for low, high in pairwise(decided) if signs[low] != signs[high]]
    if changes:
        low, high = changes[-1]
        before = signs[low]
        for side in range(low + unit, high, unit):  # the sides between those of the search
            if first.takes(side) and other.takes(side):
                if _sign(costs[1](side) - costs[0](side)) != before:
                    high = side
                    break
                low = side
        found.sides, found.is_last_of_several = (low, high), len(changes) > 1
        if scope != NETWORK:
            found.tokens = first.frames * low**2, first.frames * high**2
    return found


def _sign(difference: int) -> int:
    return (difference > 0) - (difference < 0)


def _letter(look: Neighbourhood, frames: int) -> str:
    """Return the number of keys of a query in the paper's notation; in a video, all tokens are thw."""
    return "thw" if frames > 1 and look.letter == "hw" else look.letter


def _terms(grown: Growth, dim: int, look: Neighbourhood, scope: str, frames: int) -> tuple[str, str] | None:
    """Return the MACs of a token divided by 2C, as a formula and in numbers: the projections plus the keys of the token.

    The result is None if the MACs have another form, such as with shared heads.
    """
    projections = 2 if scope == LAYER else 6
    attended = grown.linear - 2 * projections * dim**2
    letter = _letter(look, frames)
    if not letter or look.keys is None:
        return None
    if (grown.constant, grown.quadratic, attended) == (0, 0, 2 * dim * look.keys):
        return f"{projections}C + {letter}", f"{projections}×{dim} + {look.keys}"
    if (grown.constant, grown.quadratic, attended) == (0, 2 * dim, 0):
        return f"{projections}C + {letter}", f"{projections}×{dim} + {letter}"
    return None
