"""Run a module, or one of its submodules, on a device: record its calls, and time them."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from types import GeneratorType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from attnscope.core.errors import FAILURES, UsageError, did_you_mean, in_a_line
from attnscope.profiling.outputs import not_finite
from attnscope.profiling.timing import Timing
from attnscope.tracing.call_timing import CallsDifferError, time_calls
from attnscope.tracing.calls import ForwardFailedError, Watched, watch
from attnscope.tracing.comments.following import CommentCheck
from attnscope.tracing.flow.record import Flow
from attnscope.tracing.isolation import Inputs, dismantle, evaluating, inputs_apart, isolated
from attnscope.tracing.options import TraceOptions
from attnscope.tracing.process_state import collector_paused, default_device, modes_as_before, process_as_before
from attnscope.tracing.source_lines import is_users, raised_at
from attnscope.tracing.surroundings import surroundings_as_before
from attnscope.tracing.tensors import shapes_in, tensors_within
from attnscope.tracing.tree import modules_of, named_modules, tensors_of
from attnscope.tracing.visits import Visit

UNSCRIPTED = "before torch.jit.script or torch.jit.trace"
"""The fix for a module whose submodules and calls TorchScript hides."""


@dataclass(frozen=True)
class Found:
    """The results of running a module.

    `module` is a copy of the traced one, the whole or a submodule. `inputs` are its inputs, as they were before the run.
    `whole_inputs` are those of the whole.

    `batch` is the number of images in the inputs of the whole. `copies` are the modules of the copy of the whole.
    """

    module: nn.Module
    inputs: Inputs
    device: torch.device
    batch: int
    watched: Watched
    comments: CommentCheck
    copies: list[nn.Module]
    whole_inputs: Inputs
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    find: Callable[[], None] = lambda: None
    """Lets the copy find what tables outside of the module keep by the module."""
    shared: list[Any] = field(default_factory=list)
    """The objects that the copies share with the originals, since they cannot be copied."""

    def release(self) -> None:
        """Discard the copy, whose memory becomes free."""
        dismantle(self.copies)


@dataclass(frozen=True)
class Measured:
    """The times of the calls; None if they were not requested, or if `warnings` has a reason why they are missing."""

    timing: Timing | None = None
    warnings: tuple[str, ...] = ()


def run_watched(
    device: torch.device, submodule: str | None, module: nn.Module, inputs: Callable[[torch.device], Inputs]
) -> Found:
    """Run a copy of a module on a device, and record its calls.

    Args:
        device: the device.
        submodule: path of a submodule to run alone, on the inputs that it receives inside the whole; None for the whole.
        module: the whole module.
        inputs: builds the inputs of the whole on a device.

    Raises:
        UsageError: the submodule does not exist.
        ForwardFailedError: the forward raised.
    """
    check = CommentCheck(is_users, _has_sizes)
    tracer = check if sys.gettrace() is None else None  # a debugger or a coverage tool keeps its trace function
    given, copies, shared = inputs(device), list[nn.Module](), list[Any]()
    try:
        # copying and `eval()` may run the user's code, and a forward that fails on meta must not change its next run
        with process_as_before(), surroundings_as_before(module, given) as around, modes_as_before():
            there, (args, keywords) = isolated(module, given, device, shared)
            around.keep(shared)
            find = partial(around.find, there)
            find()
            copies += modules_of(there)  # without those that the forward may add, which may be others
            whole = args, keywords
            evaluating(there)
            check.batch = batch = _batch(there, args, keywords)
            with _prepared(device):
                _materialize(there, (args, keywords))
                flow = Flow()
                if submodule:
                    there, (args, keywords), flow = received(there, submodule, args, keywords)
                before = inputs_apart((args, keywords))
                made: list[Any] = []

                def forward() -> Any:
                    made.append(_result(there, (args, keywords)))
                    return made[0]

                watched = watch(there, forward, tracer, flow=flow)
                warning = not_finite(tensors_within(made))
    except BaseException:
        dismantle(copies)
        given = before = ((), {})  # the traceback keeps this frame; other owners of the inputs would cost a copy
        raise
    notes = () if tracer else ("shape comments were not checked: a debugger or a coverage tool is active",)
    if check.failure is not None:
        notes = (f"not all shape comments were checked: {in_a_line(check.failure)}",)
    return Found(
        there, before, device, batch, watched, check, copies, whole, notes, (warning,) if warning else (), find, shared
    )


@contextmanager
def _prepared(device: torch.device) -> Iterator[None]:
    """Prepare the process for a forward on a device within a `with` block.

    Tensors that a forward on meta creates belong there too. Its garbage holds no memory, so that nothing has to collect it.
    """
    if device.type != "meta":
        yield
        return
    with default_device(device), collector_paused():
        yield


def _materialize(module: nn.Module, inputs: Inputs) -> None:
    """Run a module with lazy parameters once, so that they get their sizes before the forward that is recorded."""
    if any(map(is_lazy, tensors_of(module))):
        args, keywords = inputs_apart(inputs)
        with torch.no_grad(), suppress(*FAILURES):  # the recorded forward will raise it with its context
            module(*args, **keywords)


def _result(module: nn.Module, inputs: Inputs) -> Any:
    """Run a forward, including one that is a generator, and return its result."""
    args, keywords = inputs
    result = module(*args, **keywords)
    return list(result) if isinstance(result, GeneratorType) else result


def _has_sizes(value: Any) -> bool:
    """Return whether a value is a tensor with a size for each axis."""
    return isinstance(value, Tensor) and not value.is_nested and not is_lazy(value)


def received(
    module: nn.Module, path: str, args: tuple[Any, ...], keywords: Mapping[str, Any]
) -> tuple[nn.Module, Inputs, Flow]:
    """Run the whole module up to the submodule at `path`; return the submodule and the inputs of its first call.

    The Flow is for the forward of the submodule. It knows what the inputs were in the whole, such as windows of an image.

    Raises:
        UsageError: the submodule does not exist, or the forward never calls it.
        ForwardFailedError: the forward raised before it called the submodule.
    """
    submodules = dict(named_modules(module, remove_duplicate=False))
    if path not in submodules:
        names = [name for name in submodules if name]
        first = f"the first submodules are: {', '.join(names[:6])}"
        raise UsageError(f"{{module}} {path} does not exist; {did_you_mean(path, names, many=first)}")

    class Reached(BaseException):
        pass

    caught: list[tuple[Inputs, Flow]] = []

    def catch(is_it: Callable[[nn.Module, Visit], bool]) -> bool:
        flow = Flow()

        def entered(running: nn.Module, visit: Visit, args: Any, keywords: Any) -> None:
            if is_it(running, visit):
                caught.append(((args, keywords), Flow(before=flow)))
                raise Reached

        try:
            watch(module, lambda: module(*args, **keywords), entered=entered, flow=flow)
        except Reached:
            return True
        return False

    # a shared module runs below several callers, or below one that calls it by another name
    if catch(lambda _, visit: visit.path == path) or catch(lambda running, _: running is submodules[path]):
        inputs, flow = caught[0]
        return submodules[path], inputs, flow
    fix = f"trace the module {UNSCRIPTED}" if _scripted(module) else "choose a submodule that it calls"
    raise UsageError(f"{{module}} {path} is never called by the forward; {fix}")


def _batch(module: nn.Module, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> int:
    """Return the number of images in the inputs, which is the size of the first axis of the input with the most axes.

    An input with one image may be broadcast to the others. torch's own attention modules take `n b c` instead, unless they
    are `batch_first`.
    """
    shapes = [shape for shape in shapes_in((args, dict(keywords))) if shape]
    if not shapes:
        return 1
    own = type(module).__module__.startswith("torch.nn.")
    layouts = {each.batch_first for each in modules_of(module) if own and isinstance(each, nn.MultiheadAttention)}
    if layouts and len(shapes[0]) == 2:
        return 1  # `n c`
    if layouts == {False} and len(shapes[0]) == 3:
        return shapes[0][1] or 1
    most = max(map(len, shapes))
    sizes = [shape[0] for shape in shapes if len(shape) == most]
    return (sizes[0] if sizes[0] != 1 else max(sizes)) or 1


def measure(found: Found, options: TraceOptions) -> Measured:
    """Time the calls that were found, if the options request it.

    Raises:
        ForwardFailedError: the forward raised, although it had run before.
    """
    if not options.time:
        return Measured()

    def prepared() -> Callable[[], Any]:
        """Return a function that runs the forward once, on inputs of its own, since a forward may change them."""
        return partial(_run_forward, found.module, inputs_apart(found.inputs, lazily=False))

    try:
        progress = options.progress_of("the calls")
        with surroundings_as_before(found.module, found.inputs) as around:
            around.keep(found.shared)
            found.find()
            timing = time_calls(found.device, prepared, found.watched.calls, options.budget, progress)
            return Measured(timing, _untimed(found))
    except CallsDifferError:
        return Measured(
            warnings=(
                "not timed: the torch calls of the forward change from run to run; trace a submodule whose calls do not",
            )
        )


def _untimed(found: Found) -> tuple[str, ...]:
    """Return a warning about the calls that have no times, with the fix."""
    calls = found.watched.calls
    count = sum(not call.seen for call in calls)
    if not count:
        return ()
    if _scripted(found.module):
        why = f"TorchScript runs them; trace the module {UNSCRIPTED}"
    else:
        why = "they run in other threads, or outside of torch calls; their time is part of the whole"
    return (f"{count:,} of {len(calls):,} calls have no times: {why}",)


def _scripted(module: nn.Module) -> bool:
    return any(isinstance(each, torch.jit.ScriptModule) for each in modules_of(module))


def _run_forward(module: nn.Module, inputs: Inputs) -> Any:
    """Run a forward, and raise ForwardFailedError if it raises."""
    try:
        return _result(module, inputs)
    except FAILURES as error:
        raise ForwardFailedError(error, "", "", [], *raised_at(error, _run_forward.__code__)) from error
