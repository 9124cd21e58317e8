"""Reuse the results of operators on meta, which have sizes and no values.

Most of the time of a forward on meta is spent in kernels that are written in Python. A network repeats them in each of its
blocks, on tensors of the same sizes. torch's FakeTensorMode reuses results under the same conditions.
"""

from collections.abc import Hashable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from attnscope.tracing.tensors import tensors_in

META = torch.device("meta")
PLAIN = torch._C._dispatch_keys(torch.empty(0, device=META))
"""The dispatch keys of a tensor on meta that is nothing but sizes and strides in a storage."""
CONSTANTS = frozenset({int, float, bool, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format})
"""Types of other arguments that determine sizes by their value."""
OTHERS_DETERMINE = {
    torch.Tag.data_dependent_output,
    torch.Tag.dynamic_output_shape,
    torch.Tag.nondeterministic_seeded,
}
"""Tags of operators whose results depend on more than sizes."""


class MetaResults:
    """The results of operators on meta in one run, by the sizes of their arguments."""

    def __init__(self) -> None:
        self.known: dict[Hashable, _Result | None] = {}

    def of(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operator, or return tensors like those of an earlier run on arguments of the same sizes.

        Another mode that is active must see the operator, which therefore runs.
        """
        if not _makes_memory(func) or torch._C._len_torch_dispatch_stack():
            return func(*args, **kwargs)
        sizes = _key_of((args, [*kwargs.items()]))
        if sizes is None:
            return func(*args, **kwargs)
        key = func, torch.get_default_dtype(), sizes
        if (known := self.known.get(key)) is not None:
            return known.made()
        out = func(*args, **kwargs)
        if key not in self.known:
            self.known[key] = _result_of(out, (args, kwargs))
        return out


@cache
def _makes_memory(func: Any) -> bool:
    """Return whether an operator of aten puts its result, which depends on sizes alone, into new memory."""
    schema = func._schema
    is_shared = any(each.alias_info is not None for each in (*schema.arguments, *schema.returns))
    return func.namespace == "aten" and not is_shared and OTHERS_DETERMINE.isdisjoint(func.tags)


def _key_of(value: Any) -> Hashable | None:
    """Return what determines the sizes of results: the sizes, strides and dtypes of tensors, and all other values.

    It is None if a tensor is elsewhere or of another kind, or if a value is of an unknown type.
    """
    kind = type(value)
    if kind in CONSTANTS:
        return kind, value
    if kind is tuple or kind is list:
        parts = tuple(map(_key_of, value))
        return None if None in parts else (kind, parts)
    if isinstance(value, Tensor) and torch._C._dispatch_keys(value) == PLAIN:
        return value.shape, value.stride(), value.dtype
    return None


class _Result:
    """The sizes of the tensors of a result; `kind` is the type of the collection that has them, None for one tensor."""

    def __init__(self, kind: type | None, tensors: Sequence[Tensor]) -> None:
        self.kind = kind
        self.layouts = [(tensor.shape, tensor.stride(), tensor.dtype) for tensor in tensors]

    def made(self) -> Any:
        """Return new tensors of these sizes."""
        tensors = [
            torch.empty_strided(shape, strides, dtype=dtype, device=META) for shape, strides, dtype in self.layouts
        ]
        return tensors[0] if self.kind is None else self.kind(tensors)


def _result_of(out: Any, arguments: Any) -> _Result | None:
    """Return the sizes of a result; None if new tensors of these sizes would not be like it."""
    kind = None if isinstance(out, Tensor) else type(out)
    tensors = [out] if kind is None else out
    if kind not in (None, tuple, list) or not all(
        isinstance(tensor, Tensor) and torch._C._dispatch_keys(tensor) == PLAIN for tensor in tensors
    ):
        return None
    taken = {tensor.untyped_storage()._cdata for tensor in tensors_in(arguments)}
    memories = {tensor.untyped_storage()._cdata for tensor in tensors} - taken
    if len(memories) != len(tensors):
        return None  # they share memory with the arguments or with each other
    result = _Result(kind, tensors)
    twins = tensors_in(result.made())
    is_alike = all(
        tensor.storage_offset() == 0 and tensor.untyped_storage().nbytes() == twin.untyped_storage().nbytes()
        for tensor, twin in zip(tensors, twins, strict=True)
    )
    return result if is_alike else None
