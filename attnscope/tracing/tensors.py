"""Describe tensors of every kind: plain, nested, jagged, sparse, quantized, mkldnn and uninitialized ones.

Formulas and reports need a shape, a number of elements and bytes. Tensors of some kinds refuse these attributes. A
Description of such a tensor has what is known.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Set
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor

from attnscope.core.axes import Shape
from attnscope.ops.operation import tensors_in as arrays_in
from attnscope.ops.tensor import Description

__all__ = [
    "described",
    "elements_of",
    "has_own_operators",
    "has_values",
    "is_array",
    "is_fake",
    "shape_of",
    "shapes_in",
    "shapes_within",
    "storage_of",
    "tensors_in",
    "tensors_within",
]

REFUSED = (RuntimeError, NotImplementedError, ValueError, TypeError)
"""Errors with which a tensor refuses an attribute that its kind does not have."""


def tensors_in(values: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested tuples, lists and dictionaries."""
    return (value for value in arrays_in(values) if isinstance(value, Tensor))  # a storage has elements too


def shapes_in(values: Any) -> list[Shape]:
    """Return the shapes of the tensors in nested arguments."""
    return [shape_of(tensor) for tensor in tensors_in(values)]


def tensors_within(values: Any) -> Iterator[Tensor]:
    """Yield the tensors in values of any kind, each once, in their order.

    Beside tuples, lists and dictionaries, these are other mappings and collections, dataclasses, and objects with
    attributes. Modules and classes are not searched.
    """
    opened: set[int] = set()

    def within(value: Any) -> Iterator[Tensor]:
        if id(value) in opened or isinstance(value, ATOMS):
            return
        opened.add(id(value))
        if isinstance(value, Tensor):
            yield value
            return
        for part in _parts_of(value):
            yield from within(part)

    return within(values)


ATOMS = (str, bytes, int, float, complex, type, FunctionType, ModuleType, torch.nn.Module, torch.dtype, torch.device)
"""Types of values that are not searched for tensors."""


def _parts_of(value: Any) -> list[Any]:
    """Return the values in a collection, and the attributes of an object that is not one."""
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, tuple | list | Set | deque):
        return list(value)
    slots = [name for kind in type(value).__mro__ for name in _slots_of(kind) if hasattr(value, name)]
    return [*getattr(value, "__dict__", {}).values(), *[getattr(value, name) for name in slots]]


def _slots_of(kind: type) -> list[str]:
    slots = vars(kind).get("__slots__", ())
    return [slots] if isinstance(slots, str) else list(slots)


def shapes_within(values: Any) -> list[Shape]:
    """Return the shapes of the tensors in values of any kind."""
    return [shape_of(tensor) for tensor in tensors_within(values)]


def shape_of(tensor: Tensor) -> Shape:
    """Return the shape of a tensor, or the padded shape of a nested one; () if it has no shape yet."""
    if not tensor.is_nested:
        try:
            return tuple(tensor.shape)
        except REFUSED:
            return ()  # an uninitialized parameter
    try:
        rows = _row_sizes(tensor)
    except REFUSED:
        return ()
    return (len(rows), *[max(sizes) for sizes in zip(*rows, strict=True)])


def _row_sizes(tensor: Tensor) -> list[list[int]]:
    """Return the shape of each row of a nested tensor."""
    with torch._C.DisableTorchFunction(), torch.utils._python_dispatch._disable_current_modes():
        if tensor.layout is torch.strided:
            return tensor._nested_tensor_size().tolist()  # type: ignore[no-any-return]
        ragged = tensor._ragged_idx - 1  # type: ignore[attr-defined]
        lengths = tensor.offsets().diff() if tensor.lengths() is None else tensor.lengths()  # type: ignore[attr-defined]
        sizes = list(tensor.values().shape)
        return [[*sizes[:ragged], length, *sizes[ragged + 1 :]] for length in lengths.tolist()]


def elements_of(tensor: Tensor) -> int:
    """Return the number of elements of a tensor; 0 if it has no elements yet."""
    try:
        return int(tensor.numel())
    except REFUSED:
        return 0


def described(value: Any) -> Any:
    """Return nested arguments in which each tensor that is not an array in memory is replaced by its Description."""
    if isinstance(value, Tensor):
        return value if is_array(value) else _description(value)
    if isinstance(value, tuple | list):
        return [described(item) for item in value]
    if isinstance(value, dict):
        return {key: described(item) for key, item in value.items()}
    return None if isinstance(value, torch.UntypedStorage) else value


def is_array(tensor: Tensor) -> bool:
    """Return whether a tensor is an array with strides in memory."""
    return tensor.layout is torch.strided and not tensor.is_nested


def _description(tensor: Tensor) -> Description:
    elements: int | None = elements_of(tensor)
    if tensor.layout is torch.sparse_coo:
        elements = None if tensor.is_meta else tensor._nnz()
    elif tensor.layout not in (torch.strided, torch.jagged, torch._mkldnn):  # type: ignore[attr-defined]
        elements = None if tensor.is_meta else elements_of(tensor.values())
    is_complex = tensor.is_complex()
    nbytes = elements_of(tensor) * tensor.element_size() if tensor.is_nested else None
    return Description(shape_of(tensor), elements, tensor.element_size(), nbytes, is_complex)


def storage_of(tensor: Tensor) -> Any:
    """Return the storage of a tensor; None if its kind has no storage of its own."""
    try:
        return tensor.untyped_storage()
    except REFUSED:
        return None


def is_fake(tensor: Tensor) -> bool:
    """Return whether a tensor has a device and no values, as on meta: one of a FakeTensorMode."""
    return type(tensor).__name__ == "FakeTensor"


def has_values(tensor: Tensor) -> bool:
    """Return whether a tensor has values to compute with, unlike one on meta and a fake one."""
    return tensor.device.type != "meta" and not is_fake(tensor)


def has_own_operators(kind: type[Tensor]) -> bool:
    """Return whether a subclass runs each operator as other operators, on the tensors that it wraps."""
    return kind.__torch_dispatch__ not in (Tensor.__torch_dispatch__, torch._C._disabled_torch_dispatch_impl) and (
        kind.__name__ != "FakeTensor"  # it wraps no other tensor
    )


def overwritten(func: Any, args: Any, kwargs: Mapping[str, Any]) -> list[Any]:
    """Return the arguments that an operator overwrites."""
    arguments = func._schema.arguments
    named = {**dict(zip([each.name for each in arguments], args, strict=False)), **kwargs}
    # `alias_info`, since the arguments of torch 2.5 have no `is_write` of their own
    return [named.get(each.name) for each in arguments if each.alias_info is not None and each.alias_info.is_write]
