"""Formulas in letters, as papers print them: declared once, then printed, evaluated, and listed with their values.

hw, C = symbol("hw", 3136), symbol("C", 96)
cost = 4 * hw * C**2 + 2 * hw**2 * C
str(cost)  # 4hwC² + 2(hw)²C
cost.value  # 2003828736
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Union

POWERS = {1: "", 2: "²", 3: "³"}
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


@dataclass(frozen=True)
class Symbol:
    """A letter with its value.

    Args:
        name: as it is printed: `hw`, `M²`.
        values: one whole number, or one for each stage of a network.
        spelled: the values in words where numbers are not enough: `7×7`.
        note: what follows the value: `with padding`.
        stage: the stage, from 1, if the letter stands for the value of that stage alone: `C₄`.
    """

    name: str
    values: tuple[int, ...]
    spelled: tuple[str, ...] = ()
    note: str = ""
    stage: int | None = None

    @property
    def words(self) -> str:
        """The value in words: `hw = 3000`, `C = (96, 192)`."""
        told = self.spelled or tuple(map(str, self.values))
        value = told[0] if len(set(told)) == 1 else f"({', '.join(told)})"
        return f"{self.name} = {value} {self.note}".strip()

    def value(self, stage: int) -> int:
        """Return the value in a stage, from 0; a single value holds in all stages."""
        index = stage if self.stage is None else self.stage - 1
        return self.values[index if len(self.values) > 1 else 0]

    def __str__(self) -> str:
        is_one_of_many = self.stage is not None and len(self.values) > 1
        return self.name + (str(self.stage).translate(SUBSCRIPTS) if is_one_of_many else "")


@dataclass(frozen=True)
class Group:
    """A sum in parentheses; with `stages`, the sum of it over so many stages of a network."""

    inner: "Expression"
    stages: int = 0

    def value(self, stage: int) -> int:
        """Return the value in a stage, or of all stages."""
        return sum(map(self.inner.at, range(self.stages))) if self.stages else self.inner.at(stage)

    def __str__(self) -> str:
        return f"{'Σ' if self.stages else ''}({self.inner})"


Factor = Symbol | Group


@dataclass(frozen=True)
class Product:
    """A whole coefficient and factors; a factor that is there twice is squared."""

    coefficient: int
    factors: tuple[Factor, ...]

    def __str__(self) -> str:
        told = "" if self.coefficient == 1 and self.factors else str(self.coefficient)
        for factor, power in Counter(self.factors).items():
            name = str(factor)
            is_word = len(name) > 2 and name.isalpha()
            base = f"({name})" if power > 1 and isinstance(factor, Symbol) and len(name) > 1 else name
            told += ("·" if is_word and told else "") + base + POWERS[power]
        return told


@dataclass(frozen=True)
class Expression:
    """A sum of products. `+`, `*` and `**` with expressions and whole numbers make further ones.

    Products of the same factors are added up; a sum that is multiplied is put in parentheses.
    """

    products: tuple[Product, ...]

    @property
    def value(self) -> int:
        """The number that it comes to."""
        return self.at(0)

    def at(self, stage: int) -> int:
        """Return the number that it comes to in a stage of a network, from 0."""
        return sum(product.coefficient * prod(f.value(stage) for f in product.factors) for product in self.products)

    @property
    def symbols(self) -> list[Symbol]:
        """The letters in it with all their values, each once, in the order in which they appear."""
        return list(dict.fromkeys(self._symbols()))

    def _symbols(self) -> Iterator[Symbol]:
        for factor in (factor for product in self.products for factor in product.factors):
            if isinstance(factor, Group):
                yield from factor.inner._symbols()
            else:
                yield Symbol(factor.name, factor.values, factor.spelled, factor.note)

    def in_stage(self, stage: int) -> "Expression":
        """Return a single letter as it is in one stage, from 1: `C₄`."""
        ((symbol,),) = (product.factors for product in self.products)
        assert isinstance(symbol, Symbol)
        return _of(Symbol(symbol.name, symbol.values, symbol.spelled, symbol.note, stage))

    def __add__(self, other: "Expression") -> "Expression":
        added: dict[frozenset[tuple[Factor, int]], Product] = {}
        for product in (*self.products, *other.products):
            key = frozenset(Counter(product.factors).items())
            before = added.get(key)
            coefficient = product.coefficient + (before.coefficient if before else 0)
            added[key] = Product(coefficient, before.factors if before else product.factors)
        return Expression(tuple(added.values()))

    def __mul__(self, other: Union["Expression", int]) -> "Expression":
        if other == 1:
            return self
        ours, theirs = self._as_product(), other._as_product() if isinstance(other, Expression) else Product(other, ())
        return Expression((Product(ours.coefficient * theirs.coefficient, ours.factors + theirs.factors),))

    __rmul__ = __mul__

    def __pow__(self, power: int) -> "Expression":
        product = self._as_product()
        return Expression((Product(product.coefficient**power, product.factors * power),))

    def _as_product(self) -> Product:
        return self.products[0] if len(self.products) == 1 else Product(1, (Group(self),))

    def __str__(self) -> str:
        return " + ".join(map(str, self.products))


def symbol(name: str, *values: int, spelled: tuple[str, ...] = (), note: str = "") -> Expression:
    """Return a letter with its value, or with one value for each stage of a network."""
    return _of(Symbol(name, values, spelled, note))


def over_stages(stages: int, summand: Expression) -> Expression:
    """Return the sum of an expression over the stages of a network, `Σ(…)`."""
    return _of(Group(summand, stages))


def _of(factor: Factor) -> Expression:
    return Expression((Product(1, (factor,)),))
