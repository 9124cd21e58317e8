"""Keep settings of Python's libraries and of the operating system: time-outs, limits, the time zone, and others."""

import copy
import faulthandler
import logging
import mimetypes
import multiprocessing
import os
import signal
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from attnscope.tracing.restoring import Restore, keep_attribute, keep_setting

SETTINGS = (
    ("sys", "getswitchinterval", "setswitchinterval"),
    ("sys", "get_int_max_str_digits", "set_int_max_str_digits"),
    ("sys", "get_coroutine_origin_tracking_depth", "set_coroutine_origin_tracking_depth"),
    ("sys", "getrecursionlimit", "setrecursionlimit"),
    ("threading", "stack_size", "stack_size"),
    ("gc", "get_debug", "set_debug"),
    ("socket", "getdefaulttimeout", "setdefaulttimeout"),
    ("csv", "field_size_limit", "field_size_limit"),
    ("calendar", "firstweekday", "setfirstweekday"),
)
"""Modules, their functions that return a setting, and those that set it."""
ATTRIBUTES = (
    *(("sys", name) for name in ("path", "argv", "meta_path", "path_hooks", "stdin", "stdout", "stderr")),
    *(("sys", name) for name in ("excepthook", "displayhook", "unraisablehook", "breakpointhook")),
    *(("sys", name) for name in ("dont_write_bytecode", "pycache_prefix")),
    ("os", "environ"),
    ("threading", "excepthook"),
    *(("logging", name) for name in ("_logRecordFactory", "_warnings_showwarning", "_loggerClass")),
    *(("logging", name) for name in ("raiseExceptions", "lastResort")),
    *(("urllib.request", "_opener"), ("tempfile", "tempdir"), ("ssl", "_create_default_https_context")),
    *(("mimetypes", name) for name in ("inited", "_db", "types_map", "common_types", "encodings_map", "suffix_map")),
)
"""Modules, and their attributes that are settings."""


def system_settings() -> Iterator[Restore]:
    """Yield functions that restore settings; those of libraries that are not imported have no users yet.

    Objects that a forward freezes stay so: Python counts frozen objects one by one, which may take longer than the trace.
    """
    for module, get, set_ in SETTINGS:
        if (library := sys.modules.get(module)) is not None:
            yield keep_setting(getattr(library, get), getattr(library, set_))
    yield keep_setting(_umask, os.umask)
    yield keep_setting(sys.get_asyncgen_hooks, lambda hooks: sys.set_asyncgen_hooks(*hooks))
    yield keep_setting(_start_method, partial(multiprocessing.set_start_method, force=True))
    yield keep_setting(faulthandler.is_enabled, lambda on: faulthandler.enable() if on else faulthandler.disable())
    depth = tracemalloc.get_traceback_limit()
    yield keep_setting(tracemalloc.is_tracing, lambda on: tracemalloc.start(depth) if on else tracemalloc.stop())
    yield from _limits()
    if hasattr(time, "tzset"):
        yield _time_zone()
    if hasattr(signal, "pthread_sigmask"):
        yield keep_setting(
            partial(signal.pthread_sigmask, signal.SIG_BLOCK, ()), partial(signal.pthread_sigmask, signal.SIG_SETMASK)
        )
    yield keep_attribute(threading.current_thread(), "name")
    yield keep_attribute(logging.root.manager, "disable")
    if mimetypes._db is not None:  # type: ignore[attr-defined] # the tables of a new one are copies
        yield _types_of_files(mimetypes._db)  # type: ignore[attr-defined]
    for module, name in ATTRIBUTES:
        if (library := sys.modules.get(module)) is not None:
            yield keep_attribute(library, name)


def _umask() -> int:
    """Return the permissions that new files do not get, which the system can set but not tell."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def _start_method() -> str | None:
    return multiprocessing.get_start_method(allow_none=True)


def _limits() -> Iterator[Restore]:
    """Yield functions that restore the limits of this process, and the cores on which it may run."""
    try:
        import resource
    except ImportError:  # on Windows
        return
    for number in {getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}:
        yield _limit(partial(resource.getrlimit, number), partial(resource.setrlimit, number))
    if hasattr(os, "sched_getaffinity"):
        yield _limit(partial(os.sched_getaffinity, 0), partial(os.sched_setaffinity, 0))


def _limit(get: Callable[[], Any], set_: Callable[[Any], object]) -> Restore:
    """Return a function that restores a limit, unless the system refuses to raise it again."""
    before = get()

    def restore() -> None:
        if get() != before:
            with suppress(OSError, ValueError):
                set_(before)

    return restore


def _time_zone() -> Restore:
    """Return a function that reads the time zone again if it has changed; the environment must be restored before."""

    def zone() -> tuple[Any, ...]:
        return time.tzname, time.timezone, time.altzone, time.daylight

    before = zone()
    return lambda: time.tzset() if zone() != before else None


def _types_of_files(types: Any) -> Restore:
    """Return a function that restores the tables of a `mimetypes.MimeTypes`, some of which have lists."""
    tables = (*types.types_map, *types.types_map_inv, types.encodings_map, types.suffix_map)
    before = copy.deepcopy(tables)

    def restore() -> None:
        for table, values in zip(tables, before, strict=True):
            if table != values:
                table.clear()
                table.update(values)

    return restore
