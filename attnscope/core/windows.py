"""Partition of a token grid into windows: padding, cyclic shift, groups, masks and positions, without torch.

The axes are independent: two tokens may attend to each other if they may on each axis. Functions of a grid therefore
combine `Axis` objects, so that their cost grows with the sides and not with the area.
"""

import math
from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar

from attnscope.core.axes import spell
from attnscope.core.neighbourhood import Neighbourhood
from attnscope.core.sizes import Pair, Sides, Triple, spell_sides

LARGEST_DRAWN = 16_384
"""The largest side, in tokens, of a grid or a window that pictures of windows show."""


class GridWindows(Neighbourhood):
    """A grid of tokens with any number of axes, in windows of size `window`, shifted by `shift`, a number for each axis.

    The grid is padded at the end of each axis to whole windows before the shift. An axis with a single window is not
    shifted, because the shift would not change which tokens attend to each other.
    """

    __slots__ = ()

    kind: ClassVar[str] = "windowed"
    field: ClassVar[str] = "window"
    cells: ClassVar[str] = "windows"
    described: ClassVar[tuple[str, ...]] = ("window", "shift", "shift_size")

    window: Sides
    shift: Sides

    @property
    @abstractmethod
    def sides(self) -> Sides:
        """Return the sides of the grid without padding."""

    @property
    def axes(self) -> "tuple[Axis, ...]":
        """Return the axes of the grid."""
        return tuple(map(Axis, self.sides, self.padded, self.window, self.roll))

    @property
    def counts(self) -> Sides:
        """Return the number of windows along each axis: of an image r down and s across."""
        # not -(-side // p): ONNX rounds the quotient of a negative number towards 0
        return tuple([(side + p - 1) // p for side, p in zip(self.sides, self.window, strict=True)])

    @property
    def padded(self) -> Sides:
        """Return the sides of the padded grid: of an image r·p and s·q."""
        return tuple([count * p for count, p in zip(self.counts, self.window, strict=True)])

    @property
    def padding(self) -> Sides:
        """Return the padding at the end of each axis: of an image at the bottom and on the right."""
        return tuple([padded - side for padded, side in zip(self.padded, self.sides, strict=True)])

    @property
    def roll(self) -> Sides:
        """Return the effective shift along each axis: 0 along an axis with a single window."""
        return tuple([shift if count > 1 else 0 for count, shift in zip(self.counts, self.shift, strict=True)])

    @property
    def is_padded(self) -> bool:
        return any(self.padding)

    @property
    def is_shifted(self) -> bool:
        return any(self.roll)

    @property
    def tokens(self) -> int:
        """Return the number of tokens of the padded grid, each of which is a query."""
        return prod(self.padded)

    @property
    def keys(self) -> int:
        """Return the number of keys of a query: the tokens of its window."""
        return prod(self.window)

    @property
    def padding_tokens(self) -> int:
        """Return the number of padding tokens in the padded grid."""
        return self.tokens - prod(self.sides)

    @property
    def alignment(self) -> Sides:
        """Return the window: a grid whose sides are multiples of it needs no padding."""
        return self.window

    def reach(self, axis: int, side: int) -> Sequence[range]:
        """Return, for each query along an axis, the keys of its window, without those that the roll wraps around."""
        along = self.axes[axis]
        return [along.same_group(token) for token in range(side)]

    def cell(self, axis: int, place: int) -> int:
        """Return the number of the window of a token along an axis."""
        return -(-self.axes[axis].same_group(place).start // self.window[axis])

    def describe(self, sized: bool = True) -> str:
        """Return a description such as `7×7 windows, shifted`."""
        windows = f"{spell(self.window)} windows" if sized else "windows"
        return f"{windows}, shifted" if self.is_shifted else windows

    def padding_notes(self) -> list[str]:
        """Return a note about the padding, if there is any."""
        if not self.is_padded:
            return []
        return [
            f"the grid is padded from {spell(self.sides)} to {spell(self.padded)}: "
            f"{self.waste:.1%} of the tokens are padding, which every step processes"
        ]

    def headline(self) -> list[str]:
        """Return a description of the grid: `56×56 tokens`, `window 7`, `shift 3`."""
        words = [f"{spell(self.sides)} tokens", f"window {spell_sides(self.window)}"]
        return [*words, f"shift {spell_sides(self.roll)}"] if self.is_shifted else words


@dataclass(frozen=True, slots=True)
class Windows(GridWindows):
    """A grid of height × width tokens in windows of size `window`, shifted by `shift`; both are (down, across)."""

    letter: ClassVar[str] = "M²"

    height: int
    width: int
    window: Pair
    shift: Pair = (0, 0)

    @property
    def sides(self) -> Pair:
        """Return the height and the width of the grid without padding."""
        return self.height, self.width

    @property
    def masks(self) -> "list[Mask]":
        """Return the distinct masks, at most four, each with the windows that use it."""
        down, across = self.axes
        names = {
            (False, False): "none",
            (False, True): "right edge",
            (True, False): "bottom edge",
            (True, True): "corner",
        }
        return [
            Mask(names[bottom, right], rows, columns, down.window_groups(rows[0]), across.window_groups(columns[0]))
            for bottom, rows in down.window_kinds()
            for right, columns in across.window_kinds()
        ]


@dataclass(frozen=True, slots=True)
class VolumeWindows(GridWindows):
    """A volume of time × height × width tokens in windows, as in video."""

    letter: ClassVar[str] = "PM²"

    time: int
    height: int
    width: int
    window: Triple
    shift: Triple = (0, 0, 0)

    @classmethod
    def clipped(cls, sides: Triple, window: Triple, shift: Triple) -> "VolumeWindows":
        """Return the windows of a volume, clipped to it along each axis."""
        time, height, width = map(min, window, sides)
        return cls(*sides, (time, height, width), shift)

    @property
    def sides(self) -> Triple:
        """Return the sides of the volume without padding."""
        return self.time, self.height, self.width


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a grid: `side` tokens, padded to `padded`, in windows of `window`, rolled by `roll`."""

    side: int
    padded: int
    window: int
    roll: int

    @property
    def count(self) -> int:
        """Return the number of windows along the axis."""
        return self.padded // self.window

    @property
    def group_count(self) -> int:
        """Return the number of groups along the axis: one for each window, and one more if the roll splits the last."""
        return self.count + (self.roll > 0)

    @property
    def rolled(self) -> list[int]:
        """Return the token at each position of the rolled axis."""
        return [*range(self.roll, self.padded), *range(self.roll)]

    def group(self, token: int) -> int:
        """Return the group of a token, ⌊(token − roll)/window⌋; tokens of the same group attend to each other.

        The formula gives −1 for the first tokens, which the roll moves to the end; their group is the last one.
        """
        return (token - self.roll) // self.window % (self.count + 1)

    def same_group(self, token: int) -> range:
        """Return the tokens of the group of a token, including padding."""
        start = (token - self.roll) // self.window * self.window + self.roll
        return range(max(start, 0), min(start + self.window, self.padded))

    def real(self, tokens: range) -> range:
        """Return these tokens without padding."""
        return range(tokens.start, min(tokens.stop, self.side))

    def window_tokens(self, window: int) -> list[int]:
        """Return the tokens of a window of the rolled axis, in rolled order."""
        start = window * self.window + self.roll
        return [token % self.padded for token in range(start, start + self.window)]

    def window_groups(self, window: int) -> list[int]:
        """Return the group of each token of a window of the rolled axis."""
        return [self.group(token) for token in self.window_tokens(window)]

    def window_kinds(self) -> list[tuple[bool, range]]:
        """Return the windows with one group (False), and the last window if the roll splits it into two (True)."""
        if not self.roll:
            return [(False, range(self.count))]
        return [(False, range(self.count - 1)), (True, range(self.count - 1, self.count))]

    def receptive_fields(self, token: int, layers: int) -> list[range]:
        """Return the tokens that a token depends on after 1, 2, …, `layers` layers.

        The layers alternate: plain, shifted, plain, … Each range is traced from the last layer back to the first: the
        group of the token, then the groups of all tokens in it, and so on. Padding does not carry information between
        layers.
        """
        plain = replace(self, roll=0)
        fields = []
        for last in range(1, layers + 1):
            field = range(token, token + 1)
            for layer in range(last, 0, -1):
                axis = plain if layer % 2 else self
                field = axis.real(range(axis.same_group(field[0]).start, axis.same_group(field[-1]).stop))
            fields.append(field)
        return fields


@dataclass(frozen=True, slots=True)
class Mask:
    """One of the distinct masks of a shifted grid, with the windows that use it.

    Args:
        name: "none", "right edge", "bottom edge" or "corner".
        rows: indices of these windows, down.
        columns: indices of these windows, across.
        down: the group of each row of tokens in such a window.
        across: the group of each column of tokens in such a window.
    """

    name: str
    rows: range
    columns: range
    down: list[int]
    across: list[int]

    @property
    def windows(self) -> int:
        """Return the number of windows with this mask."""
        return len(self.rows) * len(self.columns)

    @property
    def pairs(self) -> int:
        """Return the number of pairs of tokens in one window, (p·q)²."""
        return (len(self.down) * len(self.across)) ** 2

    @property
    def blocked(self) -> int:
        """Return the number of masked pairs in one window."""
        return self.pairs - _same_pairs(self.down) * _same_pairs(self.across)

    def matrix(self) -> list[list[int]]:
        """Return the mask, (p·q, p·q): 1 where a query (row) may not attend to a key (column), 0 elsewhere."""
        groups = [(y, x) for y in self.down for x in self.across]
        rows = {group: [int(group != key) for key in groups] for group in set(groups)}
        return [rows[group] for group in groups]


def position_index(window: Pair) -> list[list[int]]:
    """Return the row of the bias table for each query and key of a window, (p·q, p·q).

    For the offset (dy, dx), the query's position minus the key's, the row is

        (dy + p − 1)(2q − 1) + (dx + q − 1)

    It equals an index of the query minus an index of the key, plus a constant.
    """
    p, q = window
    places = [y * (2 * q - 1) + x for y in range(p) for x in range(q)]
    return [[query - key + places[-1] for key in places] for query in places]


def position_row(window: Pair, dy: int, dx: int) -> int:
    """Return the row of the bias table for a query at the offset (dy, dx) from its key."""
    p, q = window
    return (dy + p - 1) * (2 * q - 1) + dx + q - 1


def log_distance(offset: int, pretrained: int) -> float:
    """Return an offset on the log scale of Swin V2: ±1 at the largest offset in pre-training.

    It is that of Liu et al. (arXiv 2111.09883, section 3.3), with the factor 8 and the divisors of their code.

    Args:
        offset: query position minus key position, along one axis.
        pretrained: side of the window in pre-training.
    """
    distance = 8 * abs(offset) / max(pretrained - 1, 1)
    return math.copysign(math.log2(1 + distance) / math.log2(8), offset)


def spread(old: int, new: int) -> list[float]:
    """Return the places of `old` offsets among `new` ones: a geometric series on each side of 0, by bisection.

    It is that of BEiT (Bao et al., arXiv 2106.08254) and timm, with their limits. A side of M tokens has 2M − 1 offsets.
    """
    low, high, ratio = 1.01, 1.5, 1.255
    while high - low > 1e-6:
        ratio = (low + high) / 2.0
        if (1.0 - ratio ** (old // 2)) / (1.0 - ratio) > new // 2:
            high = ratio
        else:
            low = ratio
    side, place = [], 1.0
    for power in range(1, old // 2 + 1):
        side.append(place)
        place += ratio**power
    return [*(-each for each in reversed(side)), 0.0, *side]


def resized_offsets(pretrained: Pair, window: Pair) -> list[list[dict[int, float]]]:
    """Return the weights of the offsets of a pretrained window for each offset of another one, down and across.

    They are those of the resized bias table of Swin, and sum to 1. If one side of the window changes, timm resizes both.
    """
    if pretrained == window:
        return [[{offset: 1.0} for offset in range(1 - side, side)] for side in window]
    return [list(_mixtures(of, side)) for of, side in zip(pretrained, window, strict=True)]


def _mixtures(pretrained: int, side: int) -> Iterator[dict[int, float]]:
    """Yield the weights of the two old offsets on both sides of each new one; beyond the last place, only the last one."""
    places, first = spread(2 * pretrained - 1, 2 * side - 1), 1 - pretrained
    for offset in range(1 - side, side):
        right = min(bisect_left(places, offset), len(places) - 1)
        left = max(right - 1, 0)
        share = min((offset - places[left]) / (places[right] - places[left]), 1.0) if left < right else 1.0
        weights = {first + left: 1.0 - share, first + right: share}
        yield {old: weight for old, weight in weights.items() if weight}


def _same_pairs(groups: Sequence[int]) -> int:
    return sum(groups.count(group) ** 2 for group in set(groups))
