"""Options of a trace: device, threads, seed, what to measure, and how to group rows."""

from dataclasses import dataclass

from attnscope.core.errors import UsageError
from attnscope.profiling.options import Progress, ProgressOption, check_arguments
from attnscope.tracing.folding import check_rows
from attnscope.tracing.selection import check_sort


@dataclass(frozen=True)
class TraceOptions(ProgressOption):
    """Options that say how to trace a module; see `attnscope.trace`.

    Args:
        progress: called with the name of the current measurement, and the fraction of it that is done.
        again: the command that builds the same module, without the flags for submodule, time and rows; None in Python.
        focus: additional parts of the result to show: "details", "explain".
        everything: whether the table has all rows, however many there are.
        sort: figure by which rows are sorted; None keeps the order of the calls.
        top: number of rows to show; the others are summed.
        backward: whether to count the MACs of the backward.
        input_grad: whether the inputs need a gradient in the backward.

    Raises:
        UsageError: a value is not allowed.
    """

    time: bool
    device: str | None
    group: str
    depth: int | None
    submodule: str | None
    budget: float
    threads: int
    seed: int
    command: str | None
    progress: Progress | None = None
    again: str | None = None
    focus: tuple[str, ...] = ()
    everything: bool = False
    sort: str | None = None
    top: int | None = None
    backward: bool = False
    input_grad: bool = True

    def __post_init__(self) -> None:
        if self.time and self.device == "meta":
            raise UsageError("{device} meta computes nothing, so {time} cannot measure; leave one of them out")
        check_arguments(self.device or "auto", self.budget, self.threads, self.seed)
        check_rows(self.group, self.depth, self.everything, self.top)
        check_sort(self.sort, self.time)

    @property
    def order(self) -> str | None:
        """Return the figure by which rows are sorted: the requested one, or what the largest rows cost."""
        return self.sort or (("time" if self.time else "macs") if self.top else None)

    @property
    def runs(self) -> bool:
        """Return whether the forward runs on a device that computes, rather than on meta."""
        return self.time or self.device not in (None, "meta")
