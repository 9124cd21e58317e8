"""Symbolic formulas as papers print them.

A formula is declared once, then printed, evaluated, and listed with the values of its symbols.

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
    """A symbol with its value.

    Args:
        name: its printed name: `hw`, `M²`.
        values: one integer, or one for each stage of a network.
        spelled: the values as text, if they are not printed as integers: `7×7`.
        note: the text after the value: `with padding`.
        stage: the stage, from 1, if the symbol is the value in that stage alone: `C₄`.
    """

    name: str
    values: tuple[int, ...]
    spelled: tuple[str, ...] = ()
    note: str = ""
    stage: int | None = None

    @property
    def words(self) -> str:
        """Return the name with its value: `hw = 3000`, `C = (96, 192)`."""
        values = self.spelled or tuple(map(str, self.values))
        value = values[0] if len(set(values)) == 1 else f"({', '.join(values)})"
        return f"{self.name} = {value} {self.note}".strip()

    def value(self, stage: int) -> int:
        """Return the value in a stage, counted from 0; a single value applies to all stages."""
        index = stage if self.stage is None else self.stage - 1
        return self.values[index if len(self.values) > 1 else 0]

    def __str__(self) -> str:
        is_one_of_many = self.stage is not None and len(self.values) > 1
        return self.name + (str(self.stage).translate(SUBSCRIPTS) if is_one_of_many else "")


@dataclass(frozen=True)
class Group:
    """A sum in parentheses; if `stages` is not 0, its sum over that number of stages."""

    inner: "Expression"
    stages: int = 0

    def value(self, stage: int) -> int:
        """Return the value in one stage, or the sum over all stages."""
        return sum(map(self.inner.at, range(self.stages))) if self.stages else self.inner.at(stage)

    def __str__(self) -> str:
        return f"{'Σ' if self.stages else ''}({self.inner})"


Factor = Symbol | Group


@dataclass(frozen=True)
class Product:
    """A product of an integer coefficient and factors; repeated factors are printed as powers."""

    coefficient: int
    factors: tuple[Factor, ...]

    def __str__(self) -> str:
        text = "" if self.coefficient == 1 and self.factors else str(self.coefficient)
        named = [str(factor) for factor in self.factors]
        factors = dict(zip(named, self.factors, strict=True))
        for name, power in Counter(named).items():  # names: a sum takes long to hash
            factor = factors[name]
            is_word = len(name) > 2 and name.isalpha()
            base = f"({name})" if power > 1 and isinstance(factor, Symbol) and len(name) > 1 else name
            text += ("·" if is_word and text else "") + base + POWERS[power]
        return text


@dataclass(frozen=True)
class Expression:
    """A sum of products, which supports `+`, `*` and `**` with expressions and integers.

    Products with the same factors are merged; a sum is put in parentheses before it is multiplied.
    """

    products: tuple[Product, ...]

    @property
    def value(self) -> int:
        """Return the value of the expression, in the first stage if it depends on the stage."""
        return self.at(0)

    def at(self, stage: int) -> int:
        """Return the value of the expression in a stage of a network, counted from 0."""
        return sum(product.coefficient * prod(f.value(stage) for f in product.factors) for product in self.products)

    @property
    def symbols(self) -> list[Symbol]:
        """Return the distinct symbols with all their values, in the order in which they appear."""
        return list(dict.fromkeys(self._symbols()))

    def _symbols(self) -> Iterator[Symbol]:
        for factor in (factor for product in self.products for factor in product.factors):
            if isinstance(factor, Group):
                yield from factor.inner._symbols()
            else:
                yield Symbol(factor.name, factor.values, factor.spelled, factor.note)

    def in_stage(self, stage: int) -> "Expression":
        """Return a single symbol restricted to one stage, counted from 1: `C₄`."""
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
    """Return an expression of one symbol, with one value or one for each stage of a network."""
    return _of(Symbol(name, values, spelled, note))


def over_stages(stages: int, summand: Expression) -> Expression:
    """Return the sum of an expression over the stages of a network, `Σ(…)`."""
    return _of(Group(summand, stages))


def _of(factor: Factor) -> Expression:
    return Expression((Product(1, (factor,)),))
