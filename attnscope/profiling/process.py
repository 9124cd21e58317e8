"""Set up the process before torch is imported, for reliable times and a quick start."""

import gc
import os
import sys
from collections.abc import Callable

from attnscope.core.interruption import postponed

Mallopt = Callable[[int, int], int]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # of <malloc.h>
_KEEP = 2**31 - 1

allocator = "default"
"""The allocator of this process: "default", or "pinned" once `pin_allocator` has been called."""


def pin_allocator() -> None:
    """Set glibc to keep freed memory, so that a forward does not fault in its pages again in each run.

    With glibc's defaults, the speed of the same code differs by a factor of up to 1.6 from process to process. With any
    other C library this does nothing.
    """
    global allocator
    mallopt = glibc_mallopt()
    if mallopt is not None and keep_memory(mallopt):
        allocator = "pinned"


def glibc_mallopt() -> Mallopt | None:
    """Return glibc's `mallopt`, which sets the options of its allocator; None with any other C library."""
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    return getattr(ctypes.CDLL(None), "mallopt", None)


def keep_memory(mallopt: Mallopt) -> bool:
    """Set glibc to allocate all blocks in the heap and never to trim it; return whether it accepts both.

    glibc before 2.35 refuses a threshold above 32 MiB. In that case mapping is turned off, even for blocks of 2 GiB and
    more, which are better returned to the system.
    """
    in_heap = mallopt(_M_MMAP_THRESHOLD, _KEEP) or mallopt(_M_MMAP_MAX, 0)
    kept = mallopt(_M_TRIM_THRESHOLD, _KEEP)
    return bool(in_heap and kept)


def import_torch() -> None:
    """Import torch, and freeze its objects so that the garbage collection at the end of the process skips them.

    A signal waits for the end of the import: the process aborts if Python raises an exception within torch's C++.
    """
    with postponed():
        import torch  # noqa: F401

    gc.freeze()


def cores() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
