"""Parsing and formatting of integers and pairs of integers."""

LARGEST = 10**12
"""The largest size: tensor sizes, and their products with a few other sizes, must fit in 64-bit integers."""

Pair = tuple[int, int]
"""Height and width; a single number on the command line sets both."""

Ints = tuple[int, ...]
"""One integer for each stage of a network."""


def parse_pair(text: str) -> Pair:
    """Parse `56` or `56x48` (height × width).

    Raises:
        ValueError: the text has another form.
    """
    sides = [int(side) for side in text.lower().replace("×", "x").split("x")]
    if len(sides) not in (1, 2):
        raise ValueError(text)
    return sides[0], sides[-1]


def parse_ints(text: str) -> Ints:
    """Parse `2,2,6,2` or `2x2x6x2`.

    Raises:
        ValueError: a part is not an integer.
    """
    return tuple(int(part) for part in text.lower().replace("x", ",").split(","))


def pair(value: int | Pair) -> Pair:
    """Return a pair as it is, and a single integer as a pair of equal sides."""
    return (value, value) if isinstance(value, int) else value


def spell_pair(sides: Pair, by: str = "×") -> str:
    """Format a pair: `7×5`, or `7` if the sides are equal."""
    return by.join(map(str, dict.fromkeys(sides)))


def plural(count: int, word: str) -> str:
    """Format a count with its noun: `1 head`, `12 heads`."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
