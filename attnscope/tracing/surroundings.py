"""Restore what a forward can reach outside of its module: globals, closures, class attributes, defaults and caches.

A forward that keeps a table there would otherwise leave the caller a tensor of the meta device, or of a copy.
"""

import random
import sys
import threading
from array import array
from ast import literal_eval
from collections import ChainMap, OrderedDict, UserDict, UserList, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from gc import get_referents
from itertools import chain, count
from queue import Queue
from types import CellType, CodeType, FunctionType, MappingProxyType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from attnscope.tracing.copying import slots_of
from attnscope.tracing.isolation import Inputs, values_as_before
from attnscope.tracing.tree import modules_of

Restore = Callable[[], object]

NOT_THE_USERS = sys.stdlib_module_names | {"torch", "numpy", "attnscope", "_pytest", "pluggy"}
"""Packages whose state is not that of a forward. pytest is in each function with an `assert`, and has much to search."""
ATOMS = (int, float, complex, bool, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
"""Types of values that never change."""
NAMESPACES = (SimpleNamespace, threading.local, nn.Module, ChainMap, UserDict, UserList, Queue)
"""Types of others whose attributes may be the user's."""
LARGEST = 10_000
"""The largest number of values of a container that are searched for functions and objects."""
LARGEST_ARRAY = 2**26
"""The most bytes of a NumPy array that are kept. Unlike those of a tensor, they must be copied."""
MISSING = object()


@contextmanager
def surroundings_as_before(module: nn.Module, inputs: Inputs) -> Iterator[None]:
    """Restore at the end of a `with` block what a forward can reach outside of its module and inputs.

    The code of the module says what that is: the names in its functions, and in the functions that these call. A result
    that `functools.lru_cache` keeps is forgotten.

    Args:
        module: the module, of which a copy runs.
        inputs: the arguments of its forward.
    """
    functions = filter(callable, (*inputs[0], *inputs[1].values()))
    with ExitStack() as stack:
        for restore in _Search().restores([*_code_of(module), *functions]):
            stack.callback(restore)
        yield


def _code_of(module: nn.Module) -> Iterator[Any]:
    """Yield the classes of a module, and the functions and hooks among its attributes."""
    for submodule in modules_of(module):
        yield type(submodule)
        for name, value in vars(submodule).items():
            if name.endswith("_hooks") and isinstance(value, dict):
                yield from value.values()
            elif callable(value):
                yield value


class _Search:
    """A search for places that code can reach and change. It ends at the standard library and at torch."""

    def __init__(self) -> None:
        self.seen: dict[int, Any] = {}  # with the values, so that no identity is used twice
        self.named: set[tuple[int, str]] = set()
        self.found: list[Any] = []

    def restores(self, roots: Iterable[Any]) -> Iterator[Restore]:
        """Yield a function for each place within reach of these values; it restores what is there now."""
        self.found.extend(roots)
        while self.found:
            value = self.found.pop()
            if not isinstance(value, ATOMS) and id(value) not in self.seen:
                self.seen[id(value)] = value
                yield from self.visit(value)

    def visit(self, value: Any) -> Iterator[Restore]:
        """Yield a function for each place in a value, and add to `found` what is in these places."""
        if isinstance(value, FunctionType):
            yield from self.function(value)
        elif isinstance(value, MethodType | partial | property | classmethod | staticmethod):
            self.found += get_referents(value)
        elif hasattr(type(value), "cache_clear") and hasattr(value, "__wrapped__"):
            self.found.append(value.__wrapped__)
            yield _cache(value)
        elif isinstance(value, CellType):
            self.found += get_referents(value)
            yield _cell(value)
            for counter in filter(_is_counter, get_referents(value)):
                value.cell_contents = _twin(counter)
        elif isinstance(value, Tensor):
            self.found += [vars(value), *_parts_of(value)]
            yield values_as_before(value)
        elif isinstance(value, tuple | frozenset | list | set | deque | dict):
            if isinstance(value, tuple | frozenset):
                self.found += tuple.__iter__(value) if isinstance(value, tuple) else frozenset.__iter__(value)
                return
            parts = _parts(value)
            if len(parts) <= LARGEST:
                self.found += [part[-1] for part in parts]
            yield _contents(value)
            for key, counter in _counters(value):
                _set_item(value, key, _twin(counter))
        elif isinstance(value, type):
            if _is_users(value):
                self.found += [*value.__bases__, *vars(value).values()]
            if _is_users(value) or issubclass(value, nn.Module | Tensor):
                yield _attributes(value)
                for name, counter in _counters(vars(value)):
                    setattr(value, name, _twin(counter))
        elif not isinstance(value, ModuleType):
            self.found.append(type(value))
            yield from _state(value)
            if isinstance(value, NAMESPACES) or _is_users(type(value)):
                self.found.append(_namespace(value))
                yield from self.slots(value)

    def slots(self, value: Any) -> Iterator[Restore]:
        """Yield a function for each slot of an object."""
        for slot in slots_of(type(value)):
            before = _filling(slot, value)
            self.found.append(before)
            yield partial(_fill, slot, value, before)

    def function(self, function: FunctionType) -> Iterator[Restore]:
        """Yield a function for each global that a function names; its closure, defaults and attributes follow."""
        if _is_users(function):
            self.found += [function.__closure__, function.__defaults__, function.__kwdefaults__, function.__dict__]
            names = {"__warningregistry__", *_names(function.__code__)}
            if "globals" in names:  # it may bind names that it does not spell
                yield _contents(function.__globals__)
            yield from self.names(function.__globals__, names)

    def names(self, namespace: dict[str, Any], names: set[str]) -> Iterator[Restore]:
        """Yield a function for each of these names in a namespace; those in a module that is named follow."""
        for name in names:
            if (id(namespace), name) in self.named:
                continue
            self.named.add((id(namespace), name))
            value = namespace.get(name, MISSING)
            yield partial(_bind, namespace, name, value)
            if _is_counter(value):
                namespace[name] = _twin(value)
            if isinstance(value, ModuleType):
                if value.__name__.partition(".")[0] not in NOT_THE_USERS:
                    yield from self.names(vars(value), names)
                else:
                    yield from self.functions(vars(value), names)
            elif value is not MISSING:
                self.found.append(value)

    def functions(self, namespace: dict[str, Any], names: set[str]) -> Iterator[Restore]:
        """Yield a function for each function with one of these names in a library, which a forward may replace or add."""
        yield partial(_unbind_new, namespace, names - namespace.keys())
        for name in names & namespace.keys():
            value = namespace[name]
            if (id(namespace), name) in self.named or not (callable(value) or isinstance(value, ModuleType)):
                continue
            self.named.add((id(namespace), name))
            if isinstance(value, ModuleType):
                yield from self.functions(vars(value), names)
                continue
            yield partial(_bind, namespace, name, value)
            if isinstance(value, type):
                self.found.append(value)


def _namespace(value: Any) -> Any:
    """Return the attributes of an object, without a call of its own `__getattr__`, which may raise anything."""
    if isinstance(value, threading.local):
        return vars(value)  # those of this thread
    try:
        return object.__getattribute__(value, "__dict__")
    except AttributeError:
        return None


def _is_users(code: Any) -> bool:
    """Return whether a function or class may belong to the user."""
    return (getattr(code, "__module__", None) or "").partition(".")[0] not in NOT_THE_USERS | {"builtins"}


def _names(code: CodeType) -> Iterator[str]:
    """Yield the names of globals and attributes in a function and in those inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _parts_of(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the tensors with the values of a sparse tensor."""
    if tensor.layout is torch.sparse_coo:
        yield tensor._values()
    elif tensor.layout in (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc):
        yield tensor.values()


def _bind(namespace: dict[str, Any], name: str, value: Any) -> None:
    """Restore a name in a namespace."""
    if namespace.get(name, MISSING) is value:
        return
    if value is MISSING:
        del namespace[name]
    else:
        namespace[name] = value


def _unbind_new(namespace: dict[str, Any], names: set[str]) -> None:
    """Remove those of the names that were added to the namespace of a library, except for its modules imported since."""
    for name in names & namespace.keys():
        if not isinstance(namespace[name], ModuleType):
            del namespace[name]


def _is_counter(value: Any) -> bool:
    return type(value) is count


def _set_item(values: Any, key: Any, value: Any) -> None:
    """Set a value in a dictionary, without a method of its own class."""
    dict.__setitem__(values, key, value)


def _counters(values: Any) -> list[tuple[Any, "count[Any]"]]:
    """Return the keys and values of the counters in a dictionary or in the attributes of a class."""
    if not isinstance(values, dict | MappingProxyType):
        return []
    items: Any = dict.items if isinstance(values, dict) else MappingProxyType.items
    return [(key, value) for key, value in items(values) if _is_counter(value)]


def _twin(counter: "count[Any]") -> "count[Any]":
    """Return a counter for a forward to advance, since none can be set back; the counter itself if its numbers are unusual.

    Copies of itertools.count are gone in Python 3.14; its text has all that it needs.
    """
    try:
        return count(*literal_eval(f"{repr(counter).removeprefix('count')[:-1]},)"))
    except (SyntaxError, ValueError):
        return counter


def _attributes(cls: type) -> Restore:
    """Return a function that restores the attributes of a class, without those that Python sets itself."""
    before = dict(vars(cls))

    def restore() -> None:
        now = dict(vars(cls))
        for name in now.keys() | before.keys():
            if now.get(name, MISSING) is before.get(name, MISSING) or name.startswith("__"):
                continue
            if name in before:
                setattr(cls, name, before[name])
            else:
                delattr(cls, name)

    return restore


def _state(value: Any) -> Iterator[Restore]:
    """Yield a function that restores a generator of random numbers or an array; none for other objects."""
    numpy = sys.modules.get("numpy")
    if isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
        yield partial(value.setstate, value.getstate())
    elif isinstance(value, torch.Generator):
        yield partial(value.set_state, value.get_state())
    elif isinstance(value, bytearray | array):
        yield partial(value.__setitem__, slice(None), value[:])
    elif numpy is None:
        return
    elif isinstance(value, numpy.random.Generator):
        yield partial(setattr, value.bit_generator, "state", value.bit_generator.state)
    elif isinstance(value, numpy.random.RandomState):
        yield partial(value.set_state, value.get_state())
    elif isinstance(value, numpy.ndarray) and value.flags.writeable and value.nbytes <= LARGEST_ARRAY:
        yield partial(numpy.copyto, value, value.copy())


def _filling(slot: Any, value: Any) -> Any:
    """Return what is in a slot of an object; MISSING if nothing is."""
    try:
        return slot.__get__(value)
    except AttributeError:
        return MISSING


def _fill(slot: Any, value: Any, before: Any) -> None:
    """Restore a slot of an object."""
    if _filling(slot, value) is before:
        return
    if before is MISSING:
        slot.__delete__(value)
    else:
        slot.__set__(value, before)


CONTAINERS = (OrderedDict, dict, list, set, deque)
"""Types of containers, of which a subclass may change what its own methods return."""


def _contents(values: Any) -> Restore:
    """Return a function that restores the contents of a container in place, with the methods of its built-in type."""
    kind: Any = next(kind for kind in CONTAINERS if isinstance(values, kind))
    before = _parts(values)

    def restore() -> None:
        if [*map(id, chain(*_parts(values)))] == [*map(id, chain(*before))]:
            return
        kind.clear(values)
        for part in before:
            if isinstance(values, dict):
                kind.__setitem__(values, *part)
            elif isinstance(values, set):
                kind.add(values, *part)
            else:
                kind.append(values, *part)

    return restore


def _parts(values: Any) -> list[tuple[Any, ...]]:
    """Return the keys and values in a container, in its order, as it has them."""
    if isinstance(values, dict):
        keys = OrderedDict.__iter__(values) if isinstance(values, OrderedDict) else dict.__iter__(values)
        return [(key, dict.__getitem__(values, key)) for key in keys]
    kind: Any = next(kind for kind in CONTAINERS if isinstance(values, kind))
    return [(value,) for value in kind.__iter__(values)]


def _cell(cell: CellType) -> Restore:
    """Return a function that restores a variable of a closure."""
    before = get_referents(cell)

    def restore() -> None:
        if before and (now := get_referents(cell)) and now[0] is before[0]:
            return
        if before:
            cell.cell_contents = before[0]
        elif get_referents(cell):
            del cell.cell_contents

    return restore


def _cache(cached: Any) -> Restore:
    """Return a function that clears a `functools.lru_cache` that has kept a tensor or a module since."""
    before = cached.cache_info().misses

    def restore() -> None:
        if cached.cache_info().misses != before and any(map(_keeps, get_referents(cached))):
            cached.cache_clear()

    return restore


def _keeps(value: Any) -> bool:
    """Return whether a value that a cache keeps has a tensor or a module in it."""
    if isinstance(value, Tensor | nn.Module):
        return True
    if isinstance(value, dict):
        return any(map(_keeps, [*value, *value.values()]))
    if isinstance(value, tuple | list):
        return any(map(_keeps, value))
    return _is_users(type(value)) and _keeps(getattr(value, "__dict__", None))
