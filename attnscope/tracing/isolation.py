"""Isolate a third-party module: copy it and its inputs, so that a run changes the copies alone.

Copies share the memory of the originals until one of the two is written, if torch has copy-on-write clones. A copy on
the meta device has no memory at all.
"""

import copy
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.autograd import grad_mode
from torch.nn.parameter import is_lazy

from attnscope.core.dtypes import dtype_name
from attnscope.profiling.options import check_dtype
from attnscope.tracing.calls import ForwardFailedError
from attnscope.tracing.copying import Memo, Value, copied, disown
from attnscope.tracing.tensors import REFUSED, has_own_operators, has_values, is_fake, storage_of, tensors_in
from attnscope.tracing.tree import modules_of, tensors_of

Inputs = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a forward."""

SMALL = 2**16
"""The most bytes of a storage that is copied at once. torch refuses to resize a lazy copy, as `out=` may."""

_shared: list[weakref.ref[torch.UntypedStorage]] | None = None
"""The memory that copies have shared with their originals within `memory_returned`; None outside of it."""


@contextmanager
def memory_returned() -> Iterator[None]:
    """Make the memory of originals their own again at the end of a `with` block, whose copies shared it.

    torch cannot write to shared memory after a change of its size. No data moves, since the copies are gone. Memory that
    a copy still shares, and that does not fit a second time, stays shared.
    """
    global _shared
    around, _shared = _shared, []
    try:
        yield
    finally:
        for reference in _shared:
            if (storage := reference()) is not None:
                with suppress(MemoryError, RuntimeError):  # out of memory; an error of the forward must not be hidden
                    storage.data_ptr()  # torch ends the sharing where it gives out an address
        _shared = around


def home(module: nn.Module) -> torch.device:
    """Return the device of a module's first tensor; the CPU if it has no tensors."""
    first = next(iter(tensors_of(module)), None)
    return first.device if first is not None else torch.device("cpu")


def is_partly_on_meta(module: nn.Module) -> bool:
    """Return whether any parameter or buffer of a module has no values, as on meta, so that its forward cannot compute."""
    return not all(map(has_values, tensors_of(module)))


def isolated(
    module: nn.Module, inputs: Inputs, device: torch.device, shared: list[Any] | None = None
) -> tuple[nn.Module, Inputs]:
    """Return copies of a module and its inputs on a device.

    What is shared remains shared: tied weights, views of one memory, and a tensor that appears twice in the inputs.
    Tensors that are plain attributes of the module stay on their device, as `nn.Module.to` leaves them. Views of its
    parameters and buffers go with these. An object that cannot be copied, such as a lock, is shared with the original, and
    added to `shared`.

    Raises:
        DeviceError: the device does not support the dtype of the module or of an input.
        ForwardFailedError: the module or its inputs cannot be copied.
    """
    copies = _Tensors(shared=shared)
    own = tensors_of(module)
    given = list(tensors_in(inputs))
    for tensor in [*own, *given]:
        check_dtype(device.type, dtype_name(tensor.dtype))
    # a caller's inference mode would make tensors that refuse to be written outside of it
    with torch.inference_mode(False), torch.no_grad():
        try:
            memo = {id(tensor): copies.of(tensor, device) for tensor in [*own, *given]}
            if device.type == "meta":
                for tensor in filter(_is_plain, given):  # for modes that know the values of tensors on meta
                    memo[id(tensor)].copy_(tensor)
            there = copies.copied(module, memo)
            copies.device = device
            given_there = copies.copied(inputs, memo)
            copies.copy_attributes(memo)
        except Exception as error:
            raise ForwardFailedError(error, "", "copying it", [], None, None) from error
    return there, given_there


def inputs_apart(inputs: Inputs, lazily: bool = True) -> Inputs:
    """Return copies of inputs on the devices of the originals, since a forward may change its inputs.

    Args:
        inputs: the arguments of a forward.
        lazily: copy memory only when it is written. Otherwise a run that writes does not copy.
    """
    copies, memo = _Tensors(lazily), Memo()
    with torch.inference_mode(False), torch.no_grad():
        apart = copies.copied(inputs, memo)
        copies.copy_attributes(memo)
    return apart


def evaluating(module: nn.Module) -> None:
    """Set evaluation mode on a copy. A module that refuses `eval()` gets the flags that `eval()` sets."""
    try:
        module.eval()
    except Exception:
        for submodule in modules_of(module):
            vars(submodule)["training"] = False  # without its `__setattr__`, which may be what refuses


def dismantle(modules: list[nn.Module]) -> None:
    """Clear copied modules, so that their memory becomes free even in reference cycles, without a garbage collection."""
    for module in modules:
        disown(module)
        vars(module).clear()
        vars(module)["_modules"] = {}  # the text of an error may show the module


class _Tensors:
    """Copies of tensors, which share memory as the originals do. They also copy results of differentiable operations.

    The copies are on `device`; if it is None, on the devices of the originals, but views on that of what they view.
    """

    def __init__(self, lazily: bool = True, shared: list[Any] | None = None) -> None:
        self.device: torch.device | None = None
        self.lazily, self.shared = lazily, shared
        self.memories: dict[tuple[int, str], tuple[Any, Tensor]] = {}
        self.devices: dict[int, torch.device] = {}
        self.made: list[tuple[Tensor, Tensor]] = []

    def copied(self, value: Value, memo: Memo) -> Value:
        """Return a deep copy of a value; `memo` has the copies that exist, and gets the new ones."""
        return copied(
            value, memo, lambda tensor, memo: self.of(tensor, self.device or self._beside(tensor)), self.shared
        )

    def _beside(self, tensor: Tensor) -> torch.device:
        """Return the device of the first copy of the memory of a tensor, or else the device of the tensor."""
        storage = storage_of(tensor) if _is_plain(tensor) else None
        return tensor.device if storage is None else self.devices.get(storage._cdata, tensor.device)

    def of(self, tensor: Tensor, device: torch.device) -> Tensor:
        """Return a copy of a tensor on a device: detached, with its type and gradient, and without attributes."""
        # a copy made inside a transform such as torch.func.grad would be wrapped, and have no memory
        with temporarily_clear_interpreter_stack() if _is_plain(tensor) else nullcontext():
            return self._of(tensor, device)

    def _of(self, tensor: Tensor, device: torch.device) -> Tensor:
        """Return a copy as `of` does, in the transforms of torch.func that are active."""
        if is_lazy(tensor):
            kind: Any = type(tensor)
            return kind(requires_grad=tensor.requires_grad, device=device, dtype=tensor.dtype)  # type: ignore[no-any-return]
        if is_fake(tensor):
            sizes, strides = map(int, tensor.shape), map(int, tensor.stride())
            data = torch.empty_strided(tuple(sizes), tuple(strides), dtype=tensor.dtype, device="meta")
        elif _is_plain(tensor):
            memory = self.memory_of(tensor, device)
            data = torch.empty(0, dtype=tensor.dtype, device=memory.device)
            data.set_(memory.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())
            if type(tensor) is not Tensor and not isinstance(tensor, nn.Parameter):
                data = data.as_subclass(type(tensor))
        else:
            data = tensor.detach().to(device)
            if tensor.device == data.device:
                data = _quantized_copied(data) if data.is_quantized else data.clone()
        if isinstance(tensor, nn.Parameter):
            data = (
                Tensor._make_subclass(type(tensor), data, tensor.requires_grad)
                if type(data) is Tensor and not is_fake(tensor)
                else nn.Parameter(data, tensor.requires_grad)
            )
        elif tensor.requires_grad and not torch._C._functorch.is_functorch_wrapped_tensor(tensor):
            data.requires_grad_()  # transforms of functions refuse it
        self.made.append((tensor, data))
        if tensor.is_leaf and tensor.grad is not None:
            data.grad = self.of(tensor.grad, device)
        return data

    def copy_attributes(self, memo: Memo) -> None:
        """Copy the attributes of the tensors to their copies. The tensors that a subclass wraps are there already."""
        for tensor, made in self.made:
            missing = {name: value for name, value in vars(tensor).items() if name not in vars(made)}
            if missing:
                vars(made).update(self.copied(missing, memo))

    def memory_of(self, tensor: Tensor, device: torch.device) -> Tensor:
        """Return a copy of the whole storage of a tensor as bytes. Tensors that share a storage share the copy."""
        storage = tensor.untyped_storage()
        key = storage._cdata, str(device)
        self.devices.setdefault(storage._cdata, device)
        if key not in self.memories:
            # with the storage, whose identity is the key, so that it lives as long as the key
            self.memories[key] = storage, _memory_copied(storage, device, self.lazily)
        return self.memories[key][1]


def _quantized_copied(tensor: Tensor) -> Tensor:
    """Return a copy of a quantized tensor; torch cannot clone those of all schemes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TypedStorage", UserWarning)  # torch's own use of it
        return copy.deepcopy(tensor)


def _memory_copied(storage: torch.UntypedStorage, device: torch.device, lazily: bool = True) -> Tensor:
    """Return a copy of a storage on a device as bytes; if `lazily`, no data is copied until one of the two is written."""
    if device.type == "meta":
        return torch.empty(storage.nbytes(), dtype=torch.uint8, device="meta")
    original = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)  # type: ignore[call-overload]
    if storage.device.type != device.type or device.index not in (None, storage.device.index):
        return original.to(device)
    lazily = lazily and storage.nbytes() > SMALL
    try:
        made: Tensor = original._lazy_clone() if lazily else original.clone()
    except (AttributeError, RuntimeError):  # an older torch, or memory that files or other processes share
        return original.clone()
    if lazily and _shared is not None:
        _shared.append(weakref.ref(storage))
    return made


def values_as_before(tensor: Tensor) -> Callable[[], None]:
    """Return a function that restores the present values, sizes and gradient of a tensor, and its version for autograd."""
    storage = storage_of(tensor)
    if storage is None or storage.device.type == "meta" or has_own_operators(type(tensor)):
        return lambda: None
    with torch.inference_mode(False), torch._C.DisableTorchFunctionSubclass():
        before, view = _memory_copied(storage, storage.device), tensor.detach()
    geometry, grad, requires_grad = _geometry(tensor), tensor.grad if tensor.is_leaf else None, tensor.requires_grad
    version: Any = (
        nullcontext() if tensor.is_inference() else grad_mode._unsafe_preserve_version_counter(tensor)  # type: ignore[no-untyped-call]
    )

    def restore() -> None:
        with torch.inference_mode(False), torch.no_grad(), version:
            if storage.nbytes() != before.nbytes:
                storage.resize_(before.nbytes)
            now = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)  # type: ignore[call-overload]
            if not torch.equal(now, before):
                now.copy_(before)
            if _geometry(tensor) != geometry:
                tensor.data = view
            if tensor.is_leaf and tensor.grad is not grad:
                tensor.grad = grad
            if tensor.is_leaf and tensor.requires_grad != requires_grad:
                tensor.requires_grad_(requires_grad)

    return restore


def _geometry(tensor: Tensor) -> tuple[Any, ...]:
    """Return where the values of a tensor are in memory, and their dtype; nothing for nested tensors without sizes."""
    if tensor.is_nested:
        return ()
    return tensor.untyped_storage()._cdata, tensor.storage_offset(), tensor.size(), tensor.stride(), tensor.dtype


def _is_plain(tensor: Tensor) -> bool:
    """Return whether a tensor is nothing but sizes and strides in a storage."""
    own = type(tensor) is Tensor or type(tensor).__torch_dispatch__ is nn.Parameter.__torch_dispatch__
    if not own or is_lazy(tensor) or tensor.layout is not torch.strided or tensor.is_nested or tensor.is_quantized:
        return False
    if tensor.is_conj() or tensor.is_neg():
        return False
    try:
        tensor.untyped_storage()
    except REFUSED:
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
