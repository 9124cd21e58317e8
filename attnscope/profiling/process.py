"""What must be settled in a process before torch is imported, for times that can be trusted and a quick start."""

import atexit
import gc
import os
import sys
from collections.abc import Callable
from typing import NoReturn

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


def leave(code: int | str | None) -> NoReturn:
    """End the process without freeing torch's objects one by one, which takes a tenth of torch's import.

    Functions registered with atexit run first, and the streams are flushed. Without torch this is `sys.exit`.
    """
    if "torch" not in sys.modules or not isinstance(code, int):
        sys.exit(code)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
