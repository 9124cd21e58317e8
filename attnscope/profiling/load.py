"""What this process and the others do while something is measured: whose processor it was, page faults, pressure."""

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
    """What one run took of the machine: seconds of the clock, of this thread and of all threads, and page faults.

    `faults` is None where the system does not tell.
    """

    wall_s: float
    thread_s: float
    process_s: float
    faults: int | None

    @classmethod
    def now(cls) -> "Effort":
        """Since the process began."""
        faults = None if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        return cls(time.perf_counter(), time.thread_time(), time.process_time(), faults)

    def since(self, start: "Effort") -> "Effort":
        """What came between."""
        faults = None if self.faults is None or start.faults is None else self.faults - start.faults
        return Effort(
            self.wall_s - start.wall_s, self.thread_s - start.thread_s, self.process_s - start.process_s, faults
        )

    def share(self, threads: int) -> float:
        """How much of the processors' time it could have had it got: of this thread's, or of all threads'."""
        taken = self.thread_s if threads == 1 else self.process_s
        return taken / (threads * self.wall_s) if self.wall_s else 1.0


@dataclass(frozen=True)
class Load:
    """What others did meanwhile: `others`, how many processors they kept busy; `pressure`, the share of the time in which
    somebody waited for a processor. None where the system does not tell.
    """

    others: float | None
    pressure: float | None


class Watch:
    """Watches the machine from its making on."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), time.process_time()
        self._busy, self._waited = _busy_seconds(), _waited_seconds()

    def load(self) -> Load:
        """What others did since."""
        wall, own = time.perf_counter() - self._start[0], time.process_time() - self._start[1]
        busy, waited = _busy_seconds(), _waited_seconds()
        others = None if busy is None or self._busy is None else max(0.0, busy - self._busy - own) / wall
        pressure = None if waited is None or self._waited is None else min(1.0, (waited - self._waited) / wall)
        return Load(others, pressure)


def _busy_seconds() -> float | None:
    """Seconds that the processors which this process may use have been busy with anything."""
    try:
        every = psutil.cpu_times(percpu=True)
        mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(len(every))
        times = [every[index] for index in mine]
    except (OSError, IndexError, AttributeError):
        return None
    # a guest's time is in that of its user already
    idle = ("idle", "iowait", "guest", "guest_nice")
    return sum(sum(one) - sum(getattr(one, name, 0.0) for name in idle) for one in times)


def _waited_seconds() -> float | None:
    try:
        some = PRESSURE.read_text().splitlines()[0]
        return int(some.rsplit("total=", 1)[1]) * 1e-6
    except (OSError, IndexError, ValueError):
        return None
