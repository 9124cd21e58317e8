"""Record the torch calls of a module's forward: their inputs, outputs and costs, and the module and line of each.

A torch function mode records the calls of the forward. A dispatch mode inside it records the operators that run in each
call, whose costs are those of the call. A wrapper of `nn.Module.__call__` keeps a stack of the running modules. All three
are removed at the end, also after an error.
"""

import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from attnscope.core.axes import Shape
from attnscope.tracing.costs import Attend, cost_of, fused_attention, positional, shapes_in, tensors_in
from attnscope.tracing.source_lines import Line, raised_at, users_line

HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads")
"""Names of the attribute with the number of heads of a module."""


@dataclass(frozen=True, slots=True)
class Mark:
    """An operator by which attention is recognized: a matmul ("mix"), a softmax, or a fused attention ("attend")."""

    kind: str
    inputs: tuple[Shape, ...]
    output: Shape
    macs: int
    heads: int | None
    attend: Attend | None = None


@dataclass(slots=True)
class Call:
    """One torch call of the forward. `macs` and `other_flops` are None if an operator in it has no formula.

    `inputs` excludes parameters, whose elements `params` counts. `bytes_live` is the peak memory of the forward during this
    call. `seen` is False for an operator that ran outside any torch call and therefore has no time. `subnormal` is the
    fraction of subnormal numbers among the weights of a softmax on a CPU, which they slow down.
    """

    name: str
    path: str
    module: str
    file: str | None
    line: int | None
    inputs: list[Shape]
    outputs: list[Shape] = field(default_factory=list)
    macs: int | None = 0
    other_flops: int | None = 0
    params: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    bytes_live: int = 0
    uncounted: list[str] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    seen: bool = True
    subnormal: float = 0.0


@dataclass
class Watched:
    """The calls of one forward in their order, and its peak memory in bytes."""

    calls: list[Call]
    peak_bytes: int


class ForwardFailedError(Exception):
    """An error in the user's forward: `error`, in the step `step` of the module at `path`, on inputs of these shapes."""

    def __init__(self, error: Exception, path: str, step: str, shapes: list[Shape], file: str | None, line: int | None):
        super().__init__(str(error))
        self.error, self.path, self.step, self.shapes, self.file, self.line = error, path, step, shapes, file, line


Forward = Callable[[], Any]


def watch(module: nn.Module, forward: Forward, tracer: Any = None) -> Watched:
    """Run `forward`, which calls `module`, and return the torch calls that it made.

    Args:
        module: the module, whose submodules give the paths.
        forward: runs the forward once.
        tracer: a trace function (see `sys.settrace`) that is active in the user's code, but not inside torch calls.

    Raises:
        ForwardFailedError: the forward raised an Exception.
    """
    watcher = _Watcher(module, tracer)
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())  # operators that autograd would decompose are decomposed by _Operators
            stack.enter_context(watcher.modules())
            stack.enter_context(only_tensors_override())
            stack.enter_context(watcher.operators)
            stack.enter_context(watcher.functions)
            stack.enter_context(_traced(tracer))
            forward()
    except Exception as error:
        raise watcher.failure_of(error) from error
    return Watched(watcher.calls, watcher.memory.peak)


@contextmanager
def module_stack(module: nn.Module, stack: list[nn.Module]) -> Iterator[None]:
    """Keep the modules that are running on `stack` within a `with` block."""
    original = nn.Module.__call__

    def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        stack.append(self)
        try:
            return original(self, *args, **kwargs)
        finally:
            stack.pop()

    nn.Module.__call__ = call  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.__call__ = original  # type: ignore[method-assign]


@contextmanager
def only_tensors_override() -> Iterator[None]:
    """Enable torch's native fast paths within a `with` block, although a function mode is active.

    `nn.MultiheadAttention` and `nn.TransformerEncoderLayer` leave them if anything overrides torch's functions. Within this
    block only tensor subclasses count as overrides, not the function mode.
    """
    original = torch.overrides.has_torch_function

    def has_torch_function(tensors: Any) -> bool:
        return any(type(tensor) not in (Tensor, nn.Parameter) for tensor in tensors if isinstance(tensor, Tensor))

    torch.overrides.has_torch_function = has_torch_function  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.overrides.has_torch_function = original


@contextmanager
def _traced(tracer: Any) -> Iterator[None]:
    before = sys.gettrace()
    if tracer is not None:
        sys.settrace(tracer)
    try:
        yield
    finally:
        if tracer is not None:
            sys.settrace(before)


class _Watcher:
    """The state that the function mode, the dispatch mode and the module stack share."""

    def __init__(self, module: nn.Module, tracer: Any) -> None:
        self.paths = {id(submodule): path for path, submodule in module.named_modules()}
        self.root = module
        self.stack: list[nn.Module] = []
        self.calls: list[Call] = []
        self.current: Call | None = None
        self.is_whole = False
        """Whether the running call is costed as one operator, although it may run several on this device."""
        self.failed: tuple[BaseException, str, str, list[Shape], Line] | None = None
        self.memory = _Memory(module)
        self.functions = _Functions(self, tracer if sys.version_info < (3, 12) else None)
        self.operators = _Operators(self)

    def modules(self) -> Any:
        return module_stack(self.root, self.stack)

    def path(self) -> str:
        """Return the path of the innermost running module.

        A module that is not a submodule of the root is represented by its class, after the path of the module around it.
        """
        without_path: list[str] = []
        for module in reversed(self.stack):
            if id(module) in self.paths:
                return ".".join(filter(None, [self.paths[id(module)], *reversed(without_path)]))
            without_path.append(type(module).__name__)
        return ".".join(reversed(without_path))

    def heads(self) -> int | None:
        """Return the number of heads of the innermost running module that has this attribute; None if none has it."""
        for module in reversed(self.stack):
            for name in HEADS:
                if isinstance(value := getattr(module, name, None), int):
                    return value
        return None

    def start(self, name: str, args: Any, kwargs: Any, seen: bool = True) -> Call:
        file, line = users_line(sys._getframe(2), watch.__code__)
        tensors = list(tensors_in((args, kwargs)))
        return Call(
            name=name,
            path=self.path(),
            module=type(self.stack[-1]).__name__ if self.stack else "",
            file=file,
            line=line,
            inputs=[tuple(tensor.shape) for tensor in tensors if not isinstance(tensor, nn.Parameter)],
            params=sum([tensor.numel() for tensor in tensors if isinstance(tensor, nn.Parameter)]),
            seen=seen,
        )

    def ran(self, operator: Any, args: Any, kwargs: Any, out: Any) -> None:
        """Add the cost of an operator that ran to the running call.

        An operator outside any torch call becomes a call itself.
        """
        call = self.current
        cost = cost_of(operator, args, kwargs, out)
        if call is None:
            if cost.is_view:
                return
            call = self.start(operator.overloadpacket.__name__, args, kwargs, seen=False)
            call.outputs = shapes_in(out)
            self.calls.append(call)
        if cost.is_view:
            return
        self.memory.add(out)
        call.bytes_live = max(call.bytes_live, self.memory.live)
        call.bytes_read += cost.bytes_read
        call.bytes_written += cost.bytes_written
        if cost.macs is None or cost.other_flops is None:
            call.uncounted.append(str(operator.overloadpacket).replace(".", "::"))
            call.macs = call.other_flops = None
        elif call.macs is not None and call.other_flops is not None:
            call.macs += cost.macs
            call.other_flops += cost.other_flops
        self.mark(call, operator, args, out, cost.macs or 0)

    def mark(self, call: Call, operator: Any, args: Any, out: Any, macs: int) -> None:
        fused = fused_attention(operator, args)
        if fused is not None:
            call.marks.append(Mark("attend", (), shapes_in(out)[0], fused.macs, fused.heads, fused))
        elif macs or "softmax" in operator.overloadpacket.__name__:
            kind = "mix" if macs else "softmax"
            call.marks.append(Mark(kind, tuple(shapes_in(args)), shapes_in(out)[0], macs, self.heads()))
            if kind == "softmax":
                call.subnormal = subnormal_share(out)

    def fail(self, error: BaseException, name: str, args: Any, kwargs: Any) -> None:
        if self.failed is None or self.failed[0] is not error:
            self.failed = (
                error,
                self.path(),
                name,
                shapes_in((args, kwargs)),
                users_line(sys._getframe(2), watch.__code__),
            )

    def failure_of(self, error: Exception) -> ForwardFailedError:
        file, line = raised_at(error, watch.__code__)
        if self.failed is not None and self.failed[0] is error:
            _, path, step, shapes, place = self.failed
            return ForwardFailedError(error, path, step, shapes, *(place if place[0] else (file, line)))
        return ForwardFailedError(error, "", "", [], file, line)


class _Functions(TorchFunctionMode):
    """A mode that records torch calls. It suspends the trace function during a call, where only torch's code runs."""

    def __init__(self, watcher: _Watcher, tracer: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.watcher = watcher
        self.tracer = tracer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.tracer is not None:
            sys.settrace(None)
        try:
            return self.call(func, args, kwargs or {})
        finally:
            if self.tracer is not None:
                sys.settrace(self.tracer)

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        name = name_of(func)
        if name in QUESTIONS:
            return func(*args, **kwargs)
        watcher = self.watcher
        watcher.current = call = watcher.start(name, args, kwargs)
        try:
            watcher.is_whole = name in WHOLE
            out = func(*args, **kwargs)
            if watcher.is_whole:
                arguments = positional(WHOLE[name], args, kwargs)
                out = as_kernels_lay(out, arguments[0])
                watcher.is_whole = False
                watcher.ran(WHOLE[name], arguments, {}, out)
        except Exception as error:
            watcher.fail(error, name, args, kwargs)
            raise
        finally:
            watcher.current, watcher.is_whole = None, False
        if makes_tensors(out):
            call.outputs = shapes_in(out)
            call.bytes_live = max(call.bytes_live, watcher.memory.live)
            watcher.calls.append(call)
        return out


class _Operators(TorchDispatchMode):
    """A mode that records the operators that run."""

    def __init__(self, watcher: _Watcher) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.watcher = watcher

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _is_composite(func):
            with self:
                return func.decompose(*args, **kwargs)
        out = func(*args, **kwargs)
        if not self.watcher.is_whole:
            self.watcher.ran(func, args, kwargs, out)
        return out


class _Memory:
    """The memory that the forward holds, without parameters and inputs. A storage counts until its last reference ends."""

    def __init__(self, module: nn.Module) -> None:
        self.live = self.peak = 0
        self.held: dict[int, weakref.ref[Any]] = {}
        self.outside = {_storage(tensor)._cdata for tensor in [*module.parameters(), *module.buffers()]}

    def add(self, out: Any) -> None:
        for tensor in tensors_in(out):
            try:
                storage = _storage(tensor)
            except (RuntimeError, NotImplementedError):
                continue  # a tensor without its own storage
            key = storage._cdata
            if key in self.held or key in self.outside:
                continue
            self.held[key] = weakref.ref(storage, self.freed(key, storage.nbytes()))
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)

    def freed(self, key: int, size: int) -> Callable[[Any], None]:
        def callback(_: Any) -> None:
            del self.held[key]
            self.live -= size

        return callback


def subnormal_share(tensor: Tensor) -> float:
    """Return the fraction of subnormal numbers, which slow down a CPU several times; 0 on other devices."""
    if tensor.device.type != "cpu" or not tensor.is_floating_point():
        return 0.0
    size = tensor.abs()
    return float(((size > 0) & (size < torch.finfo(tensor.dtype).tiny)).float().mean())


def _storage(tensor: Tensor) -> Any:
    return tensor.untyped_storage()


WHOLE = {"scaled_dot_product_attention": torch.ops.aten.scaled_dot_product_attention.default}
"""Calls that are costed as one operator, by name. On the meta device, torch decomposes them differently than on others."""


def as_kernels_lay(out: Tensor, query: Tensor) -> Tensor:
    """Return the meta output of fused attention with the memory layout of other devices, which is that of the query."""
    return torch.empty_like(query) if out.is_meta and out.shape == query.shape else out


QUESTIONS = frozenset(
    {"shape", "size", "dim", "ndim", "device", "dtype", "is_cuda", "requires_grad", "numel", "stride"}
)
"""Calls that query a property of a tensor and compute nothing. They are the most frequent, and skip all recording."""


def makes_tensors(out: Any) -> bool:
    """Return whether the result of a call contains a tensor, which makes the call a row."""
    return isinstance(out, Tensor) or next(tensors_in(out), None) is not None


@cache
def name_of(func: Any) -> str:
    """Return the name of a torch function as in source code: `linear`, `matmul`, `shape`."""
    name = getattr(func, "__name__", type(func).__name__)
    if name in ("__get__", "__set__"):
        owner = getattr(func, "__self__", None)
        name = getattr(owner, "__name__", name)
    return name.strip("_") if name.startswith("__") else name


@cache
def _is_composite(operator: Any) -> bool:
    """Return whether an operator only calls other operators, into which autograd would decompose it."""
    name, key = operator.name(), "CompositeImplicitAutograd"
    base_name = name.rpartition("::")[2].split(".")[0]
    return base_name != "scaled_dot_product_attention" and torch._C._dispatch_has_kernel_for_dispatch_key(name, key)
