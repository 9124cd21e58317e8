"""Record the operators that run, through everything that hides them: composites, higher-order and custom operators."""

import re
from collections.abc import Callable
from functools import cache, partial
from types import FunctionType, MethodType
from typing import Any, Protocol

import torch
from torch import nn
from torch._ops import HigherOrderOperator, OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from attnscope.ops.formats import is_channels_last
from attnscope.tracing.costs import is_known, is_view, name_of
from attnscope.tracing.meta_results import MetaResults
from attnscope.tracing.tensors import has_own_operators, overwritten, storage_of, tensors_in

ALLOCATES = re.compile(r"(new_)?(empty|zeros|ones|full)(_like|_strided|_permuted)?")
"""Names of operators whose result has no values that were computed."""


ONLY_CALLS = {
    *(
        "cond",
        "while_loop",
        "map",
        "map_impl",
        "scan",
        "associative_scan",
        "invoke_subgraph",
        "autograd_function_apply",
    ),
    *("wrap", "wrap_with_set_grad_enabled", "wrap_with_autocast", "hints_wrapper"),
    *("wrap_activation_checkpoint", "tag_activation_checkpoint"),
}
"""Higher-order operators that compute nothing but what their functions compute."""
FUNCTIONS = (FunctionType, MethodType, partial, nn.Module)
"""Types of the functions that users pass to a higher-order operator."""


class Recorder(Protocol):
    """A receiver of the operators that ran."""

    here: Any

    def ran(self, operator: Any, args: Any, kwargs: Any, out: Any) -> None:
        """Record an operator that ran."""

    def lost(self, operator: Any, args: Any, kwargs: Any, out: Any) -> None:
        """Record an operator whose work is at least partly unknown, after the operators that it ran."""


class Operators(TorchDispatchMode):
    """A mode that passes the operators that run to a recorder."""

    supports_higher_order_operators = True

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recorder = recorder
        self.results = MetaResults()
        self.computed: set[int] | None = None
        """Inside a custom operator, the storages whose values an operator computed."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if isinstance(func, HigherOrderOperator):  # the torch calls of its functions are those of the forward
            return self.run_higher_order(func, *args, **(kwargs or {}))
        if self.recorder.here.current is None:  # a function mode would take the operator for a call of the forward
            with torch._C.DisableTorchFunction():
                return self.run(func, types, args, kwargs or {})
        return self.run(func, types, args, kwargs or {})

    def run(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """Run an operator, and record it or the operators of which it consists."""
        if any(map(has_own_operators, types)):
            return NotImplemented  # the subclass runs operators on the tensors inside, which come back here
        if _is_composite(func) and not _has_nested(args, kwargs):  # nested tensors have kernels of their own
            with self:
                return func.decompose(*args, **kwargs)
        if self.recorder.here.is_whole:
            return self.result_of(func, args, kwargs)
        if not is_known(func) and (backend := _backend(args, kwargs)) and _runs_python(func, backend):
            return self.run_custom(func, backend, args, kwargs)
        out = self.result_of(func, args, kwargs)
        out = _laid_out(func, args, out)
        self.recorder.ran(func, args, kwargs, out)
        if self.computed is not None and not (is_view(func) or ALLOCATES.fullmatch(name_of(func))):
            self.computed |= _storages(out)
        return out

    def result_of(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Return the result of an operator.

        Many operators on meta are Python, whose torch calls are not those of the forward.
        """
        if func.namespace != "aten":
            return func(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            return self.results.of(func, args, kwargs)

    def run_higher_order(self, func: HigherOrderOperator, /, *args: Any, **kwargs: Any) -> Any:
        """Run a higher-order operator.

        Functions among its arguments, such as the branches of a cond, run in this mode. One that is in the registry, such
        as flex_attention, is recorded instead. The work of any other one, beside these functions, is unknown.
        """
        here = self.recorder.here
        if is_known(func):
            around, here.is_whole = here.is_whole, True
            try:
                out = func(*args, **kwargs)
            finally:
                here.is_whole = around
            if not around:
                self.recorder.ran(func, args, kwargs, out)
            return out
        run = partial(tree_map_only, FUNCTIONS, lambda function: partial(self.run_in_mode, function))
        around, here.suspended = here.suspended, self
        try:
            out = func(*run(args), **run(kwargs))
        finally:
            here.suspended = around
        if str(func) not in ONLY_CALLS:
            self.recorder.lost(func, args, kwargs, out)
        return out

    def run_in_mode(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a function in this mode."""
        here = self.recorder.here
        around, here.suspended = here.suspended, None
        try:
            with self:
                return function(*args, **kwargs)
        finally:
            here.suspended = around

    def run_custom(self, func: OpOverload, backend: str, args: Any, kwargs: Any) -> Any:
        """Run a custom operator that Python implements, and record the operators that its kernel runs.

        If the kernel may do other work too, because no operator computed the values of a result, the cost is unknown.
        """
        around, self.computed = self.computed, set()
        try:
            kernel = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, backend))
            out: Any = self.run_in_mode(partial(func.redispatch, kernel), *args, **kwargs)
            results = _storages(out) | _storages(overwritten(func, args, kwargs))
            is_complete = bool(results) and results <= self.computed
        finally:
            self.computed = around
        if not is_complete:
            self.recorder.lost(func, args, kwargs, out)
        if around is not None:
            around |= results
        return out


def _laid_out(operator: Any, args: Any, out: Any) -> Any:
    """Return the result of an operator on meta in the memory format that it has on other devices.

    A convolution keeps the channels-last format of its input; on meta its result would be contiguous.
    """
    if operator is not torch.ops.aten.convolution.default or not out.is_meta:
        return out
    if not is_channels_last(args[0].shape, args[0].stride()):
        return out
    return out.to(memory_format=torch.channels_last)


def _has_nested(args: Any, kwargs: Any) -> bool:
    with torch._C.DisableTorchFunction():
        return any(tensor.is_nested for tensor in tensors_in((args, kwargs)))


def _storages(values: Any) -> set[int]:
    return {storage._cdata for tensor in tensors_in(values) if (storage := storage_of(tensor)) is not None}


@cache
def _is_composite(operator: Any) -> bool:
    """Return whether an operator only calls other operators, into which autograd would decompose it."""
    name, key = operator.name(), "CompositeImplicitAutograd"
    if not torch._C._dispatch_has_kernel(name):  # a property such as prim::device, which is not an operator
        return False
    base_name = name.rpartition("::")[2].split(".")[0]
    return base_name != "scaled_dot_product_attention" and torch._C._dispatch_has_kernel_for_dispatch_key(name, key)


def _backend(args: Any, kwargs: Any) -> str:
    """Return the dispatch key of the device of the first tensor; "" on meta, where kernels only allocate their result."""
    device = next((tensor.device.type for tensor in tensors_in((args, kwargs))), "meta").upper()
    return device if device != "META" and hasattr(torch._C.DispatchKey, device) else ""


@cache
def _runs_python(operator: Any, backend: str) -> bool:
    """Return whether the kernel of an operator for a backend is written in Python."""
    kernels = torch._C._dispatch_dump(operator.name()).splitlines()
    return any(
        line.startswith((f"{backend}:", "CompositeExplicitAutograd[alias]:")) and ".py:" in line for line in kernels
    )


def add_rules(mode_type: Any) -> None:
    """Register a mode with a method `run_higher_order` for all higher-order operators, as older versions of torch need."""
    if hasattr(TorchDispatchMode, "supports_higher_order_operators"):
        return

    def add_rule(operator: HigherOrderOperator) -> None:
        @operator.py_impl(mode_type)
        def _(mode: Any, *args: Any, **kwargs: Any) -> Any:
            return mode.run_higher_order(operator, *args, **kwargs)

    for operator in getattr(torch._ops, "_higher_order_ops", {}).values():
        add_rule(operator)


add_rules(Operators)
