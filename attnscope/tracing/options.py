"""How a module that is not ours is to be run, and what is to be found out by it."""

from dataclasses import dataclass

from attnscope.core.errors import UsageError
from attnscope.profiling.options import Progress, Telling, check_arguments
from attnscope.tracing.folding import check_rows


@dataclass(frozen=True)
class Asked(Telling):
    """What was asked of a trace; see `attnscope.trace`.

    `progress` is told what is being measured, and which share of that is done.

    Raises:
        UsageError: something that cannot be asked for.
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

    def __post_init__(self) -> None:
        if self.time and self.device == "meta":
            raise UsageError("{device} meta computes nothing, and there is no {time} to measure; leave one of them out")
        check_arguments(self.device or "auto", self.budget, self.threads, self.seed)
        check_rows(self.group, self.depth)

    @property
    def runs(self) -> bool:
        """Whether something is computed."""
        return self.time or self.device not in (None, "meta")
