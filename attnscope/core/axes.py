"""Axis letters: shapes written as text, parsed once, then bound to sizes and evaluated.

    q: b h n d, k: b h m d -> scores: b h n m

A letter is the size of an axis. Parentheses merge several letters into one axis, and numbers are literal sizes. The
optional name before a colon is the name of the tensor. The notation follows einops (Rogozhnikov, "Einops: Clear and
Reliable Tensor Manipulations with Einstein-like Notation", ICLR 2022).

A count such as `3 c c + 3 c` uses the same letters. Adjacent letters are multiplied, and terms are joined by a plus or
a minus.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

Sizes = Mapping[str, int]
Shape = tuple[int, ...]


class AxisError(ValueError):
    """An error for a pattern that cannot be parsed, or for a shape that does not match its letters."""


@dataclass(frozen=True, slots=True)
class Factors:
    """A product of a number and letters: one axis of a tensor, or one term of a count."""

    number: int
    letters: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return self.text

    def size(self, sizes: Sizes) -> int:
        """Return the product for the given sizes of the letters.

        Raises:
            KeyError: a letter has no size.
        """
        product = self.number
        for letter in self.letters:
            product *= sizes[letter]
        return product


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a pattern: its name (empty if it is unnamed) and its axes."""

    name: str
    axes: tuple[Factors, ...]

    def __str__(self) -> str:
        return " ".join(map(str, self.axes))

    @property
    def letters(self) -> tuple[str, ...]:
        """Return all letters, from the first axis to the last."""
        return tuple(letter for axis in self.axes for letter in axis.letters)

    def shape(self, sizes: Sizes) -> Shape:
        """Return the shape of this tensor for the given sizes of the letters."""
        return tuple([axis.size(sizes) for axis in self.axes])

    def elements(self, sizes: Sizes) -> int:
        """Return the number of elements for the given sizes of the letters."""
        return math.prod(self.shape(sizes))

    def bind(self, shape: Shape, sizes: dict[str, int]) -> None:
        """Check a shape against the letters, and add the size of each new letter to `sizes`.

        An axis with two or more new letters determines the size of neither.

        Args:
            shape: the shape to check.
            sizes: the sizes of the letters so far; updated in place.

        Raises:
            AxisError: the number of axes, or the size of an axis, does not match the letters.
        """
        mismatch = f"{self.name or 'a tensor'} must have shape {self} (got {spell(shape)})"
        if len(shape) != len(self.axes):
            raise AxisError(f"{mismatch}: the number of axes must be {len(self.axes)} (got {len(shape)})")
        for axis, size in zip(self.axes, shape, strict=True):
            bound = axis.number * math.prod([sizes[letter] for letter in axis.letters if letter in sizes])
            unbound = [letter for letter in axis.letters if letter not in sizes]
            if not unbound and bound != size:
                raise AxisError(f"{mismatch}: {axis} must be {bound} (got {size})")
            if unbound and (size % bound if bound else size):
                raise AxisError(f"{mismatch}: {axis} must be a multiple of {bound} (got {size})")
            if len(unbound) == 1:
                sizes[unbound[0]] = size // bound if bound else 0


@dataclass(frozen=True, slots=True)
class Pattern:
    """The inputs and outputs of an operation, in axis letters."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def __str__(self) -> str:
        return f"{', '.join(map(str, self.inputs))} -> {', '.join(map(str, self.outputs))}"


def spell(shape: Shape) -> str:
    """Format a shape for display: `1×12×197×64`."""
    return "×".join(map(str, shape)) or "a scalar"


@cache
def parse_tensor(text: str) -> Tensor:
    """Parse `q: b h n d` or `b n (3 h d)`.

    Raises:
        AxisError: the name is not an identifier, or an axis is not a letter, a number or a group in parentheses.
    """
    name, colon, axes = text.rpartition(":")
    if colon and not name.strip().isidentifier():
        raise AxisError(
            f"cannot parse {text.strip()!r}: the name of a tensor must be an identifier (got {name.strip()!r}), "
            "such as q in 'q: b h n d'"
        )
    if re.sub(r"\([^()]*\)|[a-z]\b|\d+|\s", "", axes):
        raise AxisError(
            f"cannot parse {text.strip()!r}: an axis must be a lowercase letter, a number or a group such as (3 h d)"
        )
    return Tensor(name.strip(), tuple(_factors(axis) for axis in re.findall(r"\([^()]*\)|[a-z]|\d+", axes)))


@cache
def parse_pattern(text: str) -> Pattern:
    """Parse `q: b h n d, k: b h m d -> scores: b h n m`.

    Raises:
        AxisError: the number of arrows is not one, or a tensor cannot be parsed.
    """
    sides = text.split("->")
    if len(sides) != 2:
        raise AxisError(
            f"cannot parse {text!r}: a pattern must have one arrow (got {len(sides) - 1}), such as 'b n c -> b n c'"
        )
    inputs, outputs = (tuple(map(parse_tensor, side.split(","))) for side in sides)
    return Pattern(inputs, outputs)


@cache
def parse_count(text: str) -> tuple[Factors, ...]:
    """Parse `3 c c + 3 c` or `3 c c - c` into its terms; an empty text has no terms."""
    return tuple(map(_factors, filter(str.strip, re.sub(r"(^|\s)-\s", r"\1+ -1 ", text).split("+"))))


def count(text: str, sizes: Sizes) -> int:
    """Return the value of a count such as `3 c c + 3 c` for the given sizes."""
    return sum([term.size(sizes) for term in parse_count(text)])


def _factors(text: str) -> Factors:
    words = text.strip("() ").replace("(", " ").replace(")", " ").split()
    for word in words:
        if not re.fullmatch(r"[a-z]|-?\d+", word):
            raise AxisError(
                f"cannot parse {text.strip()!r}: a factor must be a lowercase letter or a number (got {word!r})"
            )
    number = math.prod([int(word) for word in words if not word.isalpha()])
    return Factors(number, tuple(word for word in words if word.isalpha()), text.strip())
