"""Twins of iterators: what an iterator has left, without advancing it."""

import inspect
import itertools
import operator
import sys

import pytest
import torch
from torch import nn

import attnscope
from attnscope.tracing.iterators import twin
from attnscope.tracing.trace import ForwardError
from tests.test_isolation import short_measurements, ways  # noqa: F401


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


@pytest.mark.parametrize("value", [(1, [itertools.count()]), [1], 1, print], ids=type)
def test_a_value_without_a_twin_is_itself(value):
    assert twin(value, {}) is value


def letters(text, *more, times=1, **named):
    yield from text * times
    yield from (*more, *named.values())


def test_a_generator_that_has_not_begun_has_a_twin():
    for make in (
        lambda: letters("ab", 1, iter("cd"), times=2, last=3),
        lambda: (letter for letter in iter("abc")),
        lambda: map(str.upper, letters("ab")),
    ):
        generator = make()
        made = twin(generator, {})
        read = [[*each] if hasattr(each, "__next__") else each for each in made]
        assert read == [[*each] if hasattr(each, "__next__") else each for each in make()]
        assert len([*generator]) == len(read)


class Reads(nn.Linear):
    """A layer that reads one more scale from an iterator, which it has or gets."""

    def __init__(self, scales=None):
        super().__init__(4, 4)
        self.scales = scales

    def forward(self, x, scales=None):
        return super().forward(x) * next(self.scales if scales is None else scales)


class Scales:
    def __init__(self):
        self.read = 0

    def all(self):
        while True:
            self.read += 1
            yield float(self.read)


GLOBAL = (float(number) for number in itertools.count())


class ReadsGlobal(nn.Linear):
    def forward(self, x):
        return super().forward(x) * next(GLOBAL)


@ways
def test_a_generator_that_has_not_begun_is_that_of_the_caller(settings):
    x, scales = torch.randn(2, 4), Scales()
    held, given = Reads(scales.all()), scales.all()
    assert attnscope.trace(held, x, **settings).totals.macs == 32
    assert attnscope.trace(Reads(), x, given, **settings).totals.macs == 32
    assert attnscope.trace(ReadsGlobal(4, 4), x, **settings).totals.macs == 32
    assert scales.read == 0
    assert {inspect.getgeneratorstate(each) for each in (held.scales, given, GLOBAL)} == {inspect.GEN_CREATED}
    assert (next(held.scales), next(given)) == (1.0, 2.0)


@ways
def test_a_generator_that_has_begun_is_refused_before_it_is_read(settings):
    x, scales = torch.randn(2, 4), Scales()
    begun = scales.all()
    next(begun)
    for module, inputs in ((Reads(begun), (x,)), (Reads(), (x, begun))):
        with pytest.raises(ForwardError, match=r"the generator Scales\.all has begun.*use a new one, a list"):
            attnscope.trace(module, *inputs, **settings)
    assert (scales.read, next(begun)) == (1, 2.0)
    assert attnscope.trace(Reads(begun), x, itertools.count(1.0), **settings).totals.macs == 32  # it is not read


@ways
def test_an_iterator_of_a_loader_is_that_of_the_caller(settings):
    draws = torch.Generator()
    loader = torch.utils.data.DataLoader(torch.arange(400.0), batch_size=1, shuffle=True, generator=draws)
    module, state = Reads(iter(loader)), draws.get_state()
    assert attnscope.trace(module, torch.randn(2, 4), **settings).totals.macs == 32
    assert torch.equal(draws.get_state(), state)
    assert len([*module.scales]) == 400
