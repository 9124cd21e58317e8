"""What must be settled in a process before torch is imported, for times that can be trusted and a quick start."""

import gc
import os
import sys
from collections.abc import Callable

Mallopt = Callable[[int, int], int]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # of <malloc.h>
_KEEP = 2**31 - 1

allocator = "default"
"""How this process allocates: "default", or "pinned" once `pin_allocator` has been called."""


def pin_allocator() -> None:
    """Let glibc keep freed memory, so that a forward does not fault its pages in anew each time.

    With glibc's defaults the same code runs up to 1.6 times slower or faster by the luck of the process. Elsewhere than on
    glibc this does nothing.
    """
    global allocator
    mallopt = glibc_mallopt()
    if mallopt is not None and keep_memory(mallopt):
        allocator = "pinned"


def glibc_mallopt() -> Mallopt | None:
    """What tells glibc how to allocate; None where there is another C library."""
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    return getattr(ctypes.CDLL(None), "mallopt", None)


def keep_memory(mallopt: Mallopt) -> bool:
    """Tell glibc to map no block apart from the heap, and to give none of the heap back; whether it accepts both.

    Before 2.35 it refuses a threshold above 32 MiB. Then none may be mapped: not even blocks of 2 GiB and more, which are
    better given back.
    """
    in_heap = mallopt(_M_MMAP_THRESHOLD, _KEEP) or mallopt(_M_MMAP_MAX, 0)
    kept = mallopt(_M_TRIM_THRESHOLD, _KEEP)
    return bool(in_heap and kept)


def import_torch() -> None:
    """Import torch, and keep its many objects from the garbage collector's last round, when the process ends."""
    import torch  # noqa: F401

    gc.freeze()


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
