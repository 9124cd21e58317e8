"""Spec -> Report: options, costs, measurements, report."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from attnscope.analyses.assembly import assemble_report
from attnscope.analyses.costs import costs_of
from attnscope.analyses.measurement import Measurements, measure
from attnscope.attentions.spec import Spec
from attnscope.core.errors import UsageError
from attnscope.profiling.options import BUDGET_S, Progress, RunOptions, check_dtype
from attnscope.profiling.verification import verify_plan
from attnscope.reports.report import Report


def explore(
    spec: Spec,
    *,
    device: str = "auto",
    time: bool = True,
    budget: float = BUDGET_S,
    threads: int = 1,
    seed: int = 0,
    audit: bool = False,
    backward: bool = False,
    input_grad: bool = True,
    kernels: bool = False,
    focus: Sequence[str] = (),
    progress: Progress | None = None,
    command: str | None = None,
    figures: Sequence[Mapping[str, str]] = (),
) -> Report:
    """Report the steps of an attention: their shapes, exact costs and measured times.

    Args:
        spec: an attention, such as a ViTSpec, or a network, such as a SwinNetworkSpec.
        device: "auto", "cpu", "cuda", "mps", or "meta", on which the module is built but nothing is computed.
        time: run it and measure. Without it, and on another device than meta, torch is not imported.
        budget: seconds to spend on each measurement (up to 3× on a busy machine).
        threads: CPU threads; with one, times are reliable on a busy machine too.
        seed: random seed for the weights and the input, which are random normals.
        audit: count with torch's FlopCounterMode as well (it takes over a second the first time).
        backward: report the cost of the backward of each step, and measure it.
        input_grad: whether the input needs a gradient, in the backward.
        kernels: time the attention in every kernel that runs here, and compare each with float64.
        focus: what to show first: "memory", "roofline".
        progress: called now and then with what is being measured, and the share of it that is done.
        command: the command line, for the record.
        figures: published figures of this network to explain, each a "figure" and its "source".

    Returns:
        A Report: counts are integers, times are seconds, sizes are bytes, and what was not measured is None.

    Raises:
        UsageError: an argument that is not allowed.
        DeviceError: the device is not here, or the run does not fit in its memory. Nothing is allocated then.

    The costs follow from the letters in the attention's `steps.py`. They are compared with the paper's closed form (Liu et
    al., arXiv 2103.14030, equations 1 and 2) and, if torch is imported, with fvcore's count of the real forward.
    """
    if not isinstance(spec, Spec):
        raise UsageError(f"explore takes a Spec, such as ViTSpec(), and not {spec!r}; trace takes a module")
    options = RunOptions(device, time, budget, threads, seed, audit, backward, input_grad, kernels, progress)
    if options.runs:
        options = on_device(options, spec.dtype)
    costs = costs_of(spec, options)
    measured = measure(spec, costs, options) if options.runs else Measurements(verify_plan(spec, costs.plan))
    return assemble_report(spec, options, costs, measured, command=command, focus=focus, figures=figures)


def on_device(options: RunOptions, dtype: str) -> RunOptions:
    """Replace "auto" by the device that it stands for.

    Raises:
        DeviceError: the device is not here, or does not support the dtype.
    """
    from attnscope.profiling.devices import find_device

    device = find_device(options.device).type
    check_dtype(device, dtype)
    return replace(options, device=device)
