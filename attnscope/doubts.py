"""What makes times doubtful, each in a sentence with its remedy."""

from attnscope.probes import process
from attnscope.report import Time

FEWEST_CLEAN = 5
SUM_MAY_DIFFER = 0.03
SPREAD_MAY_BE = 0.10
SHARE_SHOULD_BE = 0.9
FAULTS_MAY_BE = 16
OTHERS_MAY_KEEP = 0.25
"""Processors that others may keep busy, of those which this process asks for."""


def doubts(
    time: Time, threads: int, cores: int | None = None, allocator: str | None = None, on_processor: bool = True
) -> list[str]:
    """What makes the times doubtful, and what to do about it.

    Args:
        time: the whole beside its steps.
        threads: that measured.
        cores: processors that the process may use; as many as there are unless given.
        allocator: "pinned" or "default"; that of this process unless given.
        on_processor: whether it ran there and not on a GPU, whose times are its own.
    """
    told = []
    if on_processor:
        told += _busy(time, threads, cores or process.cores())
        if time.page_faults is not None and time.page_faults > FAULTS_MAY_BE:
            remedy = faults_remedy(allocator or process.allocator, process.glibc_mallopt() is not None)
            told.append(f"{time.page_faults:,.0f} page faults a run: memory is taken anew each time; {remedy}")
    ratio = time.steps_sum_s / time.whole_median_s
    if abs(ratio - 1) > SUM_MAY_DIFFER:
        told.append(
            f"the steps add up to {ratio:.2f} of the whole: measure longer (--budget 2) or on a quieter machine"
        )
    if time.whole_iqr_s > SPREAD_MAY_BE * time.whole_median_s:
        remedy = "--budget 2" if threads == 1 else "--threads 1"
        told.append(f"the runs spread by {time.whole_iqr_s / time.whole_median_s:.0%}: {remedy} may steady them")
    return told


def faults_remedy(allocator: str, is_glibc: bool) -> str:
    """What helps where memory is taken anew each time, by how this process allocates, and whether with glibc."""
    if allocator == "pinned":
        return "blocks of 2 GiB or a preloaded allocator escape --alloc pinned: give a smaller --batch, or unset LD_PRELOAD"
    return (
        "--alloc pinned keeps it"
        if is_glibc
        else "this system's allocator cannot be told to keep it; glibc's on Linux can"
    )


def floor_doubt(taken_s: float, least_s: float) -> list[str]:
    """What makes the floor doubtful: that the steps were faster.

    Args:
        taken_s: seconds of the steps together.
        least_s: what the machine's peaks say that they need at the least.
    """
    if taken_s >= (1 - SUM_MAY_DIFFER) * least_s:
        return []
    return [
        f"the steps took {taken_s / least_s:.2f} of what the machine's peaks say they need: these were kept from a busier "
        "moment; attnscope peaks measures them anew"
    ]


def _busy(time: Time, threads: int, cores: int) -> list[str]:
    """Others who took the processor meanwhile."""
    if threads > 1:
        share = 1.0 if time.cpu_share is None else time.cpu_share
        wanted = 0.0 if time.others is None else threads + time.others - cores
        if share < SHARE_SHOULD_BE or wanted > OTHERS_MAY_KEEP:
            kept = "" if time.others is None else f", others kept {time.others:.1f} of {cores} processors busy"
            return [
                f"{threads} threads had {share:.0%} of the processors' time{kept}: use --threads 1, "
                "which holds on a busy machine"
            ]
        return []
    if time.clock == "thread":
        return [
            f"another process is busy: only {time.clean_runs} of {time.tried} runs had the processor to themselves, "
            "so these are seconds of the processor, not of the clock; wait for a quieter machine or give --budget 2"
        ]
    if time.clean_runs < min(FEWEST_CLEAN, time.runs):
        return [
            f"another process is busy: only {time.clean_runs} of {time.tried or time.runs} runs had the processor "
            "to themselves; wait for a quieter machine or give --budget 2"
        ]
    return []
