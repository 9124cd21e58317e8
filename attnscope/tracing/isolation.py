"""Isolate a third-party module: copy it and its inputs, so that a run changes the copies alone.

Copies share the memory of the originals until one of the two is written, if torch has copy-on-write clones. A copy on
the meta device has no memory at all.
"""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from traceback import walk_tb
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.autograd import grad_mode
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from attnscope.core.dtypes import dtype_name
from attnscope.profiling.options import check_dtype
from attnscope.tracing.calls import ForwardFailedError
from attnscope.tracing.tensors import REFUSED, has_own_operators, storage_of, tensors_in

Inputs = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a forward."""

Value = TypeVar("Value")
Copier = Callable[[Any, dict[int, Any]], Any]
"""A function that copies an object, and takes the copies that exist."""

CONTAINERS = {dict, list, tuple, set}
"""Classes that cannot be at fault if a copy fails."""


def named_tensors_of(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Return the parameters and buffers of a module with their paths."""
    return [*module.named_parameters(), *module.named_buffers()]


def tensors_of(module: nn.Module) -> list[Tensor]:
    """Return the parameters and buffers of a module."""
    return [tensor for _, tensor in named_tensors_of(module)]


def home(module: nn.Module) -> torch.device:
    """Return the device of a module's first tensor; the CPU if it has no tensors."""
    first = next(iter(tensors_of(module)), None)
    return first.device if first is not None else torch.device("cpu")


def is_partly_on_meta(module: nn.Module) -> bool:
    """Return whether any parameter or buffer of a module is on meta, so that its forward cannot compute."""
    return any(tensor.device.type == "meta" for tensor in tensors_of(module))


def isolated(module: nn.Module, inputs: Inputs, device: torch.device) -> tuple[nn.Module, Inputs]:
    """Return copies of a module and its inputs on a device.

    What is shared remains shared: tied weights, views of one memory, and a tensor that appears twice in the inputs.
    Tensors that are plain attributes of the module stay on their device, as `nn.Module.to` leaves them. An object that
    cannot be copied, such as a lock, is shared with the original.

    Raises:
        DeviceError: the device does not support the dtype of the module or of an input.
        ForwardFailedError: the module or its inputs cannot be copied.
    """
    copies = _Tensors()
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
            with copies:
                there = _copied(module, memo)
                copies.device = device
                given_there = _copied(inputs, memo)
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
    memo: dict[int, Any] = {}
    with torch.inference_mode(False), torch.no_grad(), _Tensors(lazily) as copies:
        apart = _copied(inputs, memo)
        copies.copy_attributes(memo)
    return apart


def evaluating(module: nn.Module) -> None:
    """Set evaluation mode on a copy. A module that refuses `eval()` gets the flags that `eval()` sets."""
    try:
        module.eval()
    except Exception:
        for submodule in module.modules():
            submodule.training = False


class _Tensors(TorchFunctionMode):
    """A mode in which copy.deepcopy copies each tensor with `of`, which also copies results of differentiable operations.

    The copies are on `device`; if it is None, each is on the device of its original.
    """

    def __init__(self, lazily: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device: torch.device | None = None
        self.lazily = lazily
        self.memories: dict[tuple[int, str], tuple[Any, Tensor]] = {}
        self.made: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not Tensor.__deepcopy__:
            return func(*args, **(kwargs or {}))
        tensor, memo = args
        if id(tensor) not in memo:
            memo[id(tensor)] = self.of(tensor, self.device or tensor.device)
        return memo[id(tensor)]

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
        if _is_plain(tensor):
            memory = self.memory_of(tensor, device)
            data = torch.empty(0, dtype=tensor.dtype, device=memory.device)
            data.set_(memory.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())
        else:
            data = tensor.detach().to(device)
            if tensor.device == data.device:
                data = _quantized_copied(data) if data.is_quantized else data.clone()
        if isinstance(tensor, nn.Parameter):
            data = (
                Tensor._make_subclass(type(tensor), data, tensor.requires_grad)
                if type(data) is Tensor
                else nn.Parameter(data, tensor.requires_grad)
            )
        elif tensor.requires_grad and not torch._C._functorch.is_functorch_wrapped_tensor(tensor):
            data.requires_grad_()  # transforms of functions refuse it
        self.made.append((tensor, data))
        if tensor.is_leaf and tensor.grad is not None:
            data.grad = self.of(tensor.grad, device)
        return data

    def copy_attributes(self, memo: dict[int, Any]) -> None:
        """Copy the attributes of the tensors to their copies. The tensors that a subclass wraps are there already."""
        for tensor, made in self.made:
            missing = {name: value for name, value in vars(tensor).items() if name not in vars(made)}
            if missing:
                vars(made).update(_copied(missing, memo))

    def memory_of(self, tensor: Tensor, device: torch.device) -> Tensor:
        """Return a copy of the whole storage of a tensor as bytes. Tensors that share a storage share the copy."""
        storage = tensor.untyped_storage()
        key = storage._cdata, str(device)
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
    try:
        return original._lazy_clone() if lazily else original.clone()  # type: ignore[no-any-return]
    except (AttributeError, RuntimeError):  # an older torch, or memory that files or other processes share
        return original.clone()


def values_as_before(tensor: Tensor) -> Callable[[], None]:
    """Return a function that restores the present values of a tensor, and its version, which autograd compares."""
    storage = storage_of(tensor)
    if storage is None or storage.device.type == "meta" or has_own_operators(type(tensor)):
        return lambda: None
    with torch.inference_mode(False):
        before = _memory_copied(storage, storage.device)
    version: Any = (
        nullcontext() if tensor.is_inference() else grad_mode._unsafe_preserve_version_counter(tensor)  # type: ignore[no-untyped-call]
    )

    def restore() -> None:
        with torch.inference_mode(False), torch.no_grad(), version:
            now = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)  # type: ignore[call-overload]
            if not torch.equal(now, before):
                now.copy_(before)

    return restore


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


def _copied(value: Value, memo: dict[int, Any]) -> Value:
    """Return a deep copy of a value.

    An object that refuses to be copied is shared, except for a module, whose attributes are copied one by one.

    Args:
        value: the value.
        memo: copies that exist, by the identity of the original. The new copies are added.
    """
    originals = {id(module) for module in value.modules()} if isinstance(value, nn.Module) else set()
    with ExitStack() as stack:
        refused: set[type] = set()
        while True:
            attempt = dict(memo)
            try:
                made = copy.deepcopy(value, attempt)
                refusing = _same_module(made, originals)
            except Exception as error:
                refusing = _refusing(error)
                if refusing is None or type(refusing) in refused | CONTAINERS:
                    raise
            if refusing is None:
                memo.update(attempt)
                memo.setdefault(id(memo), []).append(attempt)  # its identity is a key, which must not be used twice
                return made
            refused.add(type(refusing))
            stack.enter_context(_copied_by(type(refusing), _copier(refusing)))


@contextmanager
def _copied_by(kind: type, copier: Copier) -> Iterator[None]:
    """Use `copier` for the objects of a class in copy.deepcopy within a `with` block."""
    copiers: dict[type, Copier] = copy._deepcopy_dispatch  # type: ignore[attr-defined]
    before = copiers.get(kind)
    copiers[kind] = copier
    try:
        yield
    finally:
        del copiers[kind]
        if before is not None:
            copiers[kind] = before


def _same_module(made: Any, originals: set[int]) -> nn.Module | None:
    """Return a module of a copy that is an original, since its own `__deepcopy__` returns it; None if all are copies."""
    modules = made.modules() if isinstance(made, nn.Module) else ()
    return next((module for module in modules if id(module) in originals), None)


def _refusing(error: Exception) -> Any:
    """Return the object that copy.deepcopy was copying when it raised."""
    copying = [frame for frame, _ in walk_tb(error.__traceback__) if frame.f_code is copy.deepcopy.__code__]
    return copying[-1].f_locals.get("x") if copying else None


def _copier(refusing: Any) -> Copier:
    """Return a function that replaces the copy of an object that copy.deepcopy does not copy."""
    if isinstance(refusing, nn.Module):
        return _copied_module
    if isinstance(refusing, torch.Generator) and hasattr(refusing, "clone_state"):
        return lambda generator, memo: generator.clone_state()
    return lambda shared, memo: shared


def _copied_module(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """Return a copy of a module by its attributes, for a class whose `__deepcopy__` refuses."""
    made: nn.Module = type(module).__new__(type(module))
    memo[id(module)] = made
    vars(made).update(copy.deepcopy(vars(module), memo))
    return made
