"""Copy any object deeply, including the objects that copy.deepcopy shares, copies wrongly or refuses."""

import copy
import itertools
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from io import BytesIO, StringIO
from traceback import walk_tb
from types import GeneratorType, MappingProxyType, MemberDescriptorType, MethodDescriptorType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from attnscope.tracing.iterators import begun_anew, twin
from attnscope.tracing.tensors import tensors_within
from attnscope.tracing.tree import modules_of, tensors_of

Value = TypeVar("Value")
Memo = dict[int, Any]
"""Copies by the identity of the original."""
Copier = Callable[[Any, Memo], Any]
"""A function that copies an object, and takes the copies that exist."""

CONTAINERS = {dict, list, tuple, set}
"""Classes that cannot be at fault if a copy fails."""


def copied(value: Value, memo: Memo, copy_tensor: Copier, shared: list[Any] | None = None) -> Value:
    """Return a deep copy of a value.

    An object that refuses to be copied is shared. One that is a module or has tensors is copied by its attributes instead.

    Args:
        value: the value.
        memo: copies that exist. The new copies are added.
        copy_tensor: copies a tensor.
        shared: a list to which the objects are added that the copy shares with the value, and that may change.
    """
    modules = {id(module): module for module in modules_of(value)} if isinstance(value, nn.Module) else {}
    tensors = {id(tensor): tensor for tensor in tensors_of(value)} if isinstance(value, nn.Module) else {}
    copiers = _Copiers(copy_tensor, modules | tensors, [] if shared is None else shared)
    with _used(copiers):
        while True:
            attempt = dict(memo)
            try:
                made = copy.deepcopy(value, attempt)
                refusing = _same_module(made, modules)
            except Exception as error:
                refusing = _refusing(error)
                if refusing is None or type(refusing) in copiers.refused | CONTAINERS:
                    raise
            if refusing is None:
                kept = attempt.pop(id(attempt), [])  # the originals, since their identities are keys
                memo.update(attempt)
                memo.setdefault(id(memo), []).extend(kept)
                return made
            copiers.refuse(refusing)


@contextmanager
def _used(copiers: "_Copiers") -> Iterator[None]:
    """Use these copiers in copy.deepcopy within a `with` block."""
    names = {"_deepcopy_dispatch": copiers, "_atomic_types": copiers.atomic}  # the second since Python 3.14
    before = {name: getattr(copy, name) for name in names if hasattr(copy, name)}
    for name in before:
        setattr(copy, name, names[name])
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(copy, name, value)


class _Copiers(dict[type, Copier]):
    """A table of copiers by class for copy.deepcopy, which finds a rule for a class that is missing.

    Other threads that copy at the same time get the copiers of copy.deepcopy alone.

    Args:
        copy_tensor: copies a tensor.
        originals: the modules and tensors of the module that is copied, by their identities.
        shared: gets the objects that copies share with the originals.
    """

    def __init__(self, copy_tensor: Copier, originals: Mapping[int, Any], shared: list[Any]) -> None:
        self.usual: dict[type, Copier] = copy._deepcopy_dispatch  # type: ignore[attr-defined]
        super().__init__(self.usual)
        self.atomic: frozenset[type] = getattr(copy, "_atomic_types", frozenset()) - {weakref.ref, int}
        self.copy_tensor = copy_tensor
        self.refused: set[type] = set()
        self.thread = threading.get_ident()
        self.share = partial(_share, shared)
        self.update(COPIERS)
        for kind in (weakref.ref, _KeptReference):
            self[kind] = partial(_reference, shared)
        self.delegate = partial(_by_own_method, shared)
        self[int] = partial(_number, originals)

    def get(self, kind: type, default: Any = None) -> Any:  # type: ignore[override]
        if threading.get_ident() != self.thread:
            return self.usual.get(kind, default)
        return self[kind] if kind in self else self.rule(kind)

    def rule(self, kind: type) -> Copier | None:
        """Return the copier of a class that the table does not have; None for the protocol of copy.deepcopy."""
        if issubclass(kind, Tensor):
            return self.copy_tensor if _is_torchs(kind, "__deepcopy__") else None
        if issubclass(kind, torch.jit.ScriptModule):
            return _scripted
        if issubclass(kind, nn.Module):
            if not hasattr(kind, "__deepcopy__") and not _is_reduced_whole(kind):
                return _by_attributes
            return _by_protocol if _may_delegate(kind) else None
        if hasattr(kind, "__del__"):
            return self.share  # a second owner would release its resource
        if hasattr(kind, "hexdigest") and hasattr(kind, "copy"):
            return _by_copy  # a hash object of hashlib, hmac or another library
        if hasattr(kind, "__deepcopy__") and not isinstance(kind.__deepcopy__, MethodDescriptorType):
            return self.delegate
        return _by_protocol if _may_delegate(kind) else None

    def refuse(self, refusing: Any) -> None:
        """Choose the copier of a class whose objects copy.deepcopy does not copy."""
        kind = type(refusing)
        self.refused.add(kind)
        if isinstance(refusing, torch.Generator) and hasattr(refusing, "clone_state"):
            self[kind] = lambda generator, memo: generator.clone_state()
        elif isinstance(refusing, nn.Module) or next(tensors_within(refusing), None) is not None:
            self[kind] = _by_attributes
        else:
            self[kind] = self.share


def _number(originals: Mapping[int, Any], number: int, memo: Memo) -> int:
    """Return the identity of a copy for that of a module or tensor, by which tables inside the module may find it."""
    original = originals.get(number)
    return number if original is None else id(copy.deepcopy(original, memo))


def _is_torchs(kind: type, method: str) -> bool:
    """Return whether a method of a class is one of torch or of Python."""
    owner: str = getattr(getattr(kind, method), "__module__", None) or "torch"  # methods in C have no module
    return owner.partition(".")[0] == "torch"


def _is_reduced_whole(kind: type) -> bool:
    """Return whether the protocol of pickle keeps all attributes of a module.

    It has no slots, and a class may leave out what it cannot store. A part of a copy must not be deleted as the whole.
    """
    if next(slots_of(kind), None) is not None or hasattr(kind, "__del__"):
        return False
    return all(_is_torchs(kind, method) for method in ("__getstate__", "__reduce__", "__reduce_ex__"))


def _may_delegate(kind: type) -> bool:
    """Return whether `__getattr__` of a class may find the `__deepcopy__` of another object, as that of a wrapper does."""
    own = getattr(kind, "__getattr__", nn.Module.__getattr__)
    return own is not nn.Module.__getattr__ and not hasattr(kind, "__deepcopy__")


def _same_module(made: Any, originals: Container[int]) -> nn.Module | None:
    """Return a module of a copy that is an original, since its own `__deepcopy__` returns it; None if all are copies."""
    modules = modules_of(made) if isinstance(made, nn.Module) else ()
    return next((module for module in modules if id(module) in originals), None)


def _refusing(error: Exception) -> Any:
    """Return the object that copy.deepcopy was copying when it raised."""
    copying = [frame for frame, _ in walk_tb(error.__traceback__) if frame.f_code is copy.deepcopy.__code__]
    return copying[-1].f_locals.get("x") if copying else None


def _share(shared: list[Any], value: Value, memo: Memo) -> Value:
    shared.append(value)
    return value


def _by_own_method(shared: list[Any], value: Any, memo: Memo) -> Any:
    """Return a copy of an object by its own `__deepcopy__`, which returns the object itself if it must be one of a kind."""
    made = value.__deepcopy__(memo)
    return _share(shared, value, memo) if made is value else made


def _by_copy(value: Any, memo: Memo) -> Any:
    return value.copy()


def _by_protocol(value: Any, memo: Memo) -> Any:
    """Return a copy of an object by the protocol of pickle, as copy.deepcopy makes it of a class without `__deepcopy__`."""
    parts = value.__reduce_ex__(4)
    return value if isinstance(parts, str) else copy._reconstruct(value, memo, *parts)  # type: ignore[attr-defined]


def _by_attributes(value: Any, memo: Memo) -> Any:
    """Return a copy of an object by its attributes and slots, without the methods of its class that copy or build it."""
    try:
        made = object.__new__(type(value))
    except TypeError:  # of a class in C, whose objects have more than attributes
        return value
    memo[id(value)] = made
    try:
        if hasattr(value, "__dict__"):
            vars(made).update(copy.deepcopy(vars(value), memo))
        for slot in slots_of(type(value)):
            if hasattr(value, slot.__name__):
                slot.__set__(made, copy.deepcopy(slot.__get__(value), memo))
    except Exception:
        disown(made)
        raise
    return made


def _scripted(module: torch.jit.ScriptModule, memo: Memo) -> torch.jit.ScriptModule:
    """Return a copy of a TorchScript module, whose parameters torch copies without their flags."""
    made: torch.jit.ScriptModule = module.__deepcopy__(memo)
    for original, copied_tensor in zip(tensors_of(module), tensors_of(made), strict=True):
        copied_tensor.requires_grad_(original.requires_grad)
    return made


def disown(made: Any) -> None:
    """Keep the `__del__` of a copied module from running: what it releases belongs to the original."""
    if isinstance(made, nn.Module):
        with suppress(TypeError):  # a class with slots
            object.__setattr__(made, "__class__", nn.Module)


def slots_of(kind: type) -> Iterator[MemberDescriptorType]:
    """Yield the slots that a class and its bases declare."""
    for base in kind.__mro__:
        if "__slots__" in vars(base):
            yield from (slot for slot in vars(base).values() if isinstance(slot, MemberDescriptorType))


class _KeptReference(weakref.ref[Any]):
    """A weak reference to a copy that nothing else may hold, so that it holds the copy itself."""

    __slots__ = ("target",)
    target: Any

    def __new__(cls, target: Any) -> "_KeptReference":
        self = super().__new__(cls, target)
        self.target = target
        return self


def _reference(shared: list[Any], reference: weakref.ref[Any], memo: Memo) -> weakref.ref[Any]:
    """Return a weak reference to a copy of a module or tensor. Other objects outside the module are shared."""
    target = reference()
    if not isinstance(target, nn.Module | Tensor):
        shared.append(target)
        return reference
    return _KeptReference(copy.deepcopy(target, memo))


def _method_reference(reference: Any, memo: Memo) -> Any:
    method = reference()
    return reference if method is None else type(reference)(copy.deepcopy(method, memo))


def _weak_dictionary(values: Any, memo: Memo) -> Any:
    """Return a copy of a dictionary with weak keys or values, which refers to the copies of modules and tensors."""
    made = memo[id(values)] = type(values)()
    for pair in list(values.items()):
        key, value = (
            _reference([], weakref.ref(part), memo)() if isinstance(part, nn.Module) else part for part in pair
        )
        made[key] = value if isinstance(value, nn.Module) else copy.deepcopy(value, memo)
    return made


def _packed(packed: PackedSequence, memo: Memo) -> PackedSequence:
    """Return a copy of packed sequences, whose sizes must be on the CPU wherever the data is."""
    parts = {name: copy.deepcopy(value, memo) for name, value in packed._asdict().items() if name != "batch_sizes"}
    return type(packed)(batch_sizes=packed.batch_sizes.clone(), **parts)


def _ordered(value: "OrderedDict[Any, Any]", memo: Memo) -> "OrderedDict[Any, Any]":
    """Copy an OrderedDict. A module has eleven of them, most of them empty, which the protocol of pickle takes long for."""
    made: OrderedDict[Any, Any] = OrderedDict()
    memo[id(value)] = made
    for key, item in value.items():
        made[copy.deepcopy(key, memo)] = copy.deepcopy(item, memo)
    if vars(value):
        vars(made).update(copy.deepcopy(vars(value), memo))
    return made


def _memory_file(file: Any, memo: Memo) -> Any:
    """Return a copy of a file in memory. Its `__del__` releases nothing that another copy needs."""
    made = type(file)()
    if file.closed:
        made.close()
    else:
        made.__setstate__(file.__getstate__())
    return made


COPIERS: dict[type, Copier] = {
    OrderedDict: _ordered,
    BytesIO: _memory_file,
    StringIO: _memory_file,
    itertools.count: lambda counter, memo: twin(counter, {}),
    GeneratorType: lambda generator, memo: begun_anew(generator, partial(copy.deepcopy, memo=memo)),
    weakref.WeakMethod: _method_reference,
    weakref.WeakKeyDictionary: _weak_dictionary,
    weakref.WeakValueDictionary: _weak_dictionary,
    MappingProxyType: lambda proxy, memo: MappingProxyType(copy.deepcopy(dict(proxy), memo)),
    PackedSequence: _packed,
}
"""Copiers of classes whose copies copy.deepcopy would let refer to the originals, or would not make."""
