"""Spec -> Report: options, costs, measurements, report."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from attnscope.analyses.assembly import assemble_report
from attnscope.analyses.costs import costs_of
from attnscope.analyses.figure import parse_figure
from attnscope.analyses.measurement import Measurements, measure
from attnscope.attentions.spec import Spec
from attnscope.core.errors import UsageError
from attnscope.profiling.options import BUDGET_S, LIMIT_S, Progress, RunOptions, check_dtype
from attnscope.profiling.verification import verify_plan
from attnscope.reports.report import Report


def explore(
    spec: Spec,
    *,
    device: str = "auto",
    time: bool = True,
    budget: float | None = None,
    threads: int = 1,
    seed: int = 0,
    audit: bool = False,
    backward: bool = False,
    input_grad: bool = True,
    kernels: bool = False,
    processes: int = 1,
    until: float | None = None,
    focus: Sequence[str] = (),
    progress: Progress | None = None,
    command: str | None = None,
    figures: Sequence[Mapping[str, str]] = (),
    figure: str | None = None,
) -> Report:
    """Report the steps of an attention: their shapes, exact costs and measured times.

    Args:
        spec: an attention, such as a ViTSpec, or a network, such as a SwinNetworkSpec.
        device: "auto", "cpu", "cuda", "mps", or "meta", which builds the module but computes nothing. "auto" is an
            available device, or "meta" if the module runs without being timed.
        time: run the module and measure it. Otherwise, torch is imported only for the device "meta".
        budget: seconds to spend on each measurement (up to 3× on a busy machine); 0.3 by default, and 10 with `until`.
        threads: number of CPU threads. The times of a single thread are reliable even on a busy machine.
        seed: random seed for the weights and the input, which are normally distributed.
        audit: count also with torch's FlopCounterMode, which takes over a second the first time.
        backward: report the costs of the backward of each step, and measure it.
        input_grad: whether the input needs a gradient in the backward.
        kernels: time the attention with every kernel that runs on the device, and compare each with float64.
        processes: number of processes that measure the steps; with at least five, intervals are those between processes.
        until: measure until the interval of the forward is at most ± this share wide, such as 0.02, or `budget` is spent.
        focus: results to show first: "memory", "roofline".
        progress: a function that is called now and then with the current measurement and the finished share of it.
        command: the command line, for the record.
        figures: published figures of this network to explain, each a "figure" and its "source".
        figure: a figure for one image that a paper or a tool prints, such as "3.13G", to find its counting convention.

    Returns:
        A Report: counts are integers, times are in seconds, sizes in bytes, and a value that was not measured is None.

    Raises:
        UsageError: an argument is not allowed.
        DeviceError: the device is not available, or the run does not fit in its memory. Nothing is allocated then.

    The costs follow from the shapes that the attention declares in its `steps.py`. They are verified against the paper's
    closed form (Liu et al., arXiv 2103.14030, equations 1 and 2). If torch is imported, they are also verified against
    fvcore's count of the real forward.

    Example:
        >>> import attnscope
        >>> report = attnscope.explore(attnscope.SwinSpec(resolution=14, window=7, shift=True), time=False)
        >>> report.totals.macs, report.totals.params
        (9069312, 37755)
        >>> [step.name for step in report.steps if step.macs]
        ['project', 'score', 'mix', 'output']
    """
    if not isinstance(spec, Spec):
        raise UsageError(f"spec must be a Spec such as ViTSpec() (got {spec!r}); use attnscope.trace for a module")
    if figure is not None:
        parse_figure(figure)  # raises an error before anything runs
    budget = budget if budget is not None else BUDGET_S if until is None else LIMIT_S
    cold = "roofline" in focus
    options = RunOptions(
        device, time, budget, threads, seed, audit, backward, input_grad, kernels, progress, processes, until, cold
    )
    if options.runs:
        options = on_device(options, spec.dtype)
    costs = costs_of(spec, options)
    measured = measure(spec, costs, options) if options.runs else Measurements(verify_plan(spec, costs.plan))
    return assemble_report(spec, options, costs, measured, command=command, focus=focus, figures=figures, figure=figure)


def preview(spec: Spec, *, is_whole: bool, command: str | None = None) -> Report:
    """Report the costs of a Spec without a run.

    Args:
        spec: an attention or a network.
        is_whole: whether the report has all that `explore` gives. If not, it takes half the time: the memory of the
            backward is unknown, and counting conventions are left out.
        command: the command line, for the record.
    """
    options = RunOptions(time=False)
    costs = costs_of(spec, options, with_backward_memory=is_whole)
    measured = Measurements(verify_plan(spec, costs.plan))
    figures = () if is_whole else None
    return assemble_report(spec, options, costs, measured, command=command, focus=(), figures=figures)


def on_device(options: RunOptions, dtype: str) -> RunOptions:
    """Resolve the device "auto".

    Returns:
        The options with the type of an available device, or with "meta" if nothing is timed.

    Raises:
        DeviceError: the device is not available, or does not support the dtype.
    """
    from attnscope.profiling.devices import find_device

    # counters need no values, whose memory and time may be a hundred times theirs
    device = "meta" if options.device == "auto" and not options.time else find_device(options.device).type
    check_dtype(device, dtype)
    return replace(options, device=device)
