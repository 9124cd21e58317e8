"""A plan and what was measured of it -> the rows of a Report, and what they come to."""

import statistics
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from attnscope.attentions.complexity import Complexity, Term
from attnscope.core.neighbourhood import Neighbourhood
from attnscope.core.optional import most, sum_of
from attnscope.plan.memory import Memory
from attnscope.plan.plan import Plan, SizedStep
from attnscope.reports.report import Complexity as ComplexityFigures
from attnscope.reports.report import Formula, PartRow, StepRow, StepTime, Time, Totals
from attnscope.reports.report import Neighbourhood as NeighbourhoodFigures

if TYPE_CHECKING:
    from attnscope.profiling.timing import Timing


def step_row(step: SizedStep, live: int | None, saved: int | None, time: StepTime | None) -> StepRow:
    return StepRow(
        name=step.name,
        path=step.path,
        doc=step.step.doc,
        pattern=str(step.step.letters),
        inputs=list(step.inputs),
        outputs=list(step.outputs),
        macs=step.macs,
        flops=step.flops,
        other_flops=step.other_flops,
        params=step.params,
        bytes_read=step.bytes_read,
        bytes_written=step.bytes_written,
        bytes_saved=saved,
        bytes_live=live,
        time=time,
        times=step.times,
        part=step.part.title if step.part else "",
        stage=step.part.stage if step.part else None,
    )


def totals(plan: Plan, memory: Memory, bytes_backward: Sequence[int | None]) -> Totals:
    """Sums over the steps, and the fullest moments; `bytes_backward` is what each step holds in the backward."""
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
        backward_peak_bytes=most(bytes_backward),
    )


def part_rows(plan: Plan, rows: list[StepRow]) -> list[PartRow]:
    """The parts of a network, each stage before its parts."""
    parts = [_part(list(both)) for _, both in groupby(zip(plan.steps, rows, strict=True), lambda both: both[0].part)]
    told = []
    for stage, same in groupby(parts, lambda part: part.stage):
        members = list(same)
        if stage is not None:
            told.append(_stage(stage, members))
        told += members
    return told


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
        sees=first.part.sees,
        time_s=sum_of([row.times * row.time.median_s if row.time else None for row in rows]),
        backward_macs=sum_of([row.backward.macs_together if row.backward else None for row in rows]),
        backward_s=_sum_of_measured(
            [row.times * row.backward.time.median_s for row in rows if row.backward and row.backward.time]
        ),
    )


def _sum_of_measured(seconds: list[float]) -> float | None:
    """Through some steps nothing goes back; where that is so of all, nothing was measured."""
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
        sees=parts[-1].sees,
        time_s=sum_of([part.time_s for part in parts]),
        backward_macs=sum_of([part.backward_macs for part in parts]),
        backward_s=_sum_of_measured([part.backward_s for part in parts if part.backward_s is not None]),
    )


def step_times(timing: "Timing", order: list[int]) -> list[StepTime | None]:
    """A mean over the middle half of the runs for each row, the same runs for all, so that the rows add up.

    `order` tells the row of each step that ran; a row that ran several times tells the mean of them.
    """
    from attnscope.profiling.timing import middle, spread

    def rows(seconds: list[float]) -> list[float]:
        sums = [0.0] * (max(order) + 1)
        for row, taken in zip(order, seconds[:-1], strict=True):
            sums[row] += taken
        return [total / order.count(row) for row, total in enumerate(sums)]

    columns = zip(*(rows(run.seconds) for run in middle(timing.chains)), strict=True)
    samples = zip(*(rows(run.seconds) for run in timing.chains), strict=True)
    return [
        StepTime(median_s=sum(column) / len(column), iqr_s=spread(every), samples_s=list(every))
        for column, every in zip(columns, samples, strict=True)
    ]


def whole_time(timing: "Timing", threads: int = 1) -> Time:
    """The untouched forward beside the sum of its steps."""
    from attnscope.profiling.timing import middle, spread

    wholes = [run.total for run in timing.wholes]
    kept = middle(timing.wholes)
    whole = sum(run.total for run in kept) / len(kept)
    steps = sum(sum(run.seconds[:-1]) for run in middle(timing.chains)) / len(middle(timing.chains))
    return Time(
        whole_median_s=whole,
        whole_iqr_s=spread(wholes),
        whole_samples_s=wholes,
        steps_sum_s=steps,
        remainder_s=whole - steps,
        runs=len(wholes),
        clean_runs=timing.clean_runs,
        stamp_s=timing.stamp_s,
        tried=timing.tried,
        clock=timing.clock,
        cpu_share=median([run.effort.share(threads) for run in timing.wholes if run.effort]),
        page_faults=median(
            [run.effort.faults for run in timing.wholes if run.effort and run.effort.faults is not None]
        ),
        others=timing.load.others,
        pressure=timing.load.pressure,
    )


def median(values: Sequence[float]) -> float | None:
    """The middle one; None where there is none."""
    return statistics.median(values) if values else None


def formulas(terms: Iterable[Term], batch: int = 1) -> list[Formula]:
    """Formulas of the paper with the MACs of a batch."""
    return [Formula(term.name, term.formula, term.values, batch * term.macs) for term in terms]


def complexity_figures(complexity: Complexity, neighbourhood: Neighbourhood | None) -> ComplexityFigures:
    """The formulas of an attention and of the global one with this input's values."""
    printed = formulas(complexity.terms, complexity.batch)
    return ComplexityFigures(
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
