"""Twins of iterators: what an iterator has left, without advancing it."""

import itertools
import operator
import sys

import pytest

from attnscope.tracing.iterators import twin


class Sequence:
    def __getitem__(self, index):
        return (10, 20, 30)[index]


BUILTIN = {
    "list": lambda: iter([1, 2, 3, 4]),
    "tuple": lambda: iter((1, 2, 3, 4)),
    "range": lambda: iter(range(5)),
    "str": lambda: iter("abcd"),
    "dict": lambda: iter({1: 2, 3: 4}),
    "set": lambda: iter({1, 2, 3}),
    "sequence": lambda: iter(Sequence()),
    "reversed": lambda: reversed([1, 2, 3]),
    "enumerate": lambda: enumerate([1, 1, 1]),
    "zip": lambda: zip([1, 2], iter([3, 4]), strict=True),
    "map": lambda: map(operator.neg, iter([1, 2, 3])),
    "filter": lambda: filter(None, iter([0, 1, 0, 2])),
}
OF_ITERTOOLS = {
    "cycle": lambda: itertools.cycle("abc"),
    "chain": lambda: itertools.chain([1, 2], iter([3])),
    "islice": lambda: itertools.islice(itertools.count(), 1, 9, 2),
    "repeat": lambda: itertools.repeat(1, 4),
    "accumulate": lambda: itertools.accumulate(iter([1, 2, 3])),
    "product": lambda: itertools.product("ab", [1, 2]),
    "permutations": lambda: itertools.permutations("abc"),
    "starmap": lambda: itertools.starmap(operator.add, iter([(1, 2), (3, 4)])),
    "tee": lambda: itertools.tee(iter([1, 2, 3]))[0],
}
COUNTERS = {"count": itertools.count, "count in steps": lambda: itertools.count(0.5, 2)}
MAKERS = {**COUNTERS, **BUILTIN} | (OF_ITERTOOLS if sys.version_info < (3, 14) else {})


def taken(iterator, number):
    return list(itertools.islice(iterator, number))


@pytest.mark.parametrize("advanced", range(6))
@pytest.mark.parametrize("name", MAKERS)
def test_a_twin_has_what_an_iterator_has_left(name, advanced):
    one, other = MAKERS[name](), MAKERS[name]()
    assert taken(one, advanced) == taken(other, advanced)
    made = twin(one, {})
    assert made is not one
    assert taken(made, 8) == taken(other, 8)
    assert taken(one, 8) == taken(MAKERS[name](), 8 + advanced)[advanced:]


def test_a_twin_sees_what_is_appended_to_the_list():
    values = [1]
    made = twin(iter(values), {})
    values.append(2)
    assert list(made) == [1, 2]


def test_an_iterator_in_two_places_has_one_twin():
    ids = itertools.count()
    numbers, take = twin((ids, ids.__next__), {})
    assert (next(numbers), take(), next(numbers)) == (0, 1, 2)
    assert next(ids) == 0


@pytest.mark.parametrize("value", [(value for value in "ab"), (1, [itertools.count()]), [1], 1, print], ids=type)
def test_a_value_without_a_twin_is_itself(value):
    assert twin(value, {}) is value
