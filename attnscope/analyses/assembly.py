"""Costs and measurements -> Report."""

import platform
from collections.abc import Mapping, Sequence
from itertools import groupby

from attnscope import networks
from attnscope.analyses.costs import Costs
from attnscope.analyses.measurement import CounterpartTimes, Measurements
from attnscope.attentions.complexity import Complexity
from attnscope.attentions.spec import Spec
from attnscope.core.interval import Interval
from attnscope.core.neighbourhood import Neighbourhood
from attnscope.core.optional import most, sum_of
from attnscope.core.version import __version__
from attnscope.plan.memory import AtLeast, Memory
from attnscope.plan.plan import Plan, SizedStep
from attnscope.profiling.intervals import interval_of
from attnscope.profiling.noise import disturbances, doubts
from attnscope.profiling.options import RunOptions
from attnscope.reports.report import (
    Backward,
    ExplainedFigure,
    Formula,
    PartRow,
    Published,
    Report,
    StepBackward,
    StepRow,
    Time,
    Totals,
)
from attnscope.reports.report import Complexity as ComplexityFigures
from attnscope.reports.report import Neighbourhood as NeighbourhoodFigures


def assemble_report(
    spec: Spec,
    options: RunOptions,
    costs: Costs,
    measured: Measurements,
    *,
    command: str | None,
    focus: Sequence[str],
    figures: Sequence[Mapping[str, str]] | None,
    figure: str | None = None,
) -> Report:
    """Build the Report of a Spec.

    Args:
        spec: the attention or the network.
        options: the options of the run.
        costs: the costs of its steps.
        measured: the results of the run.
        command, focus, figures, figure: as in `explore`; without `figures`, counting conventions are left out.
    """
    plan, forward = costs.plan, measured.forward
    is_network = isinstance(spec, networks.ComposedSpec)
    is_whole = isinstance(spec, networks.ComposedSpec) and spec.is_whole
    rows = step_rows(costs, measured, options.backward)
    noise = _noise(measured, options)
    return Report(
        command=command,
        title=title_of(spec),
        spec={"network" if is_network else "attention": spec.name, **spec.as_dict()},
        environment={"attnscope": __version__, "python": platform.python_version(), **measured.environment},
        steps=rows,
        totals=totals_of(plan, costs.memory, costs.backward_held),
        time=forward.whole,
        audit=measured.verification.audit,
        complexity=complexity_figures(
            spec.complexity(), None if is_whole else spec.neighbourhood, measured.counterpart
        ),
        notes=[*spec.cautions(), *_notes(measured, options), *costs.notes],
        warnings=[*_wrong_outputs(measured), *noise],
        next=spec.next_command(),
        focus=list(focus),
        about={} if is_network else spec.about(),
        noise=list(noise),
        peaks=next(iter(measured.bounds.machine), None),
        wider_peaks=list(measured.bounds.machine[1:]),
        raised_peaks=list(measured.bounds.raised),
        kernels=list(measured.kernels.rows),
        backward=_backward(costs, measured, options) if options.backward else None,
        parameter_bytes=spec.itemsize * plan.params,
        parts=part_rows(plan, rows) if is_whole else [],
        published=_published(spec, plan, figures),
        figure=_explained(spec, figure, plan.params),
    )


def title_of(spec: Spec) -> str:
    """Return a title such as `Swin attention · 56×56 tokens · dim 96 · … · float32 · batch 2`."""
    batch = [f"batch {spec.batch}"] if spec.batch > 1 else []
    return " · ".join([spec.title, *spec.headline(), spec.dtype, *batch])


def _notes(measured: Measurements, options: RunOptions) -> list[str]:
    """Return notes on how the times were measured, and on what was not timed."""
    waits = "each step waits for the device to finish, so its time is an upper bound"
    return [*([waits] if measured.forward.whole and options.device == "mps" else []), *measured.counterpart.notes]


def _wrong_outputs(measured: Measurements) -> list[str]:
    """Return a warning for the output of the attention, and of each other kernel, if it is not finite."""
    names = [kernel.name for kernel in measured.kernels.rows if not kernel.finite]
    kernels = [f"the output has NaN or infinite values with the kernel {', '.join(names)}"] if names else []
    return [*measured.verification.warnings, *kernels]


def _noise(measured: Measurements, options: RunOptions) -> list[str]:
    """Return what makes the times noisy."""
    run = options.threads, options.device
    forward, backward, turns = measured.forward.whole, measured.backward.whole, measured.kernels.turns
    among_kernels = disturbances(turns, *run) if turns and options.kernels else []
    return [
        *(doubts(forward, *run) if forward else []),
        *(f"in the comparison of kernels, {warning}" for warning in among_kernels),
        *(f"in the backward, {warning}" for warning in (doubts(backward, *run) if backward else [])),
    ]


def _published(spec: Spec, plan: Plan, figures: Sequence[Mapping[str, str]] | None) -> Published | None:
    if figures is None or not isinstance(spec, networks.NetworkSpec) or not spec.is_whole:
        return None
    from attnscope.analyses.published import compare_published

    return compare_published(spec, plan, figures)


def _explained(spec: Spec, figure: str | None, params: int) -> ExplainedFigure | None:
    if figure is None:
        return None
    from attnscope.analyses.figure import explain_figure
    from attnscope.networks.conventions import counts_per_image

    return explain_figure(figure, counts_per_image(spec), params)


def _backward(costs: Costs, measured: Measurements, options: RunOptions) -> Backward:
    torch_macs = measured.verification.backward_macs
    back, forward = measured.backward.whole, measured.forward.whole
    return Backward(
        sum_of(costs.backward_macs),
        options.input_grad,
        torch_macs,
        back,
        over_forward=None if back is None or forward is None else _ratio(back, forward),
        recomputed_macs=costs.recomputed_macs,
    )


def _ratio(time: Time, other: Time) -> Interval | None:
    """Return the interval of the ratio of two times that were measured one after the other."""
    found, of_other = (interval_of(each.whole_samples_s) for each in (time, other))
    ratio = found and of_other and found.over(of_other)
    return ratio and ratio.including(time.whole_interquartile_mean_s / other.whole_interquartile_mean_s)


def step_rows(costs: Costs, measured: Measurements, with_backward: bool) -> list[StepRow]:
    """Build the row of each step of the plan."""
    plan, memory, forward = costs.plan, costs.memory, measured.forward
    backward: list[StepBackward | None] = [None] * len(plan.steps)
    if with_backward:
        backward = [
            StepBackward(most(macs), measured.backward.steps.get(row), macs_together=sum_of(macs))
            for row, macs in enumerate(plan.by_step(costs.backward_macs))
        ]
    return [
        StepRow(
            name=step.name,
            path=step.path,
            doc=step.step.doc,
            why=step.step.why,
            pattern=str(step.step.letters),
            inputs=list(step.inputs),
            outputs=list(step.outputs),
            macs=step.macs,
            flops=step.flops,
            other_flops=step.other_flops,
            params=step.params,
            bytes_read=step.bytes_read,
            bytes_written=step.bytes_written,
            bytes_saved=memory.saved[row],
            bytes_live=memory.live[row],
            time=forward.steps.get(row),
            times=step.times,
            part=step.part.title if step.part else "",
            stage=step.part.stage if step.part else None,
            bytes_saved_together=memory.saved_together[row],
            bytes_training=memory.training[row],
            bytes_backward=costs.backward_held[row].known,
            bytes_saved_at_least=memory.saved_at_least[row],
            bytes_live_at_least=memory.live_at_least[row],
            bytes_saved_together_at_least=memory.saved_together_at_least[row],
            bytes_training_at_least=memory.training_at_least[row],
            bytes_backward_at_least=costs.backward_held[row].size,
            bytes_allocated=measured.allocated.get(row),
            roofline=measured.bounds.roofline.get(row),
            alone=measured.bounds.alone.get(row),
            bound=measured.bounds.former.get(row),
            backward=backward[row],
        )
        for row, step in enumerate(plan.steps)
    ]


def totals_of(plan: Plan, memory: Memory, backward_held: Sequence[AtLeast]) -> Totals:
    """Return the sums over the steps, and the peaks of memory; `backward_held` is the peak of each step's backward."""
    return Totals(
        macs=plan.macs,
        flops=plan.flops,
        other_flops=plan.other_flops,
        params=plan.params,
        bytes_read=sum(step.times * step.bytes_read for step in plan.steps),
        bytes_written=sum(step.times * step.bytes_written for step in plan.steps),
        peak_bytes=memory.peak,
        training_peak_bytes=most(memory.training),
        kept_bytes=memory.kept,
        backward_peak_bytes=most([held.known for held in backward_held]),
        peak_bytes_at_least=memory.least_peak,
        training_peak_bytes_at_least=memory.least_training_peak,
        kept_bytes_at_least=memory.least_kept,
        backward_peak_bytes_at_least=max([held.size for held in backward_held]),
    )


def part_rows(plan: Plan, rows: list[StepRow]) -> list[PartRow]:
    """Return the parts of a network, each stage before its parts."""
    parts = [_part(list(both)) for _, both in groupby(zip(plan.steps, rows, strict=True), lambda both: both[0].part)]
    listed = []
    for stage, same in groupby(parts, lambda part: part.stage):
        members = list(same)
        if stage is not None:
            listed.append(_stage(stage, members))
        listed += members
    return listed


def _part(members: list[tuple[SizedStep, StepRow]]) -> PartRow:
    first, steps = members[0][0], [step for step, _ in members]
    rows = [row for _, row in members]
    assert first.part is not None
    return PartRow(
        name=first.part.title,
        stage=first.part.stage,
        is_stage=False,
        path=first.path,
        times=first.times,
        outputs=list(steps[-1].outputs),
        macs=sum(row.times * row.macs for row in rows),
        flops=sum(row.times * row.flops for row in rows),
        other_flops=sum(row.times * row.other_flops for row in rows),
        params=sum(row.times * row.params for row in rows),
        bytes_live=most([row.bytes_live for row in rows]),
        bytes_training=most([row.bytes_training for row in rows]),
        bytes_backward=most([row.bytes_backward for row in rows]),
        bytes_saved=sum_of([row.bytes_saved_together for row in rows]),
        bytes_live_at_least=most([row.bytes_live_at_least for row in rows]),
        bytes_training_at_least=most([row.bytes_training_at_least for row in rows]),
        bytes_backward_at_least=most([row.bytes_backward_at_least for row in rows]),
        bytes_saved_at_least=sum_of([row.bytes_saved_together_at_least for row in rows]),
        sees=first.part.sees,
        time_s=sum_of([row.times * row.time.interquartile_mean_s if row.time else None for row in rows]),
        backward_macs=sum_of([row.backward.macs_together if row.backward else None for row in rows]),
        backward_s=_sum_of_measured(
            [row.times * row.backward.time.interquartile_mean_s for row in rows if row.backward and row.backward.time]
        ),
    )


def _sum_of_measured(seconds: list[float]) -> float | None:
    """Return the sum; None if nothing was measured, such as for steps that the backward does not pass through."""
    return sum(seconds) if seconds else None


def _stage(number: int, parts: list[PartRow]) -> PartRow:
    return PartRow(
        name=f"stage {number}",
        stage=number,
        is_stage=True,
        path=f"layers.{number - 1}",
        times=1,
        outputs=parts[-1].outputs,
        macs=sum(part.macs for part in parts),
        flops=sum(part.flops for part in parts),
        other_flops=sum(part.other_flops for part in parts),
        params=sum(part.params for part in parts),
        bytes_live=most([part.bytes_live for part in parts]),
        bytes_training=most([part.bytes_training for part in parts]),
        bytes_backward=most([part.bytes_backward for part in parts]),
        bytes_saved=sum_of([part.bytes_saved for part in parts]),
        bytes_live_at_least=most([part.bytes_live_at_least for part in parts]),
        bytes_training_at_least=most([part.bytes_training_at_least for part in parts]),
        bytes_backward_at_least=most([part.bytes_backward_at_least for part in parts]),
        bytes_saved_at_least=sum_of([part.bytes_saved_at_least for part in parts]),
        sees=parts[-1].sees,
        time_s=sum_of([part.time_s for part in parts]),
        backward_macs=sum_of([part.backward_macs for part in parts]),
        backward_s=_sum_of_measured([part.backward_s for part in parts if part.backward_s is not None]),
    )


def complexity_figures(
    complexity: Complexity, neighbourhood: Neighbourhood | None, timed: CounterpartTimes
) -> ComplexityFigures:
    """Return the formulas of an attention and of global attention with the values of this input, and both times."""
    printed = [Formula.of(term.name, term.cost) for term in complexity.terms]
    figures = ComplexityFigures(
        global_macs=printed[0].macs,
        windowed_macs=printed[-1].macs,
        ratio=complexity.ratio,
        formulas=printed,
        global_s=None,
        windowed_s=None,
        saving=complexity.saving,
        own_macs=complexity.own_macs,
        reference_macs=complexity.reference_macs,
        neighbourhood=None if neighbourhood is None else NeighbourhoodFigures.of(neighbourhood),
    )
    if timed.own_s is None:
        return figures
    return figures.timed(
        timed.own_s, timed.reference_s, timed.reference_samples_s, timed.own_samples_s, timed.reference_over_own
    )
