"""Conditions on the rows of a table, and their order: `macs<2G and heads=3`, `time`. Nothing in them is executed."""

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Generic, TypeVar

from attnscope.core.errors import UsageError, did_you_mean, quoted
from attnscope.core.units import read_quantity

Row = TypeVar("Row")

HEADINGS = {"images/s": "throughput"}
"""Headings of columns that differ from the names of their fields, which errors suggest the names for."""
Value = int | float | str | None
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "==": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
    "=": operator.eq,
}
"""The operators, those with two characters first."""
CONDITION = re.compile(r"\s*([A-Za-z][\w-]*)\s*(<=|>=|!=|==|<|>|=)\s*([^<>=!\s].*?)\s*")
BETWEEN = re.compile(r"\s+and\s+|\s*[,&]+\s*", re.IGNORECASE)
"""The separator of two conditions that must both hold."""
SWITCH = frozenset({"on", "off"})
"""The words of a field that is a switch."""
EXAMPLE = "'macs<2G and params<30M'"


@dataclass(frozen=True)
class Condition:
    """A comparison of a field with a number or a word."""

    field: str
    sign: str
    value: Fraction | str

    def holds(self, value: Value) -> bool | None:
        """Return whether a value satisfies the condition; None if the value is unknown."""
        if value is None:
            return None
        compare = OPERATORS[self.sign]
        if isinstance(self.value, str) or isinstance(value, str):
            return compare(str(value), str(self.value))
        return compare(Fraction(value), self.value)


@dataclass(frozen=True)
class Selection(Generic[Row]):
    """The rows that satisfy the conditions, in their order, and the number of rows left out because of unknown values."""

    rows: list[Row]
    unknown: int


def read_where(text: str, fields: Sequence[str]) -> list[Condition]:
    """Parse conditions that must all hold: `macs<2G`, `macs<2G and heads=3`.

    Args:
        text: the conditions.
        fields: the fields of a row.

    Raises:
        UsageError: the text has another form, a field does not exist, or a word is compared by its size.
    """
    conditions = []
    for part in BETWEEN.split(text.strip()):
        match = CONDITION.fullmatch(part)
        if match is None:
            raise UsageError(
                f"{{where}} must be FIELD<VALUE with <, <=, =, !=, >= or > (got {quoted(part)}), as {EXAMPLE}"
            )
        name, sign, value = match.groups()
        field = read_field("where", name, fields)
        number = read_quantity(value)
        if number is None and sign not in ("=", "==", "!="):
            raise UsageError(f"{{where}} {field} must be compared with a number, such as 2G (got {quoted(value)})")
        conditions.append(Condition(field, sign, value if number is None else number))
    return conditions


def read_sort(text: str, fields: Sequence[str]) -> tuple[str, bool]:
    """Parse the field to sort by, and whether the largest is first: `time`, `-macs`.

    Raises:
        UsageError: the field does not exist.
    """
    return read_field("sort", text.strip().removeprefix("-"), fields), text.strip().startswith("-")


def read_field(flag: str, text: str, fields: Sequence[str]) -> str:
    """Return the field with this name.

    Raises:
        UsageError: it does not exist.
    """
    name = text.lower()
    for field in fields:
        if name.replace("_", "-") == field.lower().replace("_", "-"):
            return field
    raise UsageError(f"{{{flag}}} {quoted(text)} is unknown; {did_you_mean(name, fields, synonyms=HEADINGS)}")


def select(
    rows: Sequence[Row],
    value: Callable[[Row, str], Value],
    where: Sequence[Condition] = (),
    sort: tuple[str, bool] | None = None,
) -> Selection[Row]:
    """Return the rows that satisfy all conditions, sorted by a field; a row with an unknown value is last.

    A row whose value is unknown satisfies no condition on it.

    Args:
        rows: the rows.
        value: returns the value of a field of a row.
        where: the conditions.
        sort: the field, and whether the largest is first.

    Raises:
        UsageError: a condition compares a field of numbers with a word, or a switch with something else than its words.
    """
    for condition in where:
        _check_word(condition, [value(row, condition.field) for row in rows])
    kept, unknown = [], 0
    for row in rows:
        holds = [condition.holds(value(row, condition.field)) for condition in where]
        if all(holds):
            kept.append(row)
        unknown += None in holds and False not in holds
    if sort is not None:
        field, largest_first = sort
        known = sorted(
            (row for row in kept if value(row, field) is not None),
            key=lambda row: _key(value(row, field)),
            reverse=largest_first,
        )
        kept = [*known, *(row for row in kept if value(row, field) is None)]
    return Selection(kept, unknown)


def _check_word(condition: Condition, values: Sequence[Value]) -> None:
    """Check that a condition on a field with numbers alone has a number, and one on a switch `on` or `off`."""
    known = [value for value in values if value is not None]
    if not known or not isinstance(condition.value, str):
        return
    if not any(isinstance(value, str) for value in known):
        raise UsageError(f"{{where}} {condition.field} is a number (got {quoted(condition.value)}), such as {known[0]}")
    if {*known} <= SWITCH and condition.value not in SWITCH:
        raise UsageError(f"{{where}} {condition.field} is on or off (got {quoted(condition.value)})")


def _key(value: Value) -> tuple[float, str]:
    """Return a key by which numbers are sorted before words."""
    return (float("inf"), value) if isinstance(value, str) else (float(value or 0), "")
