"""Know the values of small tensors on meta, so that a forward that asks for them runs there.

Forwards ask for the values of token ids, masks, positions and sizes: they count placeholders, select by masks and loop over
lists. Such tensors are small and come from inputs and from literals, never from weights. A tensor on meta whose values are
known has a twin on the CPU. An operator whose tensors all have twins runs on the twins as well.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

from attnscope.tracing.operators import FUNCTIONS, add_rules
from attnscope.tracing.tensors import elements_of, is_array, overwritten, storage_of, tensors_in

ELEMENTS = 2**22
"""The most elements of a tensor whose values are worth knowing."""
MISSING = object()
"""The result of an operator that did not run."""

aten = torch.ops.aten


@contextmanager
def values_known() -> Iterator[None]:
    """Keep the values of small tensors on meta within a `with` block, and return them where the block asks for them."""
    values = _Values()
    with values, _Literals(values):
        yield


class _Values(TorchDispatchMode):
    """A mode that keeps the twins of tensors on meta."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.twins: Any = WeakTensorKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, HigherOrderOperator):
            return self.run_higher_order(func, *args, **kwargs)
        tensors = list(tensors_in((args, kwargs)))
        if not any(tensor.is_meta for tensor in tensors) and not _is_meta(kwargs.get("device")):
            return func(*args, **kwargs)
        twin = self.copied(*args[:2]) if func is aten.copy_.default else MISSING
        if twin is MISSING:
            twin = self.run_on_twins(func, tensors, args, kwargs)
        if twin is not MISSING and tensors and next(tensors_in(twin), None) is None:
            return twin  # a number: the forward asks for a value
        if twin is not MISSING and kwargs.get("device") is not None and not _is_meta(kwargs["device"]):
            return twin  # the forward moves a tensor to the CPU
        out = self.run_on_meta(func, args, kwargs, twin)
        if twin is not MISSING:
            for tensor, value in zip(tensors_in(out), tensors_in(twin), strict=False):
                self.keep(tensor, value)
        elif getattr(func, "_schema", None) is not None and func._schema.is_mutable:
            self.forget(func, args, kwargs)
        return out

    def run_higher_order(self, func: HigherOrderOperator, /, *args: Any, **kwargs: Any) -> Any:
        """Run a higher-order operator, whose functions run in this mode.

        It asks for the value of one tensor: a cond for that of its predicate, a while_loop for that of its first function.
        """
        args, kwargs = tree_map_only(FUNCTIONS, lambda function: partial(self.run_in_mode, function), (args, kwargs))
        if str(func) == "cond":
            args = self.known(args[0]), *args[1:]
        elif str(func) == "while_loop":
            proceeds = args[0]
            args = lambda *carried: self.known(proceeds(*carried)), *args[1:]
        return func(*args, **kwargs)

    def run_in_mode(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a function in this mode."""
        with self:
            return function(*args, **kwargs)

    def known(self, value: Any) -> Any:
        """Return the twin of a tensor on meta; other values, and tensors without a twin, are returned unchanged."""
        return self.twins.get(value, value) if isinstance(value, Tensor) and value.is_meta else value

    def copied(self, tensor: Tensor, source: Tensor) -> Any:
        """Return the values of a new tensor after a copy to all of it; MISSING if unknown, or known before."""
        if tensor in self.twins or tensor._is_view() or tensor.shape != source.shape or elements_of(source) > ELEMENTS:
            return MISSING
        value = self.twins.get(source) if source.is_meta else source
        return MISSING if value is None else value.detach().to(tensor.dtype, copy=True)

    def keep(self, tensor: Tensor, value: Tensor) -> None:
        """Keep the values of a tensor."""
        if tensor.is_meta and elements_of(value) <= ELEMENTS:
            self.twins[tensor] = value

    def forget(self, func: Any, args: Any, kwargs: Any) -> None:
        """Remove the values of what an operator overwrites, and of all that shares its memory."""
        written = tensors_in(overwritten(func, args, kwargs))
        spoiled = {storage._cdata for tensor in written if (storage := storage_of(tensor)) is not None}
        for tensor in list(self.twins):
            storage = storage_of(tensor)
            if storage is not None and storage._cdata in spoiled:
                del self.twins[tensor]

    def run_on_twins(self, func: Any, tensors: list[Tensor], args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Run an operator on the twins of its tensors, or on none; return MISSING if a value is unknown."""
        is_small = all(elements_of(tensor) <= ELEMENTS and is_array(tensor) for tensor in tensors)
        is_known = all(not tensor.is_meta or tensor in self.twins for tensor in tensors)
        if not is_small or not is_known or _is_whole(func):
            return MISSING
        to_cpu = {**kwargs, "device": torch.device("cpu")} if _is_meta(kwargs.get("device")) else kwargs
        try:
            return func(*self.on_cpu(args), **self.on_cpu(to_cpu))
        except Exception:  # the operator on meta will raise it with its context
            return MISSING

    def on_cpu(self, values: Any) -> Any:
        """Return nested arguments with the twin of each tensor on meta."""
        return tree_map_only(Tensor, lambda tensor: self.twins[tensor] if tensor.is_meta else tensor, values)

    def run_on_meta(self, func: Any, args: Any, kwargs: Any, twin: Any) -> Any:
        """Run an operator on meta, or return a result like that on the twins if meta refuses."""
        if func is aten.index.Tensor:
            args = (args[0], self.without_masks(args[1]))
        try:
            return func(*args, **kwargs)
        except Exception:
            if func in KERNELS:
                return KERNELS[func](*args, **kwargs)
            if twin is MISSING:
                raise
            return tree_map_only(Tensor, lambda tensor: tensor.to("meta"), twin)

    def without_masks(self, indices: Any) -> list[Any]:
        """Replace each mask whose values are known by the positions that it selects, as indexing does on other devices."""
        replaced: list[Any] = []
        for index in indices:
            if isinstance(index, Tensor) and index.dtype is torch.bool and index in self.twins:
                replaced += [each.to("meta") for each in self.twins[index].nonzero().unbind(1)]
            else:
                replaced.append(index)
        return replaced


add_rules(_Values)


class _Literals(TorchFunctionMode):
    """A mode that knows the values of tensors that are made from Python numbers, which torch copies to meta unseen."""

    def __init__(self, values: _Values) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.values = values

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (Tensor.numpy, Tensor.__array__) and args[0] in self.values.twins:
            return func(self.values.twins[args[0]], *args[1:], **kwargs)
        if (
            func not in (torch.tensor, torch.as_tensor, Tensor.new_tensor)
            or next(tensors_in(args[-1:]), None) is not None
        ):
            return func(*args, **kwargs)
        out = func(*args, **kwargs)
        if out.is_meta:
            self.values.keep(out, func(*args, **{**kwargs, "dtype": out.dtype, "device": "cpu"}))
        return out


def _grouped_mm(a: Tensor, b: Tensor, offsets: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
    """Return the result of a matmul by groups, which meta refuses for dtypes that other devices take."""
    if a.dim() == 2 and b.dim() == 2 and offsets is not None:
        return a.new_empty(offsets.shape[0], a.shape[0], b.shape[-1])
    return a.new_empty(*(b.shape[:1] if a.dim() == 3 and b.dim() == 2 else a.shape[:-2]), a.shape[-2], b.shape[-1])


KERNELS: dict[Any, Callable[..., Any]] = {
    getattr(aten, name).default: kernel for name, kernel in {"_grouped_mm": _grouped_mm}.items() if hasattr(aten, name)
}
"""Results of operators that meta refuses although other devices run them."""


def _is_meta(device: Any) -> bool:
    return device is not None and torch.device(device).type == "meta"


def _is_whole(func: Any) -> bool:
    """Return whether an operator runs functions, which have their own operators."""
    return not isinstance(func, torch._ops.OpOverload)
