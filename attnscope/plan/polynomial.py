"""The MACs of a step as a polynomial in its axis letters, such as `3·b·n·c·h·d`.

The operation of a step is a function of the sizes of its letters. Three sizes of one letter separate the terms of degree
0, 1 and 2 in it. So the polynomial is found letter by letter, in exact arithmetic, and then checked at other sizes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import prod

from attnscope.core.axes import Sizes
from attnscope.core.errors import PlanError
from attnscope.plan.plan import SizedStep


@dataclass(frozen=True)
class Term:
    """An integer times powers of letters."""

    coefficient: int
    powers: tuple[tuple[str, int], ...]

    def value(self, sizes: Sizes) -> int:
        """Return the value for these sizes of the letters."""
        return self.coefficient * prod(sizes[letter] ** power for letter, power in self.powers)

    def __str__(self) -> str:
        number = [str(self.coefficient)] if self.coefficient != 1 or not self.powers else []
        return "·".join([*number, *(letter + {1: "", 2: "²"}[power] for letter, power in self.powers)])


@dataclass(frozen=True)
class Polynomial:
    """A sum of terms; 0 without terms."""

    terms: tuple[Term, ...]

    def value(self, sizes: Sizes) -> int:
        """Return the value for these sizes of the letters."""
        return sum(term.value(sizes) for term in self.terms)

    @property
    def letters(self) -> list[str]:
        """Return the letters, each once, in their order."""
        return list(dict.fromkeys(letter for term in self.terms for letter, _ in term.powers))

    def __str__(self) -> str:
        return " + ".join(map(str, self.terms)) or "0"


Count = Callable[[Sizes], int]


def macs_of(step: SizedStep) -> Polynomial | None:
    """Return the MACs of one call of a step as a polynomial; None if no polynomial gives them."""
    known = _found(_Counted(step))  # steps that differ only in their sizes share it, unless their operation is another
    if known is not None and known.value(step.sizes) == step.macs:
        return known
    return _find(_Counted(step))


class _Counted:
    """The MACs of a step as a function of sizes; equal for steps with the same operation, pattern and weights."""

    def __init__(self, step: SizedStep) -> None:
        self.sized = step
        self.key = step.step.op, step.step.pattern, tuple(step.step.weights.items())

    def __call__(self, sizes: Sizes) -> int:
        return SizedStep(self.sized.step, dict(sizes)).macs

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Counted) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


def _find(count: _Counted) -> Polynomial | None:
    """Return the polynomial, from sizes around those of the step, after a check at others; None if it does not exist."""
    step, size_of = count.sized.step, count.sized.sizes
    tensors = (*step.letters.inputs, *step.letters.outputs, *step.weight_shapes.values())
    letters = dict.fromkeys(each for tensor in tensors for each in tensor.letters)
    free = [letter for letter in letters if _varies(count, size_of, letter)]
    terms = []
    for value, powers in _separated(count, size_of, free):
        coefficient = Fraction(value, prod(size_of[letter] ** power for letter, power in powers))
        if coefficient.denominator != 1:
            return None
        terms.append(Term(int(coefficient), tuple((letter, power) for letter, power in powers if power)))
    found = Polynomial(tuple(terms))
    others = ({**size_of, **{each: size_of[each] * factor for each in free}} for factor in (1, 3, 5))
    return found if all(found.value(sizes) == count(sizes) for sizes in others) else None


_found = lru_cache(maxsize=1024)(_find)


def _varies(count: Count, sizes: Sizes, letter: str) -> bool:
    """Return whether the operation runs with another size of a letter; a kernel may fix it, as 3×3."""
    try:
        count({**sizes, letter: 4 * sizes[letter]})
    except PlanError:
        return False
    return True


def _separated(
    count: Count, sizes: Sizes, letters: list[str]
) -> Iterator[tuple[Fraction, tuple[tuple[str, int], ...]]]:
    """Yield the value at these sizes of each term, and its powers of the letters."""
    if not letters:
        yield Fraction(count(sizes)), ()
        return
    letter, *others = letters
    degrees = [degree for degree, value in enumerate(_components(count, sizes, letter)) if value]
    for degree in degrees:
        part = count if len(degrees) == 1 else _part(count, letter, degree)
        for value, powers in _separated(part, sizes, others):
            yield value, ((letter, degree), *powers)


def _part(count: Count, letter: str, degree: int) -> Count:
    """Return the function that counts only the terms of this degree in a letter."""
    return lambda sizes: _components(count, sizes, letter)[degree]  # type: ignore[return-value] # a Fraction is exact


def _components(count: Count, sizes: Sizes, letter: str) -> tuple[Fraction, ...]:
    """Return the terms of degree 0, 1 and 2 in a letter, from the counts at one, two and four times its size.

    For the terms p, q, r, the first count is p + q + r. The second is p + 2q + 4r, and the third p + 4q + 16r.
    """
    one, two, four = (Fraction(count({**sizes, letter: factor * sizes[letter]})) for factor in (1, 2, 4))
    square = (four - 3 * two + 2 * one) / 6
    linear = two - one - 3 * square
    return one - linear - square, linear, square
