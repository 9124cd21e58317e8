"""Parsing of numbers with a unit: `5G`, `16GiB`, `2.5ms`."""

import re
from fractions import Fraction

SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
"""The factors of the units of a size; `B` may follow a decimal prefix."""
SIZE = re.compile(r"(\d{1,99}(?:\.\d{1,99})?)\s*([kmgt]?)(i?b)?", re.IGNORECASE)
SECONDS = {"s": Fraction(1), "ms": Fraction(1, 10**3), "us": Fraction(1, 10**6), "ns": Fraction(1, 10**9)}
"""The factors of the units of a time."""
TIME = re.compile(r"(\d{1,99}(?:\.\d{1,99})?)\s*(ns|us|µs|ms|s)", re.IGNORECASE)


def read_size(text: str) -> Fraction | None:
    """Parse a number with or without a unit, such as `5G`, `100MB` or `16GiB`; None if it has another form."""
    match = SIZE.fullmatch(text.strip())
    if match is None:
        return None
    number, prefix, byte = match.groups("")
    binary = byte.lower() == "ib"
    if binary and not prefix:
        return None
    return Fraction(number) * SIZES[prefix.lower() + ("ib" if binary else "")]


def read_quantity(text: str) -> Fraction | None:
    """Parse a size, or a time such as `2.5ms` in seconds; None if it has another form."""
    match = TIME.fullmatch(text.strip())
    if match is None:
        return read_size(text)
    number, unit = match.groups()
    return Fraction(number) * SECONDS[unit.lower().replace("µ", "u")]
