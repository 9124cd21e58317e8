"""Restore what a forward can reach outside of its module: globals, closures, class attributes, defaults and caches.

A forward that keeps a table there would otherwise leave the caller a tensor of the meta device, or of a copy.
"""

import ctypes
import os
import random
import sys
import threading
import warnings
from argparse import Namespace
from array import array
from collections import ChainMap, OrderedDict, UserDict, UserList, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from gc import get_referents
from io import BytesIO, IOBase, StringIO
from itertools import chain
from mmap import mmap
from multiprocessing.sharedctypes import SynchronizedBase
from queue import Queue
from types import CellType, CodeType, FunctionType, MappingProxyType, MethodType, ModuleType, SimpleNamespace
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary

import torch
from torch import Tensor, nn
from torch._library.custom_ops import OPDEFS, CustomOpDef
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.quasirandom import SobolEngine
from torch.utils.data import Sampler
from torch.utils.weak import WeakIdKeyDictionary

from attnscope.tracing.copying import slots_of
from attnscope.tracing.isolation import Inputs, values_as_before
from attnscope.tracing.iterators import Twins, twin
from attnscope.tracing.process_state import HOOKS
from attnscope.tracing.tree import modules_of, tensors_of

Restore = Callable[[], object]

NOT_THE_USERS = sys.stdlib_module_names | {"torch", "numpy", "attnscope", "_pytest", "pluggy"}
"""Packages whose state is not that of a forward. pytest is in each function with an `assert`, and has much to search."""
ATOMS = (int, float, complex, bool, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
"""Types of values that never change."""
NAMESPACES = (
    *(SimpleNamespace, Namespace, threading.local, threading.Event, ChainMap, UserDict, UserList, Queue),
    *(WeakKeyDictionary, WeakValueDictionary, WeakSet, WeakIdKeyDictionary, Sampler, GradScaler, SynchronizedBase),
    *(nn.Module, Optimizer, LRScheduler, SobolEngine, CustomOpDef),
)
"""Types of others whose attributes may be the user's."""
LARGEST = 10_000
"""The largest number of values of a container that are searched for functions and objects."""
LARGEST_ARRAY = 2**26
"""The most bytes of a NumPy array that are kept. Unlike those of a tensor, they must be copied."""
C_DATA: Any = ctypes.c_int.__mro__[-2]
"""The base of all types of ctypes."""
RLOCK: Any = type(threading.RLock())
MISSING = object()
BINDING = {"globals", "exec", "eval", "modules"}
"""Names of functions that bind names which the code does not spell."""
PYTHONS = {"__abstractmethods__", "__annotations__", "__annotations_cache__", "__slotnames__", "_abc_impl"}
"""Attributes of classes that Python itself sets."""


OF_EVERY_MODULE = frozenset(vars(nn.Module()))
"""Attributes that nn.Module itself sets."""
PLAIN = frozenset({*ATOMS, torch.Tensor, nn.Parameter})
"""Classes of values that share no code."""


class Surroundings:
    """Places that a forward can reach outside of the copy of its module, found from its code, and restored at the end.

    Args:
        module: the module, of which a copy runs.
        inputs: the arguments of its forward.
        stack: gets a function for each place, which restores it.
    """

    def __init__(self, module: nn.Module, inputs: Inputs, stack: ExitStack) -> None:
        self._module, self._stack, self._search = module, stack, _Search()
        given = [*inputs[0], *inputs[1].values()]
        of_every_module = chain(*map(dict.values, HOOKS))
        within = _code_in([*given, *_own_attributes(module)])
        self.keep([*_code_of(module), *filter(callable, given), *of_every_module, *within])

    def keep(self, values: Iterable[Any]) -> None:
        """Restore at the end what is now within reach of these values, such as the objects that a copy shares."""
        for restore in self._search.restores(values):
            self._stack.callback(restore)

    def find(self, there: nn.Module) -> None:
        """Add the copy of the module to tables outside of it that have the module as a key."""
        _add_keys(self._search.seen.values(), self._module, there)


@contextmanager
def surroundings_as_before(module: nn.Module, inputs: Inputs) -> Iterator[Surroundings]:
    """Restore at the end of a `with` block what a forward can reach outside of its module and inputs.

    The code of the module says what that is: the names in its functions, and in the functions that these call. A result
    that `functools.lru_cache` keeps is forgotten.
    """
    with ExitStack() as stack:
        yield Surroundings(module, inputs, stack)


def _add_keys(values: Iterable[Any], module: nn.Module, there: nn.Module) -> None:
    """Add the copy of a module to tables outside of it that have the module, its tensors, or their identities as keys."""
    originals, made = ([*modules_of(each), *tensors_of(each)] for each in (module, there))
    copies = {id(original): copy for original, copy in zip(originals, made, strict=False)}
    for table in list(values):
        if isinstance(table, WeakKeyDictionary):
            keys = {id(key): key for key in list(table)}
            for identity in copies.keys() & keys.keys():
                table[copies[identity]] = table[keys[identity]]
        elif isinstance(table, dict) and len(table) <= LARGEST:
            for key, value in list(dict.items(table)):
                if id(key) in copies:
                    _kind(table).__setitem__(table, copies[id(key)], value)
                elif type(key) is int and key in copies:
                    _kind(table).__setitem__(table, id(copies[key]), value)


def _code_of(module: nn.Module) -> Iterator[Any]:
    """Yield the classes of a module, and the functions and hooks among its attributes."""
    for submodule in modules_of(module):
        yield type(submodule)
        for name, value in vars(submodule).items():
            if name.endswith("_hooks") and isinstance(value, dict):
                yield from value.values()
            elif callable(value) or isinstance(value, IOBase):  # a copy of the module shares it
                yield value


def _own_attributes(module: nn.Module) -> Iterator[Any]:
    """Yield the attributes of all modules that are neither those of every module nor plain values."""
    for each in modules_of(module):
        for name, value in vars(each).items():
            if name not in OF_EVERY_MODULE and type(value) not in PLAIN:
                yield value


def _code_in(values: list[Any]) -> Iterator[Any]:
    """Yield the functions and the user's classes of objects within values, whose copies share what these classes keep."""
    found, seen, classes = [*values], dict[int, Any](), set[type]()
    while found:
        value = found.pop()
        if type(value) in PLAIN or id(value) in seen or isinstance(value, type | ModuleType):
            continue
        seen[id(value)] = value
        if isinstance(value, FunctionType | MethodType | partial):
            yield value
        elif isinstance(value, list | tuple | set | frozenset | deque | dict):
            parts = [*dict.keys(value), *dict.values(value)] if isinstance(value, dict) else [*value]
            if len(parts) <= LARGEST:
                found += parts
        if _is_users(type(value)):
            if type(value) not in classes:
                classes.add(type(value))
                yield type(value)
            if not isinstance(value, nn.Module):  # its attributes are among the values
                found.append(_namespace(value))
                found += [_filling(slot, value) for slot in slots_of(type(value))]
        elif isinstance(value, NAMESPACES) and not isinstance(value, nn.Module):
            found.append(_namespace(value))


class _Search:
    """A search for places that code can reach and change. It ends at the standard library and at torch."""

    def __init__(self) -> None:
        self.seen: dict[int, Any] = {}  # with the values, so that no identity is used twice
        self.named: set[tuple[int, str]] = set()
        self.found: list[Any] = []
        self.twins: Twins = {}

    def restores(self, roots: Iterable[Any]) -> Iterator[Restore]:
        """Yield a function for each place within reach of these values; it restores what is there now."""
        self.found.extend(roots)
        while self.found:
            value = self.found.pop()
            if type(value) not in ATOMS and id(value) not in self.seen:
                self.seen[id(value)] = value
                yield from self.visit(value)

    def visit(self, value: Any) -> Iterator[Restore]:
        """Yield a function for each place in a value, and add to `found` what is in these places."""
        if isinstance(value, FunctionType):
            yield from self.function(value)
        elif isinstance(value, MethodType | MappingProxyType | property | classmethod | staticmethod):
            self.found += get_referents(value)
        elif isinstance(value, partial):
            yield from self.partial(value)
        elif hasattr(type(value), "cache_clear") and hasattr(value, "__wrapped__"):
            self.found.append(value.__wrapped__)
            yield _cache(value)
        elif isinstance(value, CellType):
            self.found += get_referents(value)
            yield _cell(value)
            for content in get_referents(value):
                value.cell_contents = self.twin(content)
        elif isinstance(value, Tensor):
            self.found += [vars(value), *_parts_of(value), value.grad if value.is_leaf else None]
            yield values_as_before(value)
        elif isinstance(value, tuple):
            self.found += tuple.__iter__(value)
        elif isinstance(value, frozenset):
            self.found += frozenset.__iter__(value)
        elif isinstance(value, list | set | deque | dict):
            yield from self.container(value)
        elif isinstance(value, type):
            if _is_users(value):
                self.found += [*value.__bases__, *vars(value).values()]
            if _is_users(value) or issubclass(value, nn.Module | Tensor):
                yield _attributes(value)
                for name, attribute in list(vars(value).items()):
                    if (made := self.twin(attribute)) is not attribute:
                        type.__setattr__(value, name, made)  # its metaclass may refuse
        elif not isinstance(value, ModuleType):
            self.found += [type(value), *_elements(value)]
            yield from _state(value)
            if isinstance(value, NAMESPACES) or _is_users(type(value)):
                self.found.append(_namespace(value))
                yield from self.slots(value)

    def twin(self, value: Any) -> Any:
        """Return what a forward may advance in place of a value: a twin of an iterator; another value as it is."""
        return twin(value, self.twins)

    def container(self, values: Any) -> Iterator[Restore]:
        """Yield a function that restores a container. Its values follow if they are not too many."""
        parts = _parts(values)
        yield _contents(values)
        if isinstance(values, defaultdict):
            self.found.append(values.default_factory)
            yield partial(setattr, values, "default_factory", values.default_factory)
            values.default_factory = self.twin(values.default_factory)
        if len(parts) > LARGEST:
            return
        self.found += chain(*parts)
        if isinstance(values, set):
            return
        kind = _kind(values)
        for index, part in enumerate(parts):
            if (made := self.twin(part[-1])) is not part[-1]:
                kind.__setitem__(values, part[0] if isinstance(values, dict) else index, made)

    def partial(self, function: "partial[Any]") -> Iterator[Restore]:
        """Yield a function that restores a `functools.partial`, whose arguments may be iterators."""
        parts = function.func, function.args
        self.found += [*parts, function.keywords, vars(function)]
        if (made := self.twin(parts)) is not parts:
            yield partial(_set_parts, function, parts)
            _set_parts(function, made)

    def slots(self, value: Any) -> Iterator[Restore]:
        """Yield a function for each slot of an object."""
        for slot in slots_of(type(value)):
            before = _filling(slot, value)
            self.found.append(before)
            yield partial(_fill, slot, value, before)
            if (made := self.twin(before)) is not before:
                _fill(slot, value, made)

    def function(self, function: FunctionType) -> Iterator[Restore]:
        """Yield a function for each global that a function names; its closure, defaults and attributes follow."""
        if _is_users(function):
            self.found += [function.__closure__, function.__defaults__, function.__kwdefaults__, function.__dict__]
            for name in ("__code__", "__defaults__", "__kwdefaults__"):
                yield partial(setattr, function, name, getattr(function, name))
            names = {"__warningregistry__", *_names(function.__code__)}
            if names & BINDING and (id(function.__globals__), "") not in self.named:
                self.named.add((id(function.__globals__), ""))
                yield partial(_bind_again, function.__globals__, dict(function.__globals__))
            yield from self.names(function.__globals__, names)
            if "ops" in names:  # torch.ops.library.operator
                self.found += [op for name, op in OPDEFS.items() if names.issuperset(name.split("::"))]
            if (made := self.twin(function.__defaults__)) is not function.__defaults__:
                yield partial(setattr, function, "__defaults__", function.__defaults__)
                function.__defaults__ = made

    def names(self, namespace: dict[str, Any], names: set[str]) -> Iterator[Restore]:
        """Yield a function for each of these names in a namespace; those in a module that is named follow."""
        for name in names:
            if (id(namespace), name) in self.named:
                continue
            self.named.add((id(namespace), name))
            value = namespace.get(name, MISSING)
            yield partial(_bind, namespace, name, value)
            if (made := self.twin(value)) is not value:
                namespace[name] = made
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
    """Yield the names in a function and in those inside it, also those that are texts or keywords."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
        else:
            texts = constant if isinstance(constant, tuple) else (constant,)
            yield from (text for text in texts if isinstance(text, str) and text.isidentifier())


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


def _bind_again(namespace: dict[str, Any], before: dict[str, Any]) -> None:
    """Restore all names in a namespace, without those that torch.compile has bound for its own code."""
    for name in namespace.keys() - before.keys():
        if not name.startswith("__"):
            del namespace[name]
    for name, value in before.items():
        _bind(namespace, name, value)


def _unbind_new(namespace: dict[str, Any], names: set[str]) -> None:
    """Remove those of the names that were added to the namespace of a library, except for its modules imported since."""
    for name in names & namespace.keys():
        if not isinstance(namespace[name], ModuleType):
            del namespace[name]


def _attributes(cls: type) -> Restore:
    """Return a function that restores the attributes of a class, without those that Python sets itself."""
    before = dict(vars(cls))

    def restore() -> None:
        now = dict(vars(cls))
        for name in now.keys() | before.keys():
            if now.get(name, MISSING) is before.get(name, MISSING) or name in PYTHONS:
                continue
            if name in before:
                type.__setattr__(cls, name, before[name])  # its metaclass may refuse
            else:
                type.__delattr__(cls, name)

    return restore


def _set_parts(function: "partial[Any]", parts: tuple[Any, Any]) -> None:
    """Set the function and the positional arguments of a `functools.partial`."""
    function.__setstate__((*parts, function.keywords, vars(function)))  # type: ignore[attr-defined]


def _elements(value: Any) -> Iterable[Any]:
    """Return the objects in an array of NumPy, or the one whose memory or data a value shows."""
    numpy = sys.modules.get("numpy")
    if isinstance(value, memoryview):
        return (value.obj,)
    if (sqlite3 := sys.modules.get("sqlite3")) is not None and isinstance(value, sqlite3.Cursor):
        return (value.connection,)
    if numpy is not None and isinstance(value, numpy.ndarray) and value.dtype == object and value.size <= LARGEST:
        return list(value.flat)
    return ()


def _state(value: Any) -> Iterator[Restore]:
    """Yield a function that restores a generator of random numbers, an array, or the position in a file that is read."""
    numpy = sys.modules.get("numpy")
    if isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
        yield partial(value.setstate, value.getstate())
    elif isinstance(value, torch.Generator):
        yield partial(value.set_state, value.get_state())
    elif isinstance(value, bytearray | array):
        yield partial(value.__setitem__, slice(None), value[:])
    elif isinstance(value, BytesIO | StringIO):
        if not value.closed:
            yield partial(value.__setstate__, value.__getstate__())  # type: ignore[union-attr]
    elif isinstance(value, IOBase):
        with suppress(OSError, ValueError):  # it is closed, or has no position
            if value.seekable() and value.readable():
                yield partial(_seek, value, value.tell(), _size_of(value))
    elif isinstance(value, C_DATA) and (value._b_needsfree_ or value._objects):  # other memory may not be readable
        place, size = ctypes.addressof(value), ctypes.sizeof(value)
        yield partial(ctypes.memmove, place, ctypes.string_at(place, size), size)
    elif isinstance(value, RLOCK):
        yield partial(_release, value, value._is_owned())
    elif isinstance(value, mmap):
        with suppress(ValueError):  # it is closed
            if len(value) <= LARGEST_ARRAY:
                yield partial(_restore_memory, value, value[:], value.tell())
    elif (sqlite3 := sys.modules.get("sqlite3")) is not None and isinstance(value, sqlite3.Connection):
        yield from _database(value)
    elif numpy is None:
        return
    elif isinstance(value, numpy.random.Generator):
        yield partial(setattr, value.bit_generator, "state", value.bit_generator.state)
    elif isinstance(value, numpy.random.BitGenerator):
        yield partial(setattr, value, "state", value.state)
    elif isinstance(value, numpy.random.RandomState):
        yield partial(value.set_state, value.get_state())
    elif isinstance(value, numpy.ndarray) and value.flags.writeable and value.nbytes <= LARGEST_ARRAY:
        yield partial(_restore_array, value, value.copy())


def _seek(file: Any, position: int, size: int) -> None:
    """Restore the position in a file, unless the forward closed it, or wrote lines that others must not overwrite."""
    with suppress(OSError, ValueError):
        if _size_of(file) == size:
            file.seek(position)


def _size_of(file: Any) -> int:
    """Return the size of a file in bytes; 0 if it is in memory."""
    file.flush()
    try:
        return os.fstat(file.fileno()).st_size
    except OSError:
        return 0


def _release(lock: Any, is_owned: bool) -> None:
    """Release a lock that this thread has acquired since. Who has acquired any other lock cannot be known."""
    while lock._is_owned() and not is_owned:
        lock.release()


def _restore_memory(memory: mmap, before: bytes, position: int) -> None:
    """Restore a file in memory, unless the forward closed it."""
    with suppress(ValueError):
        if memory[:] != before:
            memory[:] = before
        memory.seek(position)


def _database(connection: Any) -> Iterator[Restore]:
    """Yield a function that restores a database of SQLite, unless it is large, in a transaction, or of another thread."""
    error = sys.modules["sqlite3"].Error
    with suppress(error):
        size = _pragma(connection, "page_count") * _pragma(connection, "page_size")
        if size <= LARGEST_ARRAY and not connection.in_transaction:
            before, version = sys.modules["sqlite3"].connect(":memory:"), _version_of(connection)
            connection.backup(before)
            yield partial(_restore_database, connection, before, version)


def _restore_database(connection: Any, before: Any, version: tuple[int, int]) -> None:
    """Restore the contents of a database, unless the forward closed it."""
    with suppress(sys.modules["sqlite3"].Error):
        connection.rollback()
        if _version_of(connection) != version:
            before.backup(connection)
    before.close()


def _version_of(connection: Any) -> tuple[int, int]:
    """Return numbers that differ after a change of the rows or of the tables by this connection."""
    return connection.total_changes, _pragma(connection, "schema_version")


def _pragma(connection: Any, name: str) -> int:
    cursor = connection.cursor()
    cursor.row_factory = None  # that of the connection may return anything
    [value] = cursor.execute(f"pragma {name}").fetchone()
    return int(value)


def _restore_array(array: Any, before: Any) -> None:
    """Restore the values and the shape of a NumPy array, which its forward may have made read-only."""
    array.flags.writeable = True
    if array.size != before.size:
        array.resize(before.shape, refcheck=False)
    if array.shape != before.shape:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            array.shape = before.shape
    array[...] = before


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
    kind, before = _kind(values), _parts(values)

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
    return [(value,) for value in _kind(values).__iter__(values)]


def _kind(values: Any) -> Any:
    """Return the built-in type of a container."""
    return next(kind for kind in CONTAINERS if isinstance(values, kind))


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
