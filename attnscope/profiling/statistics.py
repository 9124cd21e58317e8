"""What was timed -> the times of a Report: those of the steps, and that of the whole."""

import statistics
from collections.abc import Sequence

from attnscope.profiling.timing import Timing, middle, spread
from attnscope.reports.report import StepTime, Time


def step_times(timing: Timing, order: list[int]) -> list[StepTime | None]:
    """A mean over the middle half of the runs for each row, the same runs for all, so that the rows add up.

    `order` tells the row of each step that ran; a row that ran several times tells the mean of them.
    """

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


def whole_time(timing: Timing, threads: int = 1) -> Time:
    """The untouched forward beside the sum of its steps."""
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
