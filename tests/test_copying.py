"""Copies of modules and inputs that copy.deepcopy would share, copy wrongly, or refuse."""

import gc
import threading
import weakref
from collections import OrderedDict, UserDict, defaultdict, namedtuple
from dataclasses import dataclass
from types import MappingProxyType

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import attnscope
from attnscope.tracing.trace import ForwardError

SETTINGS = {"meta": {}, "cpu": {"device": "cpu"}, "timed": {"time": True, "budget": 0.01}}
ways = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
Pair = namedtuple("Pair", ["x", "size"])


class Ordered(OrderedDict):
    """A dictionary of a class of its own."""


@dataclass(frozen=True, slots=True)
class Frozen:
    x: torch.Tensor


class RefusesCopy:
    """An input that copy.deepcopy does not copy."""

    __slots__ = ("__dict__", "__size")

    def __init__(self, x):
        self.x, self.__size = x, len(x)

    def __deepcopy__(self, memo):
        raise TypeError("no copy")

    def read(self):
        return self.x[: self.__size]


INPUTS = {
    "OrderedDict": (OrderedDict, lambda x: OrderedDict(x=x), lambda given: given["x"]),
    "subclass": (Ordered, lambda x: Ordered(x=x), lambda given: given["x"]),
    "defaultdict": (defaultdict, lambda x: defaultdict(list, x=x), lambda given: (given["missing"], given["x"])[1]),
    "UserDict": (UserDict, lambda x: UserDict(x=x), lambda given: given["x"]),
    "read-only": (MappingProxyType, lambda x: MappingProxyType({"x": x}), lambda given: given["x"]),
    "namedtuple": (Pair, lambda x: Pair(x, 1), lambda given: given.x),
    "frozen": (Frozen, Frozen, lambda given: given.x),
    "refuses": (RefusesCopy, RefusesCopy, RefusesCopy.read),
    "parameter": (nn.Parameter, nn.Parameter, lambda given: given),
    "module": (nn.ParameterDict, lambda x: nn.ParameterDict({"x": nn.Parameter(x)}), lambda given: given["x"]),
    "packed": (PackedSequence, lambda x: pack_sequence([x]), lambda given: given.data),
}


class Reads(nn.Linear):
    """A forward that reads a tensor from its input, whose class it requires, and changes it."""

    def __init__(self, kind, read):
        super().__init__(4, 6)
        self.kind, self.read = kind, read

    def forward(self, given):
        assert type(given) is self.kind
        x = self.read(given)
        return super().forward(x.detach().mul_(2))


@ways
@pytest.mark.parametrize(("kind", "give", "read"), INPUTS.values(), ids=INPUTS)
def test_inputs_keep_their_type_and_reach_the_device(kind, give, read, settings):
    x = torch.ones(3, 4)
    given = give(x)
    report = attnscope.trace(Reads(kind, read), given, **settings)
    assert report.totals.macs == 3 * 4 * 6
    assert report.notes == []
    assert torch.equal(read(given), torch.ones(3, 4))


class HasSlot(nn.Linear):
    __slots__ = ("scale",)

    def __init__(self):
        super().__init__(4, 6)
        self.scale = [2.0]

    def forward(self, x):
        self.scale[0] += 1
        return super().forward(x) * self.scale[0]


class HasSlotAndRefuses(HasSlot):
    def __deepcopy__(self, memo):
        raise TypeError("no copy")


class NeedsArguments(nn.Linear):
    def __new__(cls, width):
        return super().__new__(cls)

    def __init__(self, width):
        super().__init__(4, width)


class PicklesPartly(nn.Linear):
    def __init__(self):
        super().__init__(4, 6)
        self.scale = 2

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name != "scale"}

    def forward(self, x):
        return super().forward(x) * self.scale


class Child(nn.Module):
    def __init__(self, parent):
        super().__init__()
        self.parent, self.hook = weakref.ref(parent), weakref.WeakMethod(parent.count)

    def forward(self, x):
        self.parent().calls += 1
        self.hook()()
        return x * self.parent().weight.sum()


class HasWeakReferences(nn.Linear):
    """A module whose child, dictionaries and set refer to modules weakly."""

    def __init__(self):
        super().__init__(4, 6)
        self.act = nn.ReLU()
        self.calls = 0
        self.child = Child(self)
        self.names = weakref.WeakKeyDictionary({self.act: "act", torch.nn.functional.linear: "linear"})
        self.modules_by_name = weakref.WeakValueDictionary(act=self.act)
        self.seen = weakref.WeakSet([self.act])

    def count(self):
        self.calls += 1

    def forward(self, x):
        assert (self.names[self.act], self.names[torch.nn.functional.linear]) == ("act", "linear")
        assert self.modules_by_name["act"] is self.act
        assert list(self.seen) == [self.act]
        return self.child(self.act(super().forward(x)))


class RefusesAttributes(nn.Linear):
    """A module whose flag for training cannot be set from outside."""

    def __init__(self):
        super().__init__(4, 6)
        self.is_ready = True

    def __setattr__(self, name, value):
        if name == "training" and vars(self).get("is_ready"):
            raise AttributeError("read-only")
        super().__setattr__(name, value)


class HidesParameters(nn.Linear):
    def __init__(self):
        super().__init__(4, 6)

    def parameters(self, recurse=True):
        raise AttributeError("not here")

    def named_parameters(self, *args, **kwargs):
        return iter(())


class Compares(nn.Linear):
    """A module that is equal to others, and therefore has no hash."""

    def __init__(self):
        super().__init__(4, 6)

    def __eq__(self, other):
        raise TypeError("cannot be compared")


KINDS = [
    Compares,
    HasSlot,
    HasSlotAndRefuses,
    lambda: NeedsArguments(6),
    PicklesPartly,
    HasWeakReferences,
    RefusesAttributes,
    HidesParameters,
]


@ways
@pytest.mark.parametrize("create", KINDS)
def test_modules_that_deepcopy_does_not_copy_are_traced(create, settings):
    module, x = create(), torch.ones(3, 4)
    weight, calls, scale = module.weight.clone(), getattr(module, "calls", None), getattr(module, "scale", None)
    scale = list(scale) if isinstance(scale, list) else scale
    report = attnscope.trace(module, x, **settings)
    assert report.totals.macs == 3 * 4 * 6
    assert report.notes == []
    assert torch.equal(module.weight, weight)
    assert (getattr(module, "calls", None), getattr(module, "scale", None)) == (calls, scale)
    module(x)


def test_equal_submodules_are_two_modules():
    class Equal(nn.Linear):
        def __eq__(self, other):
            return True

        def __hash__(self):
            return 1

    report = attnscope.trace(nn.Sequential(Equal(4, 4), Equal(4, 4, bias=False)), torch.ones(3, 4))
    assert (report.totals.macs, report.totals.params) == (2 * 3 * 4 * 4, (4 * 4 + 4) + 4 * 4)
    assert [row.path for row in report.steps] == ["0", "1"]


class Handle:
    """An owner of a resource, which a second owner would release too."""

    def __init__(self, released):
        self.released = released

    def __del__(self):
        self.released.append(self)


class OwnsHandle(nn.Linear):
    """A module that owns a resource, also through an object."""

    def __init__(self, released):
        super().__init__(4, 6)
        self.handle, self.released, self.lock = Handle(released), released, threading.Lock()

    def __deepcopy__(self, memo):
        raise TypeError("no copy")

    def __del__(self):
        self.released.append(self)


@ways
def test_a_resource_is_released_once_by_its_owner(settings):
    released = SharedList()
    module = OwnsHandle(released)
    attnscope.trace(module, torch.ones(3, 4), **settings)
    gc.collect()
    assert released == []


class SharedList(list):
    """A list that its copies share."""

    def __deepcopy__(self, memo):
        return self


class InCycle(nn.Module):
    """A module that refers to itself, as a hook that is a method does."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))
        self.layers.register_forward_hook(self.after)

    def after(self, module, args, out):
        self.last = out

    def forward(self, x):
        return self.layers(x)


@ways
@pytest.mark.parametrize("fails", [False, True])
def test_a_copy_is_freed_without_a_collection(settings, fails):
    def alive():
        tensors = [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor)]
        return {id(tensor) for tensor in tensors if tensor.shape == (4, 6) and not tensor.is_meta}

    module = InCycle()
    x = torch.ones(3, 5 if fails else 4)
    with pytest.raises(ForwardError) if fails else torch.no_grad():
        attnscope.trace(module, x, **settings)  # torch keeps what its first call imports
    gc.collect()
    gc.disable()
    try:
        before = alive()
        try:
            attnscope.trace(module, x, **settings)
        except ForwardError:
            assert fails
        assert alive() == before
    finally:
        gc.enable()


class FindsByIdentity(nn.Module):
    """A module with tables by the identities of its parts, as optimizers and some caches have them."""

    def __init__(self):
        super().__init__()
        self.names, self.scales, self.known = OrderedDict(), {}, set()
        self.first, self.rest = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4))
        self.register_buffer("shift", torch.ones(4))
        for part in (self.rest, self.shift, self.first, self.rest[0].weight, self):
            self.names[id(part)] = type(part).__name__
            self.scales[id(part), "scale"] = [id(part)]
            self.known.add(id(part))
        self.last = id(part)

    def forward(self, x):
        for part in (self.rest, self.shift, self.first, self.rest[0].weight, self):
            assert self.names[id(part)] == type(part).__name__
            assert self.scales[id(part), "scale"] == [id(part)]
            assert id(part) in self.known
        assert [*self.names] == [identity for [identity] in self.scales.values()]
        assert self.last == id(self)
        return self.rest(self.first(x)) + self.shift


@ways
def test_tables_by_identities_find_the_copies(settings):
    module, x = FindsByIdentity(), torch.randn(2, 4)
    assert attnscope.trace(module, x, **settings).totals.macs == 64
    module(x)
