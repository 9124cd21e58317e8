"""Parsing and formatting of integers and of the sides of a grid."""

from typing import Any, get_args, get_origin

from attnscope.core.errors import UsageError

LARGEST = 10**12
"""The largest size: tensor sizes, and their products with a few other sizes, must fit in 64-bit integers."""

Pair = tuple[int, int]
"""Height and width; a single number on the command line sets both."""

Triple = tuple[int, int, int]
"""Time, height and width; a single number on the command line sets all three."""

Sides = tuple[int, ...]
"""The sides of a grid with any number of axes."""

Ints = tuple[int, ...]
"""One integer for each stage of a network."""

AXES = ("time", "height", "width")
"""The axes of a grid; one with fewer axes has the last of them."""
EXAMPLE = (8, 56, 48)
"""A grid of tokens in error messages."""


def count_sides(kind: Any) -> int | None:
    """Return the number of sides of a type such as Pair, or None for a type of another form."""
    sides = get_args(kind)
    return len(sides) if get_origin(kind) is tuple and Ellipsis not in sides else None


def parse_sides(text: str, count: int) -> Sides:
    """Parse `56x48` (height × width) or `8x56x48` (time × height × width); a single number sets all sides.

    Raises:
        ValueError: the text has another form, or another number of sides.
    """
    sides = tuple(int(side) for side in text.lower().replace("×", "x").split("x"))
    if len(sides) not in (1, count):
        raise ValueError(text)
    return sides if len(sides) == count else sides * count


def describe_sides(count: int) -> str:
    """Return what `parse_sides` accepts: `an integer or height x width, such as 56 or 56x48`."""
    sides = EXAMPLE[-count:]
    return f"an integer or {' x '.join(AXES[-count:])}, such as {sides[0]} or {spell_sides(sides, 'x')}"


def abbreviate_sides(count: int) -> str:
    """Return what `parse_sides` accepts, in letters: `N|HxW`."""
    return "N|" + "x".join(axis[0].upper() for axis in AXES[-count:])


def parse_ints(text: str) -> Ints:
    """Parse `2,2,6,2` or `2x2x6x2`.

    Raises:
        ValueError: a part is not an integer.
    """
    return tuple(int(part) for part in text.lower().replace("x", ",").split(","))


def spread(value: int | Sides, count: int) -> Sides:
    """Return sides as they are, and a single integer as `count` equal sides."""
    return (value,) * count if isinstance(value, int) else value


def pair(value: int | Pair) -> Pair:
    """Return a pair as it is, and a single integer as a pair of equal sides."""
    return (value, value) if isinstance(value, int) else value


def triple(value: int | Triple) -> Triple:
    """Return a triple as it is, and a single integer as a triple of equal sides."""
    return (value, value, value) if isinstance(value, int) else value


def spell_sides(sides: Sides, by: str = "×") -> str:
    """Format sides: `8×7×7`, or `7` if all are equal."""
    return by.join(map(str, sides if len(set(sides)) > 1 else sides[:1]))


def spell_pair(sides: Pair, by: str = "×") -> str:
    """Format a pair: `7×5`, or `7` if the sides are equal."""
    return spell_sides(sides, by)


def check_divisible(name: str, sides: Sides, divisors: Sides, by: str = "", why: str = "", more: str = "") -> None:
    """Check that each side is a multiple of its divisor.

    Args:
        name: the field of the sides, which the error names with those nearest to them.
        sides: the sides.
        divisors: a divisor of each side.
        by: the field of the divisors; empty if they follow from others.
        why: follows the divisors: where they come from.
        more: follows the nearest sides: another remedy.

    Raises:
        UsageError: a side is not a multiple.
    """
    pairs = list(zip(sides, divisors, strict=True))
    if not any(side % divisor for side, divisor in pairs):
        return
    below = tuple(side // divisor * divisor for side, divisor in pairs)
    above = tuple(-(-side // divisor) * divisor for side, divisor in pairs)
    nearest = " or ".join(spell_sides(each, "x") for each in (below, above) if all(each))
    divisor = f"{{{by}}} {spell_sides(divisors, 'x')}" if by else spell_sides(divisors, "x")
    raise UsageError(
        f"{{{name}}} must be divisible by {divisor}{why} (got {spell_sides(sides, 'x')}); nearest: {nearest}{more}"
    )


def plural(count: int, word: str) -> str:
    """Format a count with its noun: `1 head`, `12 heads`, `2 softmaxes`."""
    ending = "" if count == 1 else "es" if word.endswith("x") else "s"
    return f"{count} {word}{ending}"
