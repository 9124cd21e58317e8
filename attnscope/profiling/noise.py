"""Noise: what makes times doubtful, each in a sentence with its remedy."""

from typing import Protocol

from attnscope.profiling import process
from attnscope.reports.report import Time

FEWEST_CLEAN = 5
SUM_MAY_DIFFER = 0.03
SPREAD_MAY_BE = 0.10
SHARE_SHOULD_BE = 0.9
FAULTS_MAY_BE = 16
OTHERS_MAY_KEEP = 0.25
"""Processors, of those that this process uses, that other processes may keep busy."""
WAITING_MAY_BE = 0.05
"""Share of the time in which some process may wait for a processor while several threads are timed: up to 0.01 was seen
on a quiet machine, 0.5 with one other busy process."""


class Disturbed(Protocol):
    """A timing that other processes may have disturbed; the attributes are those of a `Time`."""

    @property
    def clean_runs(self) -> int: ...

    @property
    def tried(self) -> int | None: ...

    @property
    def clock(self) -> str: ...

    @property
    def cpu_share(self) -> float | None: ...

    @property
    def others(self) -> float | None: ...

    @property
    def pressure(self) -> float | None: ...


def doubts(time: Time, threads: int, device: str, cores: int | None = None, allocator: str | None = None) -> list[str]:
    """Return what makes the times doubtful, and what to do about it; a sign with a known cause is part of the cause's line.

    Args:
        time: the whole beside its steps.
        threads: number of CPU threads that measured.
        device: "cpu", "cuda" or "mps".
        cores: processors that the process may use; by default all that it may.
        allocator: "pinned" or "default"; by default that of this process.
    """
    causes = disturbances(time, threads, device, cores)
    if device == "cpu" and time.page_faults is not None and time.page_faults > FAULTS_MAY_BE:
        remedy = faults_remedy(allocator or process.allocator, process.glibc_mallopt() is not None)
        causes.append(f"{time.page_faults:,.0f} page faults a run: memory is taken anew each time; {remedy}")
    signs = _signs(time, threads, device)
    if not causes or not signs:
        return causes + [f"{sign}: {remedy}" for sign, remedy in signs.items()]
    return [*causes[:-1], f"{causes[-1]}. As it is, {' and '.join(signs)}"]


def _signs(time: Time, threads: int, device: str) -> dict[str, str]:
    """Return what in the times themselves shows that something is wrong, and what helps if the cause is not known."""
    signs = {}
    ratio = time.steps_sum_s / time.whole_interquartile_mean_s
    if device != "mps" and abs(ratio - 1) > SUM_MAY_DIFFER:  # there each step waits, and the whole does not
        signs[f"the steps add up to {ratio:.2f} of the whole"] = "give a longer --budget or a quieter machine"
    if time.whole_iqr_s > SPREAD_MAY_BE * time.whole_interquartile_mean_s:
        remedy = "a longer --budget" if threads == 1 or device != "cpu" else "--threads 1"
        signs[f"the runs spread by {time.whole_iqr_s / time.whole_interquartile_mean_s:.0%}"] = (
            f"{remedy} may steady them"
        )
    return signs


def disturbances(time: Disturbed, threads: int, device: str, cores: int | None = None) -> list[str]:
    """Return what took the processor from a run, or kept a GPU waiting, and what to do; the arguments as in `doubts`."""
    if device == "cuda":
        return _waiting(time)
    if device != "cpu":
        return []
    return _shared(time, threads, cores or process.cores()) if threads > 1 else _busy(time)


def faults_remedy(allocator: str, is_glibc: bool) -> str:
    """Return what helps if memory is allocated again in each run, by this process's allocator and whether it is glibc's."""
    if allocator == "pinned":
        return "blocks of 2 GiB or a preloaded allocator escape --alloc pinned: give a smaller --batch, or unset LD_PRELOAD"
    return (
        "--alloc pinned keeps it"
        if is_glibc
        else "this system's allocator cannot be told to keep it; glibc's on Linux can"
    )


def floor_doubt(taken_s: float, least_s: float | None) -> list[str]:
    """Return what makes the roofline lower bound doubtful: that the steps were faster.

    Args:
        taken_s: seconds of the steps together.
        least_s: their lower bound by the machine's peaks; None if there is none.
    """
    if least_s is None or taken_s >= (1 - SUM_MAY_DIFFER) * least_s:
        return []
    return [
        f"the steps took {taken_s / least_s:.2f} of what the machine's peaks say they need: these were kept from a busier "
        "moment; attnscope peaks measures them anew"
    ]


def _waiting(time: Disturbed) -> list[str]:
    """Return a line if the GPU may have waited for the processor."""
    if _enough_clean(time):
        return []
    return [
        f"only {time.clean_runs} of {time.tried} runs were queued before the GPU began, so it may have waited for the "
        "processor, and these times hold launches: a larger batch hides them"
    ]


def _shared(time: Disturbed, threads: int, cores: int) -> list[str]:
    """Return a line if several threads did not have their processors to themselves."""
    share = 1.0 if time.cpu_share is None else time.cpu_share
    wanted = 0.0 if time.others is None else threads + time.others - cores
    waiting = time.pressure or 0.0
    if share >= SHARE_SHOULD_BE and wanted <= OTHERS_MAY_KEEP and waiting <= WAITING_MAY_BE:
        return []
    kept = "" if time.others is None else f", others kept {time.others:.1f} of {cores} processors busy"
    return [
        f"{threads} threads had {share:.0%} of the processors' time{kept}: use --threads 1, which holds on a busy machine"
    ]


def _busy(time: Disturbed) -> list[str]:
    """Return a line if another process ran on the processor of a single thread."""
    if _enough_clean(time):
        return []
    busy = f"another process is busy: only {time.clean_runs} of {time.tried} runs had the processor to themselves"
    if time.clock == "thread":
        busy += ", so these are seconds of the processor, not of the clock"
    return [f"{busy}; wait for a quieter machine or give a longer --budget"]


def _enough_clean(time: Disturbed) -> bool:
    return time.clock == "wall" and (time.tried is None or time.clean_runs >= min(FEWEST_CLEAN, time.tried))
