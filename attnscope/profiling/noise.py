"""Detect noise in times, and describe each finding in one sentence with its fix."""

from typing import Protocol

from attnscope.profiling import process
from attnscope.reports.gpu import GpuState
from attnscope.reports.report import Time

FEWEST_CLEAN = 5
SUM_MAY_DIFFER = 0.03
SPREAD_MAY_BE = 0.10
SHARE_SHOULD_BE = 0.9
FAULTS_MAY_BE = 16
OTHERS_MAY_KEEP = 0.25
"""CPUs of this process that other processes may keep busy."""
WAITING_MAY_BE = 0.05
"""Fraction of the time in which some process may wait for a CPU while several threads are timed.

Measured values are up to 0.01 on an idle machine, and 0.5 with one other busy process.
"""
CLOCK_MAY_VARY = 0.05
"""Fraction of its highest clock by which the clock of a GPU may vary."""


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


def doubts(
    time: Time,
    threads: int,
    device: str,
    cores: int | None = None,
    allocator: str | None = None,
    all_timed: bool = True,
) -> list[str]:
    """Return warnings about noisy times, each with its fix.

    Symptoms, such as a large spread, each have a fix of their own only if no cause is found. Otherwise the last warning
    lists them.

    Args:
        time: the times of a whole forward or backward and of its steps.
        threads: number of CPU threads of the measurement.
        device: "cpu", "cuda" or "mps".
        cores: number of CPUs that the process may use; None for those that it may use now.
        allocator: "pinned" or "default"; None for that of this process.
        all_timed: whether the times of all steps are known, so that they should sum to the whole.
    """
    causes = disturbances(time, threads, device, cores) + _slowed(time.gpu)
    if device == "cpu" and time.page_faults is not None and time.page_faults > FAULTS_MAY_BE:
        fix = faults_remedy(allocator or process.allocator, process.glibc_mallopt() is not None)
        causes.append(f"each run allocates its memory again ({time.page_faults:,.0f} page faults a run); {fix}")
    symptoms = _symptoms(time, threads, device, all_timed)
    if not causes or not symptoms:
        return causes + [f"{symptom}; {fix}" for symptom, fix in symptoms.items()]
    return [*causes, f"as a result, {' and '.join(symptoms)}"]


def _symptoms(time: Time, threads: int, device: str, all_timed: bool) -> dict[str, str]:
    """Return the symptoms of noise in the times themselves, each with the fix to try if the cause is unknown."""
    symptoms = {}
    ratio = time.steps_sum_s / time.whole_interquartile_mean_s
    if all_timed and device != "mps" and abs(ratio - 1) > SUM_MAY_DIFFER:  # MpsClock synchronizes after each step
        fix = "use a longer --budget, or close other programs"
        if device == "cuda":
            fix = "use a larger batch size, so that the steps take longer than their timestamps"
        symptoms[f"the steps sum to {ratio:.2f}× the whole"] = fix
    if time.whole_iqr_s > SPREAD_MAY_BE * time.whole_interquartile_mean_s:
        fix = "use a longer --budget" if threads == 1 or device != "cpu" else "use --threads 1"
        spread = time.whole_iqr_s / time.whole_interquartile_mean_s
        symptoms[f"the interquartile range of the runs is {spread:.0%} of their mean"] = fix
    return symptoms


def disturbances(time: Disturbed, threads: int, device: str, cores: int | None = None) -> list[str]:
    """Return warnings about CPU time that other processes took, or about a GPU that waited, each with its fix.

    The arguments are those of `doubts`.
    """
    if device == "cuda":
        return _waiting(time)
    if device != "cpu":
        return []
    return _shared(time, threads, cores or process.cores()) if threads > 1 else _busy(time)


def faults_remedy(allocator: str, is_glibc: bool) -> str:
    """Return the fix if each run allocates its memory again.

    Args:
        allocator: "pinned" or "default".
        is_glibc: whether the allocator of this process is glibc's.
    """
    if allocator == "pinned":
        return (
            "--alloc pinned has no effect on blocks of 2 GiB and on a preloaded allocator: "
            "use a smaller --batch, or unset LD_PRELOAD"
        )
    return (
        "use --alloc pinned to keep it"
        if is_glibc
        else "the allocator of this system cannot keep it, but that of Linux with glibc can"
    )


def _waiting(time: Disturbed) -> list[str]:
    """Return a warning if the GPU may have waited for kernel launches on the CPU."""
    if _enough_clean(time):
        return []
    return [
        "times may include kernel launches on the CPU: "
        f"only {time.clean_runs} of {time.tried} runs were queued before the GPU began; use a larger batch size"
    ]


def _slowed(gpu: GpuState | None) -> list[str]:
    """Return a warning if the GPU lowered its clock."""
    if gpu is None:
        return []
    low, high = gpu.lowest_clock_mhz, gpu.highest_clock_mhz
    clock = f"the GPU's clock was {low:,} to {high:,} MHz" if low < high else f"the GPU's clock was {high:,} MHz"
    if gpu.slowed_by:
        return [
            f"{clock}, lowered by {' and '.join(gpu.slowed_by)}; let it cool, or lock a lower clock (nvidia-smi -lgc)"
        ]
    if low < (1 - CLOCK_MAY_VARY) * high:
        return [f"{clock}; lock it (nvidia-smi -lgc), or use a longer --budget"]
    return []


def _shared(time: Disturbed, threads: int, cores: int) -> list[str]:
    """Return a warning if several threads shared their CPUs with other processes."""
    share = 1.0 if time.cpu_share is None else time.cpu_share
    wanted = 0.0 if time.others is None else threads + time.others - cores
    waiting = time.pressure or 0.0
    if share >= SHARE_SHOULD_BE and wanted <= OTHERS_MAY_KEEP and waiting <= WAITING_MAY_BE:
        return []
    busy = "" if time.others is None else f", and other processes kept {time.others:.1f} of {cores} CPUs busy"
    return [
        f"{threads} threads got {share:.0%} of their CPU time{busy}; "
        "use --threads 1, which is reliable on a busy machine too"
    ]


def _busy(time: Disturbed) -> list[str]:
    """Return a warning if another process ran on the CPU of a single thread."""
    if _enough_clean(time):
        return []
    tried = time.tried or time.clean_runs
    busy = f"another process was busy during {tried - time.clean_runs} of {tried} runs"
    if time.clock == "thread":
        busy += " (times are CPU seconds)"
    return [f"{busy}; close it, or use a longer --budget"]


def _enough_clean(time: Disturbed) -> bool:
    return time.clock == "wall" and (time.tried is None or time.clean_runs >= min(FEWEST_CLEAN, time.tried))
