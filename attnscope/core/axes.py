"""Axis letters: a shape written as text, read once, then bound to sizes and evaluated.

    q: b h n d, k: b h m d -> scores: b h n m

A letter is the size of an axis, brackets make one axis of several letters, numbers are themselves, and the name in front
of a colon says which tensor is meant (it may be left out). The notation is that of einops (Rogozhnikov, "Einops: Clear
and Reliable Tensor Manipulations with Einstein-like Notation", ICLR 2022).

A count is written in the same letters, side by side to multiply, with a plus or a minus between terms: `3 c c + 3 c`.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

Sizes = Mapping[str, int]
Shape = tuple[int, ...]


class AxisError(ValueError):
    """A pattern that cannot be read, or a shape that is not what its letters say."""


@dataclass(frozen=True, slots=True)
class Factors:
    """A product of a number and letters: one axis of a tensor, or one term of a count."""

    number: int
    letters: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return self.text

    def size(self, sizes: Sizes) -> int:
        """The product, with `sizes` for the letters. A letter that has no size is a KeyError."""
        product = self.number
        for letter in self.letters:
            product *= sizes[letter]
        return product


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a pattern: its name ("" where it has none) and its axes."""

    name: str
    axes: tuple[Factors, ...]

    def __str__(self) -> str:
        return " ".join(map(str, self.axes))

    @property
    def letters(self) -> tuple[str, ...]:
        """All letters in the order in which the tensor lies in memory."""
        return tuple(letter for axis in self.axes for letter in axis.letters)

    def shape(self, sizes: Sizes) -> Shape:
        """The shape of this tensor where the letters have these sizes."""
        return tuple([axis.size(sizes) for axis in self.axes])

    def elements(self, sizes: Sizes) -> int:
        """How many elements it has where the letters have these sizes."""
        return math.prod(self.shape(sizes))

    def bind(self, shape: Shape, sizes: dict[str, int]) -> None:
        """Hold a real shape against the letters, and put the letters it tells for the first time into `sizes`.

        An axis with two or more letters that are still unknown tells none of them.

        Raises:
            AxisError: the shape has another number of axes, or an axis another size, than the letters say.
        """
        came = f"{self.name or 'a tensor'} is {self} but came as {spell(shape)}"
        if len(shape) != len(self.axes):
            raise AxisError(f"{came}: {len(self.axes)} axes, not {len(shape)}")
        for axis, size in zip(self.axes, shape, strict=True):
            known = axis.number * math.prod([sizes[letter] for letter in axis.letters if letter in sizes])
            unknown = [letter for letter in axis.letters if letter not in sizes]
            if not unknown and known != size:
                raise AxisError(f"{came}: {axis} is {known}, not {size}")
            if unknown and (size % known if known else size):
                raise AxisError(f"{came}: {axis} is a multiple of {known}, and {size} is not")
            if len(unknown) == 1:
                sizes[unknown[0]] = size // known if known else 0


@dataclass(frozen=True, slots=True)
class Pattern:
    """What goes in and what comes out, in letters."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def __str__(self) -> str:
        return f"{', '.join(map(str, self.inputs))} -> {', '.join(map(str, self.outputs))}"


def spell(shape: Shape) -> str:
    """A shape for people: `1×12×197×64`."""
    return "×".join(map(str, shape)) or "a single number"


@cache
def parse_tensor(text: str) -> Tensor:
    """Read `q: b h n d` or `b n (3 h d)`.

    Raises:
        AxisError: something in it is neither a letter, a number nor a bracketed group of them.
    """
    name, colon, axes = text.rpartition(":")
    if colon and not name.strip().isidentifier():
        raise AxisError(f"cannot read {text.strip()!r}: a tensor's name is a word, such as 'q: b h n d'")
    if re.sub(r"\([^()]*\)|[a-z]\b|\d+|\s", "", axes):
        raise AxisError(f"cannot read {text.strip()!r}: axes are single letters, numbers and groups such as (3 h d)")
    return Tensor(name.strip(), tuple(_factors(axis) for axis in re.findall(r"\([^()]*\)|[a-z]|\d+", axes)))


@cache
def parse_pattern(text: str) -> Pattern:
    """Read `q: b h n d, k: b h m d -> scores: b h n m`.

    Raises:
        AxisError: it has not exactly one arrow, or a tensor in it cannot be read.
    """
    sides = text.split("->")
    if len(sides) != 2:
        raise AxisError(f"cannot read {text!r}: one arrow between what goes in and what comes out, 'b n c -> b n c'")
    inputs, outputs = (tuple(map(parse_tensor, side.split(","))) for side in sides)
    return Pattern(inputs, outputs)


@cache
def parse_count(text: str) -> tuple[Factors, ...]:
    """Read `3 c c + 3 c` into its terms, or `3 c c - c`; nothing is no term."""
    return tuple(map(_factors, filter(str.strip, re.sub(r"(^|\s)-\s", r"\1+ -1 ", text).split("+"))))


def count(text: str, sizes: Sizes) -> int:
    """The value of a count such as `3 c c + 3 c` for these sizes."""
    return sum([term.size(sizes) for term in parse_count(text)])


def _factors(text: str) -> Factors:
    words = text.strip("() ").replace("(", " ").replace(")", " ").split()
    for word in words:
        if not re.fullmatch(r"[a-z]|-?\d+", word):
            raise AxisError(f"cannot read {text.strip()!r}: {word!r} is neither a single letter nor a number")
    number = math.prod([int(word) for word in words if not word.isalpha()])
    return Factors(number, tuple(word for word in words if word.isalpha()), text.strip())
