"""How a grid of tokens falls into windows: padding, cyclic shift, counts. Plain arithmetic, no torch."""

from dataclasses import dataclass

from attnscope.spec import Pair


@dataclass(frozen=True, slots=True)
class Windows:
    """A grid of height × width tokens in windows of `window`, shifted by `shift`; per axis, (down, across).

    The grid is padded at the bottom and on the right to whole windows, before the shift. An axis with a single window is
    not shifted: every token sees the same ones either way.
    """

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
