"""How long calls took, one or several together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from attnscope.profiling.timing import Timing, middle, spread
from attnscope.reports.report import StepTime
from attnscope.tracing.calls import Call


@dataclass(frozen=True)
class CallTimes:
    """Seconds of each call.

    Args:
        samples: of each call in each run; None for one that was not seen.
        kept: the runs in the middle half. A time is a mean over these, the same for all calls, so that calls add up.
    """

    samples: Sequence[Sequence[float] | None]
    kept: Sequence[int] = ()

    def of(self, calls: Iterable[int], instances: int = 1) -> StepTime | None:
        """The time of some calls together, or its share for each of so many instances; None where none of them was seen."""
        seen = [samples for call in calls if (samples := self.samples[call]) is not None]
        if not seen:
            return None
        runs = [sum(run) / instances for run in zip(*seen, strict=True)]
        return StepTime(
            median_s=sum(runs[run] for run in self.kept) / len(self.kept), iqr_s=spread(runs), samples_s=runs
        )


def call_times(calls: Sequence[Call], timing: Timing | None) -> CallTimes:
    """What timing a forward tells of its calls; nothing where it was not timed."""
    if timing is None:
        return CallTimes([None] * len(calls))
    columns = iter(zip(*(run.seconds[:-1] for run in timing.chains), strict=True))
    inside = {id(run) for run in middle(timing.chains)}
    kept = [index for index, run in enumerate(timing.chains) if id(run) in inside]
    return CallTimes([list(next(columns)) if call.seen else None for call in calls], kept)
