"""Wrappers that pass on what they lack, tables by module, and state of other kinds outside of a module."""

import collections
import functools
import logging
import types
import weakref
from typing import ClassVar

import pytest
import torch
from torch import nn

import attnscope
from attnscope.tracing.trace import ForwardError

WAYS = [{}, {"device": "cpu"}, {"time": True, "budget": 0.02}]


class Wrap(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.module, self.head = inner, nn.Linear(8, 8)

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)

    def forward(self, x):
        return self.head(self.module(x))


class Own(nn.Linear):
    def __deepcopy__(self, memo):
        memo[id(self)] = made = Own(8, 8)
        return made


class Answers(nn.Module):
    """Its `__getattr__` has an answer to every name."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return lambda *args: 7

    def forward(self, x):
        return self.layer(x) * self.anything()


INNER = {
    "plain": lambda: nn.Linear(8, 8),
    "fx": lambda: torch.fx.symbolic_trace(nn.Linear(8, 8)),
    "own copy": lambda: Own(8, 8),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)),
}


@pytest.mark.parametrize("settings", WAYS, ids=["meta", "cpu", "timed"])
@pytest.mark.parametrize("inner", INNER)
def test_a_wrapper_whose_getattr_finds_the_copier_of_what_it_wraps_is_traced_whole(inner, settings):
    report = attnscope.trace(nn.Sequential(Wrap(INNER[inner]()), nn.Linear(8, 8)), torch.randn(4, 8), **settings)
    assert report.totals.macs == 3 * 4 * 8 * 8


def test_a_module_with_an_answer_to_every_name_is_traced():
    assert attnscope.trace(nn.Sequential(Answers()), torch.randn(4, 8)).totals.macs == 256
    assert attnscope.trace(Answers(), torch.randn(4, 8)).totals.macs == 256


TABLES = {"dict": dict, "ordered": collections.OrderedDict, "weak": weakref.WeakKeyDictionary}


class Keyed(nn.Linear):
    def __init__(self, table, key):
        super().__init__(8, 8)
        self.table, self.key = lambda: table, key
        table[key(self)] = 2.0

    def forward(self, x):
        return super().forward(x) * self.table()[self.key(self)]


@pytest.mark.parametrize("settings", WAYS, ids=["meta", "cpu", "timed"])
@pytest.mark.parametrize(
    "key", [lambda m: m, id, lambda m: getattr(m, "weight", None)], ids=["module", "identity", "tensor"]
)
@pytest.mark.parametrize("kind", TABLES)
def test_a_table_by_module_outside_of_it_is_found_and_stays(kind, key, settings):
    if kind == "weak" and key(kind) is not kind:
        pytest.skip("only modules are compared by identity")
    table = TABLES[kind]()
    module = Keyed(table, key)
    assert attnscope.trace(module, torch.randn(4, 8), **settings).totals.macs == 256
    assert len(table) == 1
    assert table[key(module)] == 2.0


class NoTextError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class Fails(nn.Linear):
    def __init__(self, error):
        super().__init__(8, 8)
        self.error = error

    def forward(self, x):
        raise self.error(self)


@pytest.mark.parametrize("settings", WAYS, ids=["meta", "cpu", "timed"])
@pytest.mark.parametrize(
    "error", [lambda module: KeyError(module), lambda module: NoTextError()], ids=["module", "bad text"]
)
def test_an_error_whose_text_fails_is_the_users(error, settings):
    with pytest.raises(ForwardError, match="failed"):
        attnscope.trace(Fails(error), torch.randn(4, 8), **settings)


class Number(float):
    count = 0


def scale(x, by=1):
    return x


def other(x, by=1):
    return x


def add_logger():
    logging.getLogger("new.logger").addHandler(logging.NullHandler())


NUMBER, PROXY, LAYER = Number(1), types.MappingProxyType({"a": []}), nn.Linear(1, 1)
WEAK, SCALER = weakref.WeakKeyDictionary(), torch.amp.GradScaler("cpu")
OUTSIDE = {
    "number": (lambda: setattr(NUMBER, "count", 1), lambda: NUMBER.count),
    "proxy": (lambda: PROXY["a"].append(1), lambda: [*PROXY["a"]]),
    "weak": (lambda: WEAK.update({LAYER: torch.ones(1)}), lambda: len(WEAK)),
    "scaler": (lambda: SCALER.scale(torch.zeros(1, device="cpu")), lambda: SCALER._scale is None),
    "code": (lambda: setattr(scale, "__code__", other.__code__), lambda: scale.__code__),
    "defaults": (lambda: setattr(scale, "__defaults__", (2,)), lambda: scale.__defaults__),
    "logger": (add_logger, lambda: [*logging.getLogger("new.logger").handlers]),
}


class Changes(nn.Linear):
    def __init__(self, change):
        super().__init__(8, 8)
        self.change = change

    def forward(self, x):
        self.change()
        return super().forward(x)


@pytest.mark.parametrize("settings", WAYS, ids=["meta", "cpu", "timed"])
@pytest.mark.parametrize("place", OUTSIDE)
def test_state_of_other_kinds_outside_the_module_is_as_before(place, settings):
    change, look = OUTSIDE[place]
    if place == "logger":
        logging.root.manager.loggerDict.pop("new.logger", None)
        look = functools.partial(
            lambda: (
                [*logging.root.manager.loggerDict.get("new.logger", logging.root).handlers]
                if "new.logger" in logging.root.manager.loggerDict
                else []
            )
        )
    before = look()
    attnscope.trace(Changes(change), torch.randn(4, 8), **settings)
    assert look() == before


TABLE = {}


def table(size):
    if size not in TABLE:
        TABLE[size] = torch.arange(size).float()
    return TABLE[size]


class Positions:
    cache: ClassVar[dict] = {}

    def get(self, size):
        if size not in self.cache:
            self.cache[size] = torch.arange(size).float()
        return self.cache[size] + table(size)


class Adds(nn.Module):
    def __init__(self, positions=None):
        super().__init__()
        self.layer, self.held = nn.Linear(8, 8), {"a": [positions]}

    def forward(self, x, positions=None):
        return self.layer(x) + (positions or self.held["a"][0]).get(8)


@pytest.mark.parametrize("settings", WAYS, ids=["meta", "cpu", "timed"])
@pytest.mark.parametrize("where", ["attribute", "input"])
def test_tables_of_the_class_of_an_object_are_those_of_the_caller(where, settings):
    Positions.cache.clear()
    TABLE.clear()
    module, given = (Adds(Positions()), ()) if where == "attribute" else (Adds(), (Positions(),))
    attnscope.trace(module, torch.randn(4, 8), *given, **settings)
    assert Positions.cache == TABLE == {}
    assert module(torch.randn(4, 8), *given).device.type == "cpu"


class Named(torch.Tensor):
    """A subclass with methods of its own, and the operators of torch."""

    def doubled(self):
        return self * 2


class UsesNamed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.register_buffer("table", torch.ones(8).as_subclass(Named))

    def forward(self, x, also):
        assert type(x) is type(self.table) is type(also["more"][0]) is Named
        return self.layer(x.doubled()) + self.table.doubled()


@pytest.mark.parametrize("settings", WAYS, ids=["meta", "cpu", "timed"])
def test_inputs_and_buffers_of_a_subclass_keep_their_methods(settings):
    x = torch.randn(4, 8).as_subclass(Named)
    assert attnscope.trace(UsesNamed(), x, {"more": [x]}, **settings).totals.macs == 256
