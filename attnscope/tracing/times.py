"""Look up the time of one call or of several together."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from attnscope.profiling.timing import Timing
from attnscope.reports.report import StepTime
from attnscope.tracing.calls import Call


@dataclass(frozen=True)
class CallTimes:
    """The times of the calls of a forward, of which some may not have been timed.

    Args:
        timing: the times of the calls that were timed; None if the forward was not timed.
        timed: the position in `timing` of each call that was timed.
    """

    timing: Timing | None = None
    timed: Mapping[int, int] = field(default_factory=dict)

    def of(self, calls: Iterable[int], instances: int = 1) -> StepTime | None:
        """Return the time of several calls together, divided by the number of instances; None if no call was timed."""
        timed = [self.timed[call] for call in calls if call in self.timed]
        return self.timing.time_of(timed, instances) if self.timing and timed else None


def call_times(calls: Sequence[Call], timing: Timing | None) -> CallTimes:
    """Assign the times of a forward to its calls. Operators that ran outside any torch call have no time."""
    if timing is None:
        return CallTimes()
    seen = [index for index, call in enumerate(calls) if call.seen]
    return CallTimes(timing, {call: position for position, call in enumerate(seen)})
