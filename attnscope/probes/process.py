"""What must be settled in a process before torch is imported, for times that can be trusted and a quick start."""

import ctypes
import gc
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>
_KEEP = 2**31 - 1

allocator = "default"
"""How this process allocates: "default", or "pinned" once `pin_allocator` has been called."""


def pin_allocator() -> None:
    """Let glibc keep freed memory, so that a forward does not fault its pages in anew each time.

    With glibc's defaults the same code runs up to 1.6 times slower or faster by the luck of the process. Elsewhere than on
    glibc this does nothing.
    """
    global allocator
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and mallopt(_M_MMAP_THRESHOLD, _KEEP) and mallopt(_M_TRIM_THRESHOLD, _KEEP):
        allocator = "pinned"


def import_torch() -> None:
    """Import torch, and keep its many objects from the garbage collector's last round, when the process ends."""
    import torch  # noqa: F401

    gc.freeze()


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
