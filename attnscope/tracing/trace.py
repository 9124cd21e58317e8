"""Third-party module -> TraceReport: built, run, measured, reported."""

import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from attnscope.core.errors import DeviceError, UsageError, exceeds_addresses, in_a_line
from attnscope.core.version import __version__
from attnscope.profiling.building import memory_errors_explained, settled, shortage
from attnscope.profiling.devices import environment, find_device
from attnscope.profiling.options import BUDGET_S
from attnscope.reports.report import TraceReport
from attnscope.tracing.calls import ForwardFailedError
from attnscope.tracing.construction import built, inputs_maker
from attnscope.tracing.failures import ForwardError, told_as_theirs
from attnscope.tracing.isolation import Inputs, home, tensors_of
from attnscope.tracing.options import TraceOptions
from attnscope.tracing.report import trace_report
from attnscope.tracing.run import measure, run_watched
from attnscope.tracing.targets import Target

__all__ = ["ForwardError", "TraceOptions", "trace", "trace_target"]

META = torch.device("meta")
WITHOUT_TIME = "without {time} it shows shapes and costs without running"
TOO_LARGE = "a tensor does not fit in a 64-bit address space; a smaller {input}, or smaller values of {arg}, may fit"


def trace(
    module: nn.Module,
    *inputs: Any,
    time: bool = False,
    device: str | None = None,
    group: str = "module",
    depth: int | None = None,
    submodule: str | None = None,
    budget: float = BUDGET_S,
    threads: int = 1,
    seed: int = 0,
    name: str | None = None,
    command: str | None = None,
    focus: Sequence[str] = (),
    **keywords: Any,
) -> TraceReport:
    """Report the torch calls of any module's forward: their shapes, exact costs, and times if requested.

    Args:
        module: the module. It runs in evaluation mode and without gradients, and is left as it was: its mode, hooks,
            buffers and the random state too, also after an error.
        inputs: what its forward takes.
        time: run it and measure. Without it nothing is computed: shapes and costs come from a copy on the meta device.
        device: where to run; None is meta, or with `time` where the module is. Another device gets a copy of the module.
        group: "module", "line" or "op": which calls share a row.
        depth: how many levels of modules are opened; None opens as many as fit on about a screen.
        submodule: open this submodule alone, with the inputs that it really receives inside the whole.
        budget: seconds to spend on measuring.
        threads: CPU threads; with one, times are reliable on a busy machine too.
        seed: random seed of what the forward draws.
        name: what to call the module.
        command: the command line, for the record.
        focus: parts of the result to show as well: "details", "explain".
        keywords: what its forward takes by name.

    Returns:
        A TraceReport, a Report whose rows are torch calls; its attributes are the keys of its JSON. Counts are None where
        an operator has no formula.

    Raises:
        UsageError: an argument that is not allowed.
        DeviceError: the device is not here, or its memory ran out.
        ForwardError: the forward raised; the line says which step, on which shapes, at which line of yours.
    """
    if not hasattr(module, "named_modules"):
        raise UsageError(f"trace takes a module, such as nn.MultiheadAttention(64, 4), and not {module!r}")
    options = TraceOptions(time, device, group, depth, submodule, budget, threads, seed, command, focus=tuple(focus))
    if options.runs and _on_meta(module):
        raise UsageError("the module is on meta, where nothing can be computed; leave out {time} and {device}")
    return _trace(options, name or type(module).__name__, module, lambda where: (inputs, keywords), lambda: module)


def trace_target(target: Target, options: TraceOptions) -> TraceReport:
    """Build a target and report its torch calls, as `trace` does for a module.

    Raises:
        UsageError: there is no such target, or its arguments are not allowed.
        DeviceError: the device is not here, or the target does not fit in its memory.
        ForwardError: it could not be built, or its forward raised.
    """
    with settled(options.threads, options.seed, torch.device("cpu")):
        if options.runs:
            options = replace(options, device=options.device or "auto")
            _refuse_what_does_not_fit(options, target)
        module = built(target, "cpu") if options.runs else built(target, "meta", otherwise="cpu")
    inputs = inputs_maker(module, target.inputs_of(module), options.threads, options.seed)
    return _trace(options, target.name, module, inputs, lambda: built(target, "cpu") if _on_meta(module) else module)


def _refuse_what_does_not_fit(options: TraceOptions, target: Target) -> None:
    """Refuse before anything is allocated, as far as the meta device can tell.

    Raises:
        DeviceError: parameters and the fullest moment of the forward are more than the device has, or a tensor fits in no
            memory at all.
    """
    device = find_device(options.device or "auto")
    try:
        module = built(target, "meta")
        inputs = inputs_maker(module, target.inputs_of(module), options.threads, options.seed)
        found = run_watched(META, options.submodule, module, inputs)
    except ForwardFailedError as failed:
        if exceeds_addresses(failed.error):
            raise DeviceError(TOO_LARGE) from None
        return
    except Exception:
        return  # the run itself will tell what is wrong, and better
    need = found.watched.peak_bytes + sum(tensor.nbytes for tensor in tensors_of(module))
    short = shortage(need, device)
    if short is not None:
        raise DeviceError(f"{target.name} needs {short}; {WITHOUT_TIME}")


def _trace(
    options: TraceOptions,
    name: str,
    module: nn.Module,
    inputs: Callable[[torch.device], Inputs],
    that_computes: Callable[[], nn.Module],
) -> TraceReport:
    """Run it, on meta where nothing is to be computed, and report.

    Args:
        options: how to trace it.
        name: of the module.
        module: it may be on meta.
        inputs: what makes its inputs on a device.
        that_computes: the same module where it can compute, for a forward that fails on meta.
    """
    device = find_device(options.device) if options.runs and options.device else home(module)
    otherwise = WITHOUT_TIME if options.runs else "a smaller {input} may fit"
    with (
        settled(options.threads, options.seed, device),
        memory_errors_explained(device, otherwise, TOO_LARGE),
        told_as_theirs(name),
    ):
        try:
            found = run_watched(device if options.runs else META, options.submodule, module, inputs)
        except ForwardFailedError as failed:
            if options.runs or exceeds_addresses(failed.error):
                raise
            module = that_computes()
            found = run_watched(home(module), options.submodule, module, inputs)
            ran = f"it cannot run on meta ({in_a_line(failed.error)}), so it ran on the {found.device.type}"
            found = replace(found, notes=(*found.notes, ran))
        measured = measure(found, options)
        env = environment(found.device, options.threads, options.seed)
    env = {"attnscope": __version__, "python": platform.python_version(), **env}
    return trace_report(options, name, found, measured, env)


def _on_meta(module: nn.Module) -> bool:
    return home(module).type == "meta"
