"""Record the torch calls of a module's forward: their inputs, outputs and costs, and the module and line of each.

A torch function mode records the calls of the forward. A dispatch mode inside it records the operators that run in each
call, whose costs are those of the call. A wrapper of `nn.Module.__call__` keeps a stack of the running modules. Threads
that the forward starts have modes of their own. All are removed at the end, also after an error.
"""

import gc
import sys
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode, _pop_mode_temporarily

from attnscope.core.axes import Shape
from attnscope.core.errors import FAILURES, message_of
from attnscope.tracing.costs import (
    COUNTS,
    UNKNOWN,
    Cost,
    cost_of,
    full_name,
    fused_attention,
    name_of_operator,
    positional,
)
from attnscope.tracing.flow.record import Flow
from attnscope.tracing.memory import Memory
from attnscope.tracing.operators import Operators
from attnscope.tracing.parameters import Parameters
from attnscope.tracing.process_state import modes_as_before
from attnscope.tracing.source_lines import Line, raised_at, users_line
from attnscope.tracing.tensors import elements_of, is_array, shapes_in, tensors_in
from attnscope.tracing.threads import followed
from attnscope.tracing.visits import Running, Visit, Visits


@dataclass(slots=True)
class Call:
    """One torch call of the forward.

    `macs`, `other_flops`, `bytes_read` and `bytes_written` are sums over its operators. `unknown` has the names of those
    counts that lack an operator, and are therefore lower bounds; `uncounted` names these operators. `inputs` excludes
    parameters, whose elements `params` counts. `bytes_live` is the peak memory of the forward during this call.

    `new_params` counts those of these parameters that no earlier call takes. `visit` is the run of the module that makes
    the call; None outside of modules.

    `seen` is False for a call that cannot be timed: an operator outside any torch call, or a call in another thread.
    `subnormal` is the fraction of subnormal numbers among the weights of a softmax on a CPU, which they slow down.
    """

    name: str
    path: str
    module: str
    file: str | None
    line: int | None
    inputs: list[Shape]
    outputs: list[Shape] = field(default_factory=list)
    macs: int = 0
    other_flops: int = 0
    params: int = 0
    new_params: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    bytes_live: int = 0
    unknown: set[str] = field(default_factory=set)
    uncounted: list[str] = field(default_factory=list)
    seen: bool = True
    subnormal: float = 0.0
    visit: Visit | None = None

    def add(self, cost: Cost) -> None:
        """Add the cost of an operator that ran in this call."""
        for name in COUNTS:
            count = getattr(cost, name)
            if count is None:
                self.unknown.add(name)
            else:
                setattr(self, name, getattr(self, name) + count)

    @property
    def signature(self) -> tuple[Hashable, ...]:
        """Return everything that a row shows for one of several equal calls, and that its columns multiply."""
        return (
            self.name,
            self.module,
            tuple(self.inputs),
            tuple(self.outputs),
            self.params,
            *[getattr(self, count) for count in COUNTS],
            frozenset(self.unknown),
            tuple(self.uncounted),
        )

    @property
    def works(self) -> bool:
        """Return whether its operators computed or wrote anything."""
        return bool(self.macs or self.other_flops or self.bytes_written or self.unknown)


@dataclass
class Watched:
    """The calls of one forward in their order, its operators, and its peak memory in bytes.

    The peak is a lower bound unless `peak_is_known`.
    """

    calls: list[Call]
    flow: Flow
    peak_bytes: int
    peak_is_known: bool = True


class ForwardFailedError(Exception):
    """An error in the user's forward: `error`, in the step `step` of the module at `path`, on inputs of these shapes.

    The step is "" if the error is between two torch calls. The shapes are then those of the inputs of the module.
    """

    def __init__(
        self, error: BaseException, path: str, step: str, shapes: list[Shape], file: str | None, line: int | None
    ):
        super().__init__(message_of(error))
        self.error, self.path, self.step, self.shapes, self.file, self.line = error, path, step, shapes, file, line


Forward = Callable[[], Any]
Entered = Callable[[nn.Module, Visit, Any, Any], None]


def watch(
    module: nn.Module,
    forward: Forward,
    tracer: Any = None,
    entered: Entered | None = None,
    flow: Flow | None = None,
) -> Watched:
    """Run `forward`, which calls `module`, and return the torch calls that it made.

    Args:
        module: the module, whose submodules give the paths.
        forward: runs the forward once.
        tracer: a trace function (see `sys.settrace`) that is active in the user's code, but not inside torch calls.
        entered: called with each module that starts to run, its Visit, and its positional and keyword arguments.
        flow: records the operators; None for a new one.

    Raises:
        ForwardFailedError: the forward raised, or ended the process.
    """
    watcher = _Watcher(module, tracer if sys.version_info < (3, 12) else None, entered, flow or Flow())
    try:
        with ExitStack() as stack:
            stack.callback(watcher.parameters.release)
            stack.enter_context(watcher.modules())
            stack.enter_context(only_tensors_override())
            stack.enter_context(_native_paths_on_meta())
            stack.enter_context(flex_attention_as_a_call())
            stack.enter_context(_shown_inside_functions(watcher))
            stack.enter_context(watcher.flow.swappable())
            stack.enter_context(followed(watcher.follow))
            stack.enter_context(watcher.watching(watcher.calls, []))
            stack.enter_context(modes_as_before())
            stack.enter_context(_traced(tracer))
            result = forward()
    except FAILURES as error:
        raise watcher.failure_of(error) from error
    watcher.flow.end(result)
    return Watched(list(_in_order(watcher.calls)), watcher.flow, watcher.memory.peak, watcher.memory.is_known)


@contextmanager
def module_stack(watcher: "_Watcher") -> Iterator[None]:
    """Keep the modules that are running in each thread on its stack within a `with` block.

    A submodule that runs in a thread that is not watched, such as one of an earlier pool, is watched from there.
    """
    original = nn.Module.__call__

    def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if watcher.here.calls is None and self in watcher.visits:
            calls: list[Any] = []
            watcher.calls.append(calls)
            with watcher.watching(calls, []):
                return call(self, *args, **kwargs)
        stack = watcher.here.stack
        visit = watcher.enter(self, args, kwargs)
        try:
            out = original(self, *args, **kwargs)
            visit.outputs = _shapes_now(out)
            return out
        except FAILURES as error:
            watcher.fail_between_calls(error, args, kwargs)
            raise
        finally:
            stack.pop()

    nn.Module.__call__ = call  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.__call__ = original  # type: ignore[method-assign]


def _shapes_now(values: Any) -> list[Shape]:
    """Return shapes while the function mode is active, without its overhead for each attribute."""
    with torch._C.DisableTorchFunction():
        return shapes_in(values)


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
def _native_paths_on_meta() -> Iterator[None]:
    """Enable the native path of torch's attention modules on meta too within a `with` block, as on other devices.

    They take it on the CPU, on CUDA, and on the backend whose name a user may register. Its operator has no meta kernel in
    torch 2.5, where the module runs the operators of its other path.
    """
    registration: Any = torch.utils.backend_registration
    name = "_privateuse1_backend_name"
    is_taken = getattr(registration, name, None) != "privateuseone"  # a user has registered a backend
    if is_taken or not torch._C._dispatch_has_kernel_for_dispatch_key("aten::_native_multi_head_attention", "Meta"):
        yield
        return
    setattr(registration, name, "meta")
    try:
        yield
    finally:
        setattr(registration, name, "privateuseone")


@contextmanager
def _shown_inside_functions(watcher: "_Watcher") -> Iterator[None]:
    """Count fused attention as one operator within a `with` block, also inside functions such as MultiheadAttention's.

    The function mode does not see calls of torch's functions by other functions of torch.
    """
    original = F.scaled_dot_product_attention

    def attend(*args: Any, **kwargs: Any) -> Any:
        if watcher.here.current is None or watcher.here.is_whole:
            return original(*args, **kwargs)
        return watcher.run_whole(original, original.__name__, args, kwargs)

    F.scaled_dot_product_attention = attend
    try:
        yield
    finally:
        F.scaled_dot_product_attention = original


@contextmanager
def flex_attention_as_a_call() -> Iterator[None]:
    """Run flex_attention as one torch call without the compiler, which refuses modes, within a `with` block."""
    flex: Any = sys.modules.get("torch.nn.attention.flex_attention")
    uncompiled, operator = "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", "flex_attention_hop"
    if not hasattr(flex, uncompiled) or not hasattr(flex, operator):  # not imported, or another version of torch
        yield
        return
    before = getattr(flex, uncompiled), getattr(flex, operator)

    def attend(*args: Any, **kwargs: Any) -> Any:
        if not torch._C._len_torch_function_stack():
            return before[1](*args, **kwargs)
        with _pop_mode_temporarily() as mode:
            return mode.__torch_function__(before[1], (), args, kwargs)

    setattr(flex, uncompiled, True)
    setattr(flex, operator, attend)
    try:
        yield
    finally:
        setattr(flex, uncompiled, before[0])
        setattr(flex, operator, before[1])


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


class _Here(threading.local):
    """The state of one thread: its running modules, its running call, and the list that takes its calls.

    `is_whole` is True in a call that is costed as one operator, although it may run several on this device. `suspended` is
    the dispatch mode while a higher-order operator runs, whose own torch calls would otherwise not reach it.
    """

    def __init__(self) -> None:
        self.stack: list[Running] = []
        self.calls: list[Any] | None = None
        self.current: Call | None = None
        self.is_whole = False
        self.is_main = False
        self.suspended: Operators | None = None


class _Watcher:
    """The state that the function mode, the dispatch mode and the module stack share.

    `calls` has the calls of the main thread in their order, and in between a list for each task of another thread.
    """

    def __init__(self, module: nn.Module, tracer: Any, entered: Entered | None, flow: Flow) -> None:
        self.visits = Visits(module)
        self.parameters = Parameters(module)
        self.tracer = tracer
        self.entered = entered
        self.here = _Here()
        self.here.is_main = True
        self.calls: list[Any] = []
        self.failed: tuple[BaseException, str, str, list[Shape], Line] | None = None
        self.memory = Memory(module)
        self.flow = flow
        self.casts = False
        """A flag: autocast is or was enabled on meta, so that the bytes of later tensors are unknown."""

    def modules(self) -> Any:
        return module_stack(self)

    @contextmanager
    def watching(self, calls: list[Any], stack: list[Running]) -> Iterator[None]:
        """Record the calls of this thread in `calls` within a `with` block; `stack` has the modules that are running."""
        here = self.here
        before = here.calls, here.stack
        here.calls, here.stack = calls, stack
        try:
            # without gradients, operators that autograd would decompose are decomposed by the mode
            with torch.no_grad(), Operators(self), _Functions(self, self.tracer if here.is_main else None):
                yield
        finally:
            here.calls, here.stack = before

    def follow(self, task: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that runs a task of another thread and records its calls at this place."""
        if self.here.calls is None:  # a thread that has nothing to do with the forward
            return task
        calls: list[Any] = []
        self.here.calls.append(calls)
        stack, with_gradients = list(self.here.stack), torch.is_grad_enabled()

        def followed(*args: Any, **kwargs: Any) -> Any:
            if self.here.calls is not None:  # the task runs in the thread that gave it
                return task(*args, **kwargs)
            with self.watching(calls, stack), torch.set_grad_enabled(with_gradients):
                return task(*args, **kwargs)

        return followed

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> Visit:
        """Put a module that starts to run on the stack of this thread, and return its Visit."""
        if not self.here.stack and not self.flow.nodes:
            self.flow.begin((args, kwargs))
        visit = self.visits.of(module, self.here.stack)
        visit.inputs = _shapes_now((args, kwargs))
        if self.entered is not None:
            self.entered(module, visit, args, kwargs)
        self.here.stack.append(Running(module, visit))
        return visit

    def path(self) -> str:
        """Return the path of the innermost running module; "" outside of modules."""
        return self.here.stack[-1].visit.path if self.here.stack else ""

    def start(self, name: str, args: Any, kwargs: Any, seen: bool = True) -> Call:
        """Return a new Call of the running module with these arguments.

        A torch call takes parameters as they are. An operator outside of torch calls may take views of them.
        """
        file, line = users_line(sys._getframe(2), watch.__code__)
        tensors = list(tensors_in((args, kwargs)))
        visit = self.here.stack[-1].visit if self.here.stack else None
        is_parameter = _is_parameter if seen else self.parameters.__contains__
        return Call(
            name=name,
            path=self.path(),
            module=visit.kind if visit else "",
            file=file,
            line=line,
            inputs=shapes_in([tensor for tensor in tensors if not is_parameter(tensor)]),
            params=sum([elements_of(tensor) for tensor in tensors if is_parameter(tensor)]),
            seen=seen and self.here.is_main,
            visit=visit,
        )

    def use(self, call: Call, args: Any, kwargs: Any) -> None:
        """Count the parameters among these arguments that no call has taken yet as new ones of this call."""
        if self.parameters.unused:
            call.new_params += self.parameters.take(tensors_in((args, kwargs)))

    def record(self, call: Call, args: Any, kwargs: Any) -> None:
        """Append a call with these arguments to those of this thread."""
        assert self.here.calls is not None
        self.use(call, args, kwargs)
        self.here.calls.append(call)

    def run_whole(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """Run a call that is costed as one operator."""
        operator = whole_operator(name, args)
        arguments = positional(operator, args, kwargs)
        self.here.is_whole = True
        try:
            out = func(*args, **kwargs)
            if name == ATTENTION:
                out = as_kernels_lay(out, arguments[0])
        finally:
            self.here.is_whole = False
        self.ran(operator, arguments, {}, out)
        return out

    def ran(self, operator: Any, args: Any, kwargs: Any, out: Any) -> None:
        """Add the cost of an operator that ran to the running call.

        An operator outside any torch call becomes a call itself.
        """
        with torch._C.DisableTorchFunction():  # the modes around would take each question to a tensor for a call
            self._ran(operator, args, kwargs, out)

    def _ran(self, operator: Any, args: Any, kwargs: Any, out: Any) -> None:
        cost = cost_of(operator, args, kwargs, out)
        self.add(cost, operator, args, kwargs, out)
        arguments, calls = positional(operator, args, kwargs), self.here.calls
        call = self.here.current or (calls[-1] if calls and not cost.is_view else None)
        self.flow.add(
            name_of_operator(operator), arguments, out, cost.macs or 0, call, fused_attention(operator, arguments)
        )
        if call is not None and "softmax" in name_of_operator(operator):
            call.subnormal = subnormal_share(out)

    def add(self, cost: Cost, operator: Any, args: Any, kwargs: Any, out: Any) -> None:
        """Add an operator with this cost to the running call."""
        if cost.is_view:
            return
        if self.casts:  # other devices cast tensors that meta does not
            cost, self.memory.is_known = replace(cost, bytes_read=None, bytes_written=None), False
        call = self.here.current
        if call is None:
            call = self.start(name_of_operator(operator), args, kwargs, seen=False)
            call.outputs = shapes_in(out)
            self.record(call, args, kwargs)
        self.memory.add(out)
        call.bytes_live = max(call.bytes_live, self.memory.live)
        self.use(call, args, kwargs)
        call.add(cost)
        if cost.macs is None or cost.other_flops is None:
            call.uncounted.append(full_name(operator))
        if not self.memory.is_known:
            call.unknown.add("bytes_live")

    def lost(self, operator: Any, args: Any, kwargs: Any, out: Any) -> None:
        """Record that an operator did work that is unknown, beside the operators that it ran."""
        with torch._C.DisableTorchFunction():
            self.add(UNKNOWN, operator, args, kwargs, out)

    def fail(self, error: BaseException, name: str, args: Any, kwargs: Any) -> None:
        if self.failed is None or self.failed[0] is not error:
            self.failed = (
                error,
                self.path(),
                name,
                shapes_in((args, kwargs)),
                users_line(sys._getframe(2), watch.__code__),
            )

    def fail_between_calls(self, error: BaseException, args: Any, kwargs: Any) -> None:
        """Record the module whose own code raised, unless a torch call or a submodule did."""
        if self.failed is None or self.failed[0] is not error:
            self.failed = error, self.path(), "", _shapes_now((args, kwargs)), (None, None)

    def failure_of(self, error: BaseException) -> ForwardFailedError:
        file, line = raised_at(error, watch.__code__)
        if self.failed is not None and self.failed[0] is error:
            _, path, step, shapes, place = self.failed
            return ForwardFailedError(error, path, step, shapes, *(place if place[0] else (file, line)))
        return ForwardFailedError(error, "", "", [], file, line)


def _is_parameter(tensor: Tensor) -> bool:
    return isinstance(tensor, nn.Parameter)


def _in_order(calls: list[Any]) -> Iterator[Call]:
    """Yield the calls of a thread, and those of other threads at the places that start them."""
    for call in calls:
        if isinstance(call, list):
            yield from _in_order(call)
        else:
            yield call


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
        watcher = self.watcher
        here = watcher.here
        if name in QUESTIONS or here.is_whole:
            return func(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            # autocast is off inside operators, so that only calls can ask
            watcher.casts |= _is_autocast_enabled() and any(tensor.is_meta for tensor in tensors_in((args, kwargs)))
            here.current = call = watcher.start(name, args, kwargs)
        before = len(watcher.flow.nodes)
        run = func if here.suspended is None else partial(here.suspended.run_in_mode, func)
        modules = len(sys.modules)
        try:
            out = watcher.run_whole(run, name, args, kwargs) if name in WHOLE else run(*args, **kwargs)
        except FAILURES as error:
            watcher.fail(error, name, args, kwargs)
            raise
        finally:
            here.current = None
        if len(sys.modules) > modules:
            gc.collect()  # modules that torch imports in a call keep frames in cycles, and tensors with them
        with torch._C.DisableTorchFunction():
            if makes_tensors(out) or call.works:
                call.outputs = shapes_in(out)
                call.bytes_live = max(call.bytes_live, watcher.memory.live)
                watcher.record(call, args, kwargs)
                watcher.flow.wrap(out, (args, kwargs), before)
        return out


_is_autocast_enabled: Callable[[], bool] = getattr(
    torch._C, "_is_any_autocast_enabled", lambda: torch.is_autocast_enabled() or torch.is_autocast_cpu_enabled()
)


def subnormal_share(tensor: Tensor) -> float:
    """Return the fraction of subnormal numbers, which slow down a CPU several times; 0 on other devices."""
    if tensor.device.type != "cpu" or not tensor.is_floating_point() or not is_array(tensor):
        return 0.0
    size = tensor.abs()
    return float(((size > 0) & (size < torch.finfo(tensor.dtype).tiny)).float().mean())


ATTENTION = "scaled_dot_product_attention"
WHOLE = frozenset(
    {ATTENTION, "lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"}
)
"""Names of calls that are costed as one operator. Devices run them as different operators, and meta as others still."""


def whole_operator(name: str, args: Any) -> Any:
    """Return the operator of a call in WHOLE."""
    packet = getattr(torch.ops.aten, name)
    if not hasattr(packet, "data"):
        return packet.default
    return (
        packet.data if isinstance(args[3], tuple | list) else packet.input
    )  # weights after the sizes of a packed batch


def as_kernels_lay(out: Tensor, query: Tensor) -> Tensor:
    """Return the meta output of fused attention with the memory layout of other devices, which is that of the query."""
    if not out.is_meta or out.shape != query.shape:
        return out
    return torch.empty_like(query, requires_grad=False).copy_(out)  # with the gradient of the output


QUESTIONS = frozenset(
    {"shape", "size", "dim", "ndim", "device", "dtype", "is_cuda", "requires_grad", "numel", "stride"}
)
"""Calls that query a property of a tensor and compute nothing. They are the most frequent, and skip all recording."""


def makes_tensors(out: Any) -> bool:
    """Return whether the result of a call contains a tensor, which makes the call a row."""
    return isinstance(out, Tensor) or next(tensors_in(out), None) is not None


@cache
def name_of(func: Any) -> str:
    """Return the name of a torch function as in source code: `linear`, `matmul`, `shape`; an operator has no overload."""
    name = getattr(func, "__name__", type(func).__name__).partition(".")[0]
    if name in ("__get__", "__set__"):
        owner = getattr(func, "__self__", None)
        name = getattr(owner, "__name__", name)
    return name.strip("_") if name.startswith("__") else name
