"""Any module -> TraceReport: the one place that joins a module that is not ours, what its forward told, and its times."""

import platform
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from attnscope.core.errors import DeviceError, UsageError, in_a_line
from attnscope.core.version import __version__
from attnscope.profiling.building import lacking, settled, told_when_memory_runs_out
from attnscope.profiling.devices import environment, find_device
from attnscope.profiling.options import BUDGET_S
from attnscope.reports.report import TraceReport
from attnscope.tracing.calls import ForwardFailedError
from attnscope.tracing.construction import built, inputs_maker
from attnscope.tracing.failures import ForwardError, told_as_theirs
from attnscope.tracing.isolation import Inputs, home, tensors_of
from attnscope.tracing.options import Asked
from attnscope.tracing.report import trace_report
from attnscope.tracing.run import measure, run_watched
from attnscope.tracing.targets import Target

__all__ = ["Asked", "ForwardError", "trace", "trace_target"]

META = torch.device("meta")
WITHOUT_TIME = "without {time} it shows shapes and costs without running"


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
    **keywords: Any,
) -> TraceReport:
    """Lay any module open: the torch calls of its forward, their shapes, exact costs, and times if asked.

    Args:
        module: the module. It runs in evaluation mode and without gradients, and is left as it was: its mode, hooks,
            buffers and the random state too, also after an error.
        inputs: what its forward takes.
        time: run it and measure. Without it nothing is computed: shapes and costs come from a copy on the meta device.
        device: where to run; None is meta, or with `time` where the module is. Another device gets a copy of the module.
        group: "module", "line" or "op": which calls are told in one row.
        depth: how many levels of modules are opened; None opens as many as fit on about a screen.
        submodule: open this submodule alone, with the inputs that it really receives inside the whole.
        budget: seconds of measuring.
        threads: processor threads; with one, times hold on a busy machine too.
        seed: of what the forward draws at random.
        name: what to call the module.
        command: what was typed, for the record.
        keywords: what its forward takes by name.

    Returns:
        A TraceReport, a Report whose rows are torch calls; its attributes are the keys of its JSON. Counts are None where
        an operator has no formula.

    Raises:
        UsageError: an argument that cannot be asked for.
        DeviceError: the device is not here, or its memory ran out.
        ForwardError: the forward raised; the line says which step, on which shapes, at which line of yours.
    """
    if not hasattr(module, "named_modules"):
        raise UsageError(f"trace takes a module, such as nn.MultiheadAttention(64, 4), and not {module!r}")
    asked = Asked(time, device, group, depth, submodule, budget, threads, seed, command)
    if asked.runs and _on_meta(module):
        raise UsageError("the module is on meta, where nothing can be computed; leave out {time} and {device}")
    return _trace(asked, name or type(module).__name__, module, lambda where: (inputs, keywords), lambda: module)


def trace_target(target: Target, asked: Asked) -> TraceReport:
    """Build a target and lay it open, as `trace` does with a module that is there already.

    Raises:
        UsageError: there is no such target, or it cannot be asked for so.
        DeviceError: the device is not here, or the target does not fit in its memory.
        ForwardError: it could not be built, or its forward raised.
    """
    with settled(asked.threads, asked.seed, torch.device("cpu")):
        if asked.runs:
            asked = replace(asked, device=asked.device or "auto")
            _refuse_what_does_not_fit(asked, target)
        module = built(target, "cpu") if asked.runs else built(target, "meta", otherwise="cpu")
    inputs = inputs_maker(module, target.inputs_of(module), asked.threads, asked.seed)
    return _trace(asked, target.name, module, inputs, lambda: built(target, "cpu") if _on_meta(module) else module)


def _refuse_what_does_not_fit(asked: Asked, target: Target) -> None:
    """Refuse before anything is allocated, as far as the meta device can tell.

    Raises:
        DeviceError: parameters and the fullest moment of the forward are more than the device has.
    """
    device = find_device(asked.device or "auto")
    try:
        module = built(target, "meta")
        inputs = inputs_maker(module, target.inputs_of(module), asked.threads, asked.seed)
        found = run_watched(META, asked.submodule, module, inputs)
    except Exception:
        return  # the run itself will tell what is wrong, and better
    need = found.watched.peak_bytes + sum(tensor.nbytes for tensor in tensors_of(module))
    told = lacking(need, device)
    if told is not None:
        raise DeviceError(f"{target.name} needs {told}; {WITHOUT_TIME}")


def _trace(
    asked: Asked,
    name: str,
    module: nn.Module,
    inputs: Callable[[torch.device], Inputs],
    that_computes: Callable[[], nn.Module],
) -> TraceReport:
    """Run it, on meta where nothing is to be computed, and report.

    Args:
        asked: what was asked.
        name: of the module.
        module: it may be on meta.
        inputs: what makes its inputs on a device.
        that_computes: the same module where it can compute, for a forward that fails on meta.
    """
    device = find_device(asked.device) if asked.runs and asked.device else home(module)
    otherwise = WITHOUT_TIME if asked.runs else "a smaller {input} may fit"
    with settled(asked.threads, asked.seed, device), told_when_memory_runs_out(device, otherwise), told_as_theirs(name):
        try:
            found = run_watched(device if asked.runs else META, asked.submodule, module, inputs)
        except ForwardFailedError as failed:
            if asked.runs:
                raise
            module = that_computes()
            found = run_watched(home(module), asked.submodule, module, inputs)
            found.notes.append(
                f"it cannot run on meta ({in_a_line(failed.error)}), so it ran on the {found.device.type}"
            )
        if asked.time:
            measure(found, asked)
        env = environment(found.device, asked.threads, asked.seed)
    return trace_report(asked, name, found, {"attnscope": __version__, "python": platform.python_version(), **env})


def _on_meta(module: nn.Module) -> bool:
    return home(module).type == "meta"
