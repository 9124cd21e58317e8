"""Whole numbers and pairs of them: how they are read and spelled."""

LARGEST = 10**12
"""No size is larger than this: the sizes of a tensor are 64-bit integers, and so is their product with a few others."""

Pair = tuple[int, int]
"""Height and width. A single number stands for both."""

Ints = tuple[int, ...]
"""A whole number for each stage of a network."""


def parse_pair(text: str) -> Pair:
    """Read `56` or `56x48` (height x width).

    Raises:
        ValueError: it is neither.
    """
    sides = [int(side) for side in text.lower().replace("×", "x").split("x")]
    if len(sides) not in (1, 2):
        raise ValueError(text)
    return sides[0], sides[-1]


def parse_ints(text: str) -> Ints:
    """Read `2,2,6,2`, or `2x2x6x2`.

    Raises:
        ValueError: one of them is no whole number.
    """
    return tuple(int(part) for part in text.lower().replace("x", ",").split(","))


def pair(value: int | Pair) -> Pair:
    """A whole number for both sides, or the pair itself."""
    return (value, value) if isinstance(value, int) else value


def spell_pair(sides: Pair, by: str = "×") -> str:
    """`7`, or `7×5` where the sides differ."""
    return by.join(map(str, dict.fromkeys(sides)))


def plural(count: int, word: str) -> str:
    """`1 head`, `12 heads`."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
