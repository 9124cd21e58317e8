"""How to run a third-party module, and what to find out from the run."""

from dataclasses import dataclass

from attnscope.core.errors import UsageError
from attnscope.profiling.options import Progress, ProgressOption, check_arguments
from attnscope.tracing.folding import check_rows


@dataclass(frozen=True)
class TraceOptions(ProgressOption):
    """How to trace a module; see `attnscope.trace`.

    Args:
        progress: called with what is being measured, and the share of it that is done.
        again: the command that builds the module again, without its flags for the submodule, time and rows.
        focus: parts of the result that are requested: "details", "explain".

    Raises:
        UsageError: a value that is not allowed.
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

    def __post_init__(self) -> None:
        if self.time and self.device == "meta":
            raise UsageError("{device} meta computes nothing, and there is no {time} to measure; leave one of them out")
        check_arguments(self.device or "auto", self.budget, self.threads, self.seed)
        check_rows(self.group, self.depth)

    @property
    def runs(self) -> bool:
        """Whether something is computed."""
        return self.time or self.device not in (None, "meta")
