"""How a grid of tokens falls into windows: padding, cyclic shift, groups, masks, positions. Plain arithmetic, no torch.

Everything is a product of the two axes: two tokens may attend to each other if they may on each axis. So every function of
a whole grid is made of `Axis`, and costs what its sides cost and not what its area does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar

from attnscope.core.neighbourhood import Neighbourhood
from attnscope.core.sizes import Pair, spell_pair

LARGEST_DRAWN = 16_384
"""Pictures of windows show sides of a grid, and of a window, up to this many tokens."""


@dataclass(frozen=True, slots=True)
class Windows(Neighbourhood):
    """A grid of height × width tokens in windows of `window`, shifted by `shift`; per axis, (down, across).

    The grid is padded at the bottom and on the right to whole windows, before the shift. An axis with a single window is
    not shifted: every token sees the same ones either way.
    """

    kind: ClassVar[str] = "windowed"
    letter: ClassVar[str] = "M²"
    field: ClassVar[str] = "window"
    described: ClassVar[tuple[str, ...]] = ("window", "shift", "shift_size")

    height: int
    width: int
    window: Pair
    shift: Pair = (0, 0)

    @property
    def counts(self) -> Pair:
        """Windows down and across: r and s."""
        return -(-self.height // self.window[0]), -(-self.width // self.window[1])

    @property
    def padded(self) -> Pair:
        """The sides of the grid with its padding: r·p and s·q."""
        (r, s), (p, q) = self.counts, self.window
        return r * p, s * q

    @property
    def padding(self) -> Pair:
        """Rows added at the bottom, columns added on the right."""
        height, width = self.padded
        return height - self.height, width - self.width

    @property
    def roll(self) -> Pair:
        """The shift that is really made, down and across."""
        (r, s), (down, across) = self.counts, self.shift
        return down if r > 1 else 0, across if s > 1 else 0

    @property
    def is_padded(self) -> bool:
        return any(self.padding)

    @property
    def is_shifted(self) -> bool:
        return any(self.roll)

    @property
    def tokens(self) -> int:
        """Tokens of the padded grid: each is a query."""
        return prod(self.padded)

    @property
    def keys(self) -> int:
        """Keys of a query: the tokens of its window, M²."""
        return prod(self.window)

    @property
    def padding_tokens(self) -> int:
        """How many tokens of the padded grid are padding."""
        return self.tokens - self.height * self.width

    @property
    def alignment(self) -> Pair:
        """Sides of the grid that are multiples of the window's need no padding."""
        return self.window

    def reach(self, axis: int, side: int) -> Sequence[range]:
        """Return, for each query along an axis, its window's keys, without those that only the roll brought."""
        along = self.axes[axis]
        return [along.same_group(token) for token in range(side)]

    def describe(self, sized: bool = True) -> str:
        """Return `7×7 windows, shifted`."""
        windows = "{}×{} windows".format(*self.window) if sized else "windows"
        return f"{windows}, shifted" if self.is_shifted else windows

    def headline(self) -> list[str]:
        """The grid in words: `56×56 tokens`, `window 7`, `shift 3`."""
        words = [f"{self.height}×{self.width} tokens", f"window {spell_pair(self.window)}"]
        return [*words, f"shift {spell_pair(self.roll)}"] if self.is_shifted else words

    @property
    def axes(self) -> "tuple[Axis, Axis]":
        """Down and across, each on its own."""
        down, across = map(Axis, (self.height, self.width), self.padded, self.window, self.roll)
        return down, across

    @property
    def masks(self) -> "list[Mask]":
        """The distinct masks, four at most, each with the windows that have it."""
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
class Axis:
    """One axis of a grid: `side` tokens, padded to `padded`, in windows of `window`, rolled by `roll`."""

    side: int
    padded: int
    window: int
    roll: int

    @property
    def count(self) -> int:
        """Windows along the axis."""
        return self.padded // self.window

    @property
    def group_count(self) -> int:
        """Groups along the axis: a window each, and one more where the roll cuts the last window in two."""
        return self.count + (self.roll > 0)

    @property
    def rolled(self) -> list[int]:
        """The token at each place of the rolled axis."""
        return [*range(self.roll, self.padded), *range(self.roll)]

    def group(self, token: int) -> int:
        """The group of a token: tokens attend to each other where their groups are the same, ⌊(token − roll)/window⌋.

        The roll brings the first tokens, −1 by this formula, to the end: their group is the last.
        """
        return (token - self.roll) // self.window % (self.count + 1)

    def same_group(self, token: int) -> range:
        """The tokens of this one's group, with the padding."""
        start = (token - self.roll) // self.window * self.window + self.roll
        return range(max(start, 0), min(start + self.window, self.padded))

    def real(self, tokens: range) -> range:
        """These tokens without the padding."""
        return range(tokens.start, min(tokens.stop, self.side))

    def window_tokens(self, window: int) -> list[int]:
        """The tokens of a window of the rolled axis, in their order there."""
        start = window * self.window + self.roll
        return [token % self.padded for token in range(start, start + self.window)]

    def window_groups(self, window: int) -> list[int]:
        """The group of each token of a window of the rolled axis."""
        return [self.group(token) for token in self.window_tokens(window)]

    def window_kinds(self) -> list[tuple[bool, range]]:
        """The windows with one group in them (False), and the last one where the roll made it two (True)."""
        if not self.roll:
            return [(False, range(self.count))]
        return [(False, range(self.count - 1)), (True, range(self.count - 1, self.count))]

    def receptive_fields(self, token: int, layers: int) -> list[range]:
        """What a token depends on after 1, 2, … `layers` layers that take turns: plain, shifted, plain, …

        The last layer looks first: its group, then all groups that those tokens looked at in the layer before, and so on
        down. Padding carries nothing from layer to layer.
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
    """One of the distinct masks of a shifted grid, and the windows that have it.

    Args:
        name: "none", "right edge", "bottom edge" or "corner".
        rows: where the windows that have it lie, down (a range of window numbers); columns: across.
        down: the group of each row of such a window; across: of each column.
    """

    name: str
    rows: range
    columns: range
    down: list[int]
    across: list[int]

    @property
    def windows(self) -> int:
        """How many windows have this mask."""
        return len(self.rows) * len(self.columns)

    @property
    def pairs(self) -> int:
        """Pairs of tokens in one window: (p·q)²."""
        return (len(self.down) * len(self.across)) ** 2

    @property
    def blocked(self) -> int:
        """Pairs of one window that may not attend."""
        return self.pairs - _same_pairs(self.down) * _same_pairs(self.across)

    def matrix(self) -> list[list[int]]:
        """1 where a query (a row) may not attend to a key (a column), 0 elsewhere: (p·q, p·q)."""
        groups = [(y, x) for y in self.down for x in self.across]
        rows = {group: [int(group != key) for key in groups] for group in set(groups)}
        return [rows[group] for group in groups]


def position_index(window: Pair) -> list[list[int]]:
    """The row of the bias table for each pair of a window's tokens: (p·q, p·q), query by key.

    (dy + p − 1)(2q − 1) + (dx + q − 1), with (dy, dx) the query's place less the key's. That is one number for the query
    less one for the key, plus a constant.
    """
    p, q = window
    places = [y * (2 * q - 1) + x for y in range(p) for x in range(q)]
    return [[query - key + places[-1] for key in places] for query in places]


def position_row(window: Pair, dy: int, dx: int) -> int:
    """The row of the bias table for a query that lies (dy, dx) from its key."""
    p, q = window
    return (dy + p - 1) * (2 * q - 1) + dx + q - 1


def _same_pairs(groups: Sequence[int]) -> int:
    return sum(groups.count(group) ** 2 for group in set(groups))
