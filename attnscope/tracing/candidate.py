"""A third-party module as a candidate of a comparison: its counts from a trace, and how to build it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attnscope.core.errors import UsageError, literal
from attnscope.profiling.building import settled
from attnscope.profiling.candidates import Candidate
from attnscope.profiling.options import BUDGET_S
from attnscope.profiling.printing import prints_on_stderr
from attnscope.reports.report import TraceReport
from attnscope.tracing.construction import built, inputs_maker
from attnscope.tracing.isolation import evaluating, isolated
from attnscope.tracing.options import TraceOptions
from attnscope.tracing.process_state import imports_as_before
from attnscope.tracing.targets import InputSpec, Target, find_target
from attnscope.tracing.trace import trace, trace_target
from attnscope.tracing.tree import tensors_of

COUNTS = {"macs": "macs", "flops": "flops", "params": "params", "peak": "peak_bytes"}
"""The quantities that a trace counts, and their names among its totals."""


class WithKeywords(nn.Module):
    """A module that is called with the same keyword arguments each time."""

    def __init__(self, module: nn.Module, keywords: Mapping[str, Any]) -> None:
        super().__init__()
        self.module, self.keywords = module, dict(keywords)

    def forward(self, *args: Tensor) -> Any:
        """Call the module."""
        return self.module(*args, **self.keywords)


def candidate(name: str, args: Mapping[str, Any], inputs: Sequence[InputSpec], threads: int, seed: int) -> Candidate:
    """Return a third-party module as a candidate, after a trace of its forward.

    Args:
        name: a target of `attnscope trace`.
        args: keyword arguments of the factory or class.
        inputs: shapes of the inputs; empty to find them from the module.
        threads, seed: as in `trace`. All candidates with the same seed draw the same random numbers.

    Raises:
        UsageError: the target does not exist, or its arguments are not allowed.
        DeviceError: the target does not fit in memory.
        ForwardError: the target could not be built, or its forward raised.
    """
    target = find_target(name, args, inputs)
    options = TraceOptions(False, None, "module", None, None, BUDGET_S, threads, seed, None)
    report = trace_target(target, options)
    meta, given = _on_meta(target)
    return _candidate(name, meta, given, report, lambda device: _built(target, device, threads, seed))


def contender(label: str, module: nn.Module, *inputs: Any, **keywords: Any) -> Candidate:
    """Return a module as a contender of `compare`, after a trace of its forward, which leaves it as it is.

    Args:
        label: its name in the comparison.
        module: the module. Copies of it run, in evaluation mode.
        inputs: positional arguments of its forward; the first one is a tensor.
        keywords: its keyword arguments.

    Raises:
        UsageError: an argument is not allowed.
        ForwardError: the forward raised.

    Example:
        >>> import attnscope, torch
        >>> x = torch.zeros(1, 49, 96)
        >>> old, new = torch.nn.Linear(96, 96), torch.nn.Linear(96, 96, bias=False)
        >>> found = attnscope.compare([attnscope.contender("old", old, x), attnscope.contender("new", new, x)])
        >>> found.points[0].costs
        {'old': 451584, 'new': 451584}
    """
    if not (inputs and isinstance(inputs[0], Tensor)):
        raise UsageError("inputs must begin with a tensor, such as torch.zeros(1, 197, 768)")
    report = trace(module, *inputs, kwargs=keywords)
    given = [InputSpec(tuple(each.shape)) for each in inputs if isinstance(each, Tensor)]

    def build(device: torch.device) -> tuple[nn.Module, tuple[Any, ...]]:
        apart, (args, named) = isolated(module, (inputs, keywords), device)
        evaluating(apart)
        return (WithKeywords(apart, named) if named else apart), args

    return _candidate(label, module, given, report, build)


def _candidate(
    label: str,
    module: nn.Module,
    inputs: Sequence[InputSpec],
    report: TraceReport,
    build: Callable[[torch.device], tuple[nn.Module, tuple[Any, ...]]],
) -> Candidate:
    """Return a candidate with the counts of a trace."""
    totals = {quantity: report.total(total) for quantity, total in COUNTS.items()}
    moved = [report.total(total) for total in ("bytes_read", "bytes_written")]
    is_known = all(exact is not None for exact, _ in moved)
    totals["bytes"] = sum(exact or 0 for exact, _ in moved) if is_known else None, sum(least or 0 for _, least in moved)
    least = {quantity: bound for quantity, (exact, bound) in totals.items() if exact is None and bound}
    peak, peak_at_least = totals["peak"]
    return Candidate(
        label=label,
        words=f"{type(module).__name__}, input {', '.join(map(str, inputs))}",
        counts={quantity: exact for quantity, (exact, _) in totals.items()},
        at_least=least,
        resident_bytes=sum(tensor.nbytes for tensor in tensors_of(module)),
        peak_bytes=peak or peak_at_least or 0,
        build=build,
        notes=tuple(report.warnings),
        shape=inputs[0].shape if inputs else (),
    )


def _on_meta(target: Target) -> tuple[nn.Module, list[InputSpec]]:
    """Return the module without memory, and its inputs."""
    with imports_as_before(), prints_on_stderr():
        module = built(target, "meta", otherwise="cpu")
        return module, target.inputs_of(module)


def _built(target: Target, device: torch.device, threads: int, seed: int) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Build a target and its inputs on a device, in evaluation mode.

    Raises:
        UsageError: no positional input is given, by which the device is known.
    """
    with imports_as_before(), settled(threads, seed, torch.device("cpu")):
        module = built(target, "cpu").to(device).eval()
        args, keywords = inputs_maker(module, target.inputs_of(module), threads, seed)(device)
    if not args:
        raise UsageError(f"{{input}}: {literal(target.name)} must have an input without a name to be compared")
    return (WithKeywords(module, keywords) if keywords else module), args
