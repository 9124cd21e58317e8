"""Trace a third-party module: build it, run it, measure it, and report."""

import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import replace
from functools import wraps
from typing import Any, ParamSpec

import torch
from torch import nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from attnscope.core.errors import DeviceError, UsageError, exceeds_addresses, literal
from attnscope.core.version import __version__
from attnscope.profiling.building import memory_errors_explained, settled, shortage
from attnscope.profiling.devices import environment, find_device
from attnscope.profiling.options import BUDGET_S
from attnscope.profiling.printing import prints_on_stderr
from attnscope.reports.report import TraceReport
from attnscope.tracing.calls import ForwardFailedError
from attnscope.tracing.construction import SMALLER, built, inputs_maker, parameters_short
from attnscope.tracing.failures import ForwardError, forward_errors_explained, is_metas, needs_values, reason
from attnscope.tracing.isolation import Inputs, home, is_partly_on_meta, memory_returned
from attnscope.tracing.options import TraceOptions
from attnscope.tracing.process_state import imports_as_before, process_as_before
from attnscope.tracing.report import trace_report
from attnscope.tracing.run import Found, measure, run_watched
from attnscope.tracing.source_lines import users_files
from attnscope.tracing.targets import InputSpec, Target
from attnscope.tracing.targets.target import input_fix
from attnscope.tracing.tensors import has_values, tensors_in
from attnscope.tracing.tree import named_tensors_of, tensors_of
from attnscope.tracing.values import values_known

__all__ = ["ForwardError", "TraceOptions", "trace", "trace_target"]

META = torch.device("meta")
WITHOUT_TIME = "leave out {time} for shapes and costs only"
TOO_LARGE = "a tensor does not fit in a 64-bit address space; use a smaller {input} or smaller values of {arg}"
LARGE = 2**30
"""Bytes of inputs that are not built only to repeat the error of meta on another device."""

Arguments = ParamSpec("Arguments")


def in_own_context(function: Callable[Arguments, TraceReport]) -> Callable[Arguments, TraceReport]:
    """Return a function that runs in a copy of the context variables, so that a forward sets those of the copy."""

    @wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> TraceReport:
        return copy_context().run(function, *args, **kwargs)

    return run


@in_own_context
def trace(
    module: nn.Module,
    *inputs: Any,
    time: bool = False,
    device: str | None = None,
    group: str = "module",
    depth: int | None = None,
    all: bool = False,
    sort: str | None = None,
    top: int | None = None,
    backward: bool = False,
    input_grad: bool = True,
    submodule: str | None = None,
    budget: float = BUDGET_S,
    threads: int = 1,
    seed: int = 0,
    name: str | None = None,
    command: str | None = None,
    focus: Sequence[str] = (),
    kwargs: Mapping[str, Any] | None = None,
    **keywords: Any,
) -> TraceReport:
    """Report the torch calls of any module's forward: their shapes, exact costs, and times if requested.

    Args:
        module: the module. A copy of it runs, in evaluation mode and without gradients. The module, its inputs, the
            generators of random numbers and the settings of the process remain as they are, also after an error.
        inputs: positional arguments of its forward.
        time: run the forward and measure it. Otherwise shapes and costs come from a copy on the meta device, which computes
            nothing.
        device: the device to run on, which gets a copy of the module unless the module is there. None is meta, or with
            `time` the device of the module.
        group: how calls are grouped into rows: "module", "line" or "op".
        depth: number of module levels to show; None shows as many as fit in 60 lines.
        all: show all rows of all levels.
        sort: sort the rows by "macs", "time", "params" or "bytes"; None keeps the order of the calls.
        top: number of rows to show, of those with the largest figures; the others are one row.
        backward: also count the MACs of the backward of each row, by the operators of the forward.
        input_grad: whether the inputs need a gradient in the backward.
        submodule: path of a submodule to trace alone, on the inputs that it receives inside the whole.
        budget: seconds to spend on the measurement.
        threads: number of CPU threads; with one, times are reliable on a busy machine too.
        seed: random seed for the forward.
        name: name of the module in the report.
        command: the command line, for the record.
        focus: additional parts of the result to show: "details", "explain".
        kwargs: keyword arguments of its forward that have the name of an argument of `trace`, such as `{"time": t}`.
        keywords: its other keyword arguments.

    Returns:
        A TraceReport, a Report whose rows are torch calls. Its attributes are the keys of its JSON. Counts are None if an
        operator has no formula.

    Raises:
        UsageError: an argument is not allowed.
        DeviceError: the device is not available, or its memory ran out.
        ForwardError: the forward raised; the message has the step, the shapes of its inputs and the line of your code.

    Example:
        >>> import attnscope, torch
        >>> report = attnscope.trace(torch.nn.Linear(96, 288), torch.randn(1, 49, 96))
        >>> report.totals.macs, report.totals.params
        (1354752, 27936)
    """
    if not hasattr(module, "named_modules"):
        raise UsageError(f"module must be an nn.Module, such as nn.MultiheadAttention(64, 4) (got {module!r})")
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise UsageError(f"{{kwargs}} must be a dictionary of keyword arguments, such as dict(time=t) (got {kwargs!r})")
    keywords = {**keywords, **(kwargs or {})}
    rows: dict[str, Any] = {"everything": all, "sort": sort, "top": top, "backward": backward, "input_grad": input_grad}
    options = TraceOptions(
        time, device, group, depth, submodule, budget, threads, seed, command, focus=tuple(focus), **rows
    )
    _check_home(module, options)
    _check_values((inputs, keywords), options)
    with _harmless(options.time):
        return _trace(options, name or type(module).__name__, module, lambda where: (inputs, keywords), lambda: module)


@in_own_context
def trace_target(target: Target, options: TraceOptions) -> TraceReport:
    """Build a target and report its torch calls, as `trace` does for a module.

    Args:
        target: the module to build, and its inputs.
        options: how to trace it.

    Raises:
        UsageError: the target does not exist, or its arguments are not allowed.
        DeviceError: the device is not available, or the target does not fit in its memory.
        ForwardError: the target could not be built, or its forward raised.
    """
    with _harmless(options.time), imports_as_before():
        before = set(sys.modules)
        with settled(options.threads, options.seed, torch.device("cpu")):
            if options.runs:
                options = replace(options, device=options.device or "auto")
                _check_fit(options, target)
            module = built(target, "cpu") if options.runs else built(target, "meta", otherwise="cpu")
            if options.runs:
                _check_home(module, options)
        report = _trace_with_found_inputs(target, options, module)
        return replace(report, imported=users_files(before))


@contextmanager
def _harmless(repeats: bool) -> Iterator[None]:
    """Leave the process as it is within a `with` block, and show what the user's code prints on stderr.

    Of code that repeats, as in a measurement, only the first lines are shown.

    Tensors of an inference mode around it would refuse to be changed outside of that mode, and those of a fake mode have no
    values.
    """
    with (
        process_as_before(),
        prints_on_stderr(repeats),
        torch.inference_mode(False),
        unset_fake_temporarily(),
        memory_returned(),
    ):
        yield


def _check_home(module: nn.Module, options: TraceOptions) -> None:
    """Refuse a module that cannot compute on the device of its tensors. One that is wholly on meta runs on meta.

    Raises:
        UsageError: the module is on meta, although it must compute, or a part of it is.
    """
    if options.runs and is_partly_on_meta(module):
        raise UsageError(
            "the module must not be on meta, which computes nothing, or fake; "
            "build it with values, or leave out {time} and {device}"
        )
    devices = {tensor.device.type for tensor in tensors_of(module)}
    if len(devices) > 1 and "meta" in devices:
        first = next(name for name, tensor in named_tensors_of(module) if tensor.is_meta)
        raise UsageError(
            f"the module must be on meta as a whole or not at all ({first} is on meta); use module.to('meta') for all of it"
        )


def _check_values(inputs: Inputs, options: TraceOptions) -> None:
    """Refuse inputs that a forward cannot compute with.

    Raises:
        UsageError: an input is on meta or fake, although the forward must compute.
    """
    if options.runs and not all(map(has_values, tensors_in(inputs))):
        raise UsageError(
            "the inputs must have values to compute with (one is on meta or fake); "
            "pass real tensors, or leave out {time} and {device}"
        )


def _trace_with_found_inputs(target: Target, options: TraceOptions, module: nn.Module) -> TraceReport:
    """Trace a built target. If its inputs are not given, try others where its forward refuses the first ones."""

    def module_to_run() -> nn.Module:
        return built(target, "cpu") if is_partly_on_meta(module) else module

    specs = target.inputs_of(module)
    refused: tuple[ForwardError, list[InputSpec]] | None = None
    while True:
        inputs = inputs_maker(module, specs, options.threads, options.seed)
        try:
            report = _trace(options, target.name, module, inputs, module_to_run)
        except ForwardError as error:
            if target.inputs:
                raise _of_given_inputs(error, module, specs) from error.__cause__
            if error.__cause__ is None:
                raise
            others = target.other_inputs(module, specs, error.__cause__)
            if refused is None or len(refused[1]) < len(specs):
                refused = error, specs  # of several layouts, the first one is the usual one
            if not others:
                raise _of_found_inputs(*refused) from refused[0].__cause__
            specs = others
        else:
            report.notes.extend(target.notes)
            return report


def _of_given_inputs(error: ForwardError, module: nn.Module, specs: Sequence[InputSpec]) -> ForwardError:
    """Return an error that says which input to add or to rename if the forward does not accept the given ones."""
    fix = input_fix(module, specs) if isinstance(error.__cause__, TypeError) else ""
    return ForwardError(f"{error}; {fix}") if fix else error


def _of_found_inputs(error: ForwardError, specs: Sequence[InputSpec]) -> ForwardError:
    """Return an error that names the inputs that nobody gave, and how to give them."""
    if not all(spec.name for spec in specs):
        return error
    found, shapes = ", ".join(map(str, specs)), " ".join(f"{{input}} {spec.name}=SHAPE" for spec in specs)
    return ForwardError(f"{error}; the inputs were derived from its config ({found}); give others with {shapes}")


def _check_fit(options: TraceOptions, target: Target) -> None:
    """Refuse a target that does not fit in the memory of its device, before anything is allocated.

    A run on the meta device determines the memory. Of a target that fails on meta, only parameters and inputs are known.

    Raises:
        DeviceError: the parameters and the forward need more memory than the device has free, or a tensor does not fit in a
            64-bit address space.
        ForwardError: meta refuses the shapes of large inputs, which would take long to build for the same error.
    """
    device = find_device(options.device or "auto")
    try:
        module = built(target, "meta")
        inputs = inputs_maker(module, target.inputs_of(module), options.threads, options.seed)
        found = run_watched(META, options.submodule, module, inputs)
        found.release()
        need = found.watched.peak_bytes
    except ForwardFailedError as failed:
        if exceeds_addresses(failed.error):
            raise DeviceError(TOO_LARGE) from None
        need = _bytes_of(inputs(META))
        if need > LARGE and is_metas(failed.error) and not needs_values(failed.error):
            with forward_errors_explained(target.name):
                raise
    except Exception:
        return  # the run on the device will raise the same error with more context
    short = shortage(need + sum(tensor.nbytes for tensor in tensors_of(module)), device)
    if short is not None:
        raise DeviceError(f"{target.name} needs {short}; {WITHOUT_TIME}")


def _bytes_of(inputs: Inputs) -> int:
    """Return the size of the tensors in the inputs of a forward, in bytes; sparse and nested ones are not counted."""
    dense = (each for each in tensors_in(inputs) if each.layout is torch.strided and not each.is_nested)
    return sum(tensor.numel() * tensor.element_size() for tensor in dense)


def _trace(
    options: TraceOptions,
    name: str,
    module: nn.Module,
    inputs: Callable[[torch.device], Inputs],
    module_to_run: Callable[[], nn.Module],
) -> TraceReport:
    """Run a module, on meta unless the options request a device, and report its calls.

    Args:
        options: how to trace the module.
        name: name of the module.
        module: the module, which may be on meta.
        inputs: builds its inputs on a device.
        module_to_run: returns the same module on a device that computes, for a forward that fails on meta.
    """
    device = find_device(options.device) if options.runs and options.device else home(module)
    otherwise = WITHOUT_TIME if options.runs else "use a smaller {input}"
    with (
        settled(options.threads, options.seed, device),
        memory_errors_explained(device, otherwise, TOO_LARGE),
        forward_errors_explained(name),
    ):
        try:
            found = run_watched(device if options.runs else META, options.submodule, module, inputs)
        except ForwardFailedError as failed:
            if options.runs or exceeds_addresses(failed.error) or not is_metas(failed.error):
                raise
            found = _run_with_values(failed, options, name, module, inputs, module_to_run)
        try:
            measured = measure(found, options)
            env = environment(found.device, options.threads, options.seed)
            env = {"attnscope": __version__, "python": platform.python_version(), **env}
            return trace_report(options, name, found, measured, env)
        finally:
            found.release()


def _run_with_values(
    failed: ForwardFailedError,
    options: TraceOptions,
    name: str,
    module: nn.Module,
    inputs: Callable[[torch.device], Inputs],
    module_to_run: Callable[[], nn.Module],
) -> Found:
    """Run a module whose forward asks for values: on meta if the values of small tensors suffice, or else on its device.

    Raises:
        DeviceError: the module must be built for that, and does not fit, or the inputs do not fit.
        ForwardFailedError: no values would help, or meta refuses the shapes of large inputs.
    """
    why, large = reason(failed.error), _bytes_of(inputs(META))
    if large > LARGE and not needs_values(failed.error):
        raise failed
    if is_partly_on_meta(module):
        try:
            with values_known():
                return run_watched(META, options.submodule, module, inputs)
        except ForwardFailedError as again:
            why, short = reason(again.error), parameters_short(module, torch.device("cpu"))
            if short and not needs_values(again.error):
                raise
        if short:
            raise DeviceError(f"{name} cannot run on meta ({literal(why)}), and its parameters need {short}; {SMALLER}")
    module = module_to_run()
    if short := shortage(large, home(module)):
        raise DeviceError(
            f"{name} cannot run on meta ({literal(why)}), and its inputs need {short}; use a smaller {{input}}"
        )
    given = [inputs(home(module))]
    if is_partly_on_meta(module) or not all(map(has_values, tensors_in(given))):
        raise failed  # it has nothing to compute with
    found = run_watched(home(module), options.submodule, module, lambda device: given.pop())
    ran = f"ran on {found.device.type}, since the forward failed on meta ({why})"
    return replace(found, notes=(*found.notes, ran))
