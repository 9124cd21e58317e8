"""Record the load of this process and of others during a measurement: CPU time, page faults and CPU pressure."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

PRESSURE = Path("/proc/pressure/cpu")


@dataclass(frozen=True)
class Effort:
    """Resources of one run: wall time, CPU time of this thread and of all threads in seconds, and minor page faults.

    `faults` is None if the system does not report it.
    """

    wall_s: float
    thread_s: float
    process_s: float
    faults: int | None

    @classmethod
    def now(cls) -> "Effort":
        """Return the resources that this process has used since it began."""
        faults = None if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        return cls(time.perf_counter(), time.thread_time(), time.process_time(), faults)

    def since(self, start: "Effort") -> "Effort":
        """Return the resources used between `start` and this point."""
        faults = None if self.faults is None or start.faults is None else self.faults - start.faults
        return Effort(
            self.wall_s - start.wall_s, self.thread_s - start.thread_s, self.process_s - start.process_s, faults
        )

    def share(self, threads: int) -> float:
        """Return the CPU time of the run as a fraction of the CPU time that its threads could have had.

        A single thread counts its own CPU time, several threads that of the process.
        """
        used_s = self.thread_s if threads == 1 else self.process_s
        return used_s / (threads * self.wall_s) if self.wall_s else 1.0


@dataclass(frozen=True)
class Load:
    """CPU load by other processes during a measurement.

    `others` is the number of CPUs that they kept busy on average. `pressure` is the fraction of the time in which some
    process waited for a CPU. Both are None if the system does not report them.
    """

    others: float | None
    pressure: float | None


class Watch:
    """A recording of the load of the machine, which starts when it is constructed."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), time.process_time()
        self._busy, self._waited = _busy_seconds(), _waited_seconds()

    def load(self) -> Load:
        """Return the load by other processes since the construction."""
        wall, own = time.perf_counter() - self._start[0], time.process_time() - self._start[1]
        busy, waited = _busy_seconds(), _waited_seconds()
        others = None if busy is None or self._busy is None else max(0.0, busy - self._busy - own) / wall
        pressure = None if waited is None or self._waited is None else min(1.0, (waited - self._waited) / wall)
        return Load(others, pressure)


def _busy_seconds() -> float | None:
    """Return the seconds that the CPUs of this process have been busy with any process; None if not reported."""
    try:
        every = psutil.cpu_times(percpu=True)
        mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(len(every))
        times = [every[index] for index in mine]
    except (OSError, IndexError, AttributeError):
        return None
    # user time already includes the time of guests
    idle = ("idle", "iowait", "guest", "guest_nice")
    return sum(sum(one) - sum(getattr(one, name, 0.0) for name in idle) for one in times)


def _waited_seconds() -> float | None:
    """Return the seconds in which some process waited for a CPU, from Linux's pressure stall information."""
    try:
        some = PRESSURE.read_text().splitlines()[0]
        return int(some.rsplit("total=", 1)[1]) * 1e-6
    except (OSError, IndexError, ValueError):
        return None
