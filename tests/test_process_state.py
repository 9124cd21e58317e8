"""Settings of Python, of torch and of the system that a forward changes are those of the caller after a trace."""

import csv
import decimal
import faulthandler
import gc
import logging
import mimetypes
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import tracemalloc
import urllib.request
from contextlib import suppress

import pytest
import torch
from torch import nn

import attnscope
from attnscope.tracing.trace import ForwardError
from tests.test_isolation import ways

resource = pytest.importorskip("resource", reason="limits of processes are those of Unix")


class Weights:
    """A class that a forward lets torch.load accept."""


def change_time_zone():
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()


def lower_limit():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))


def read_umask():
    os.umask(umask := os.umask(0o077))
    return umask


def count_autocasts():
    torch.autocast_increment_nesting()
    return torch.autocast_decrement_nesting()


def types_of_files():
    tables = mimetypes._db and [*mimetypes._db.types_map, *mimetypes._db.types_map_inv]
    return mimetypes.inited, id(mimetypes._db), repr(tables)


SETTINGS = {
    "umask": (lambda: os.umask(0o070), read_umask),
    "sharing": (
        lambda: torch.multiprocessing.set_sharing_strategy("file_system"),
        torch.multiprocessing.get_sharing_strategy,
    ),
    "accepted classes": (
        lambda: torch.serialization.add_safe_globals([Weights]),
        lambda: {*torch.serialization.get_safe_globals()},
    ),
    "no accepted classes": (
        torch.serialization.clear_safe_globals,
        lambda: {*torch.serialization.get_safe_globals()},
    ),
    "packages": (
        lambda: torch.serialization.register_package(99, abs, abs),
        lambda: [*torch.serialization._package_registry],
    ),
    "time-out": (lambda: socket.setdefaulttimeout(3), socket.getdefaulttimeout),
    "types of files": (lambda: mimetypes.add_type("x/y", ".zzz"), types_of_files),
    "default arithmetic": (lambda: setattr(decimal.DefaultContext, "prec", 3), lambda: repr(decimal.DefaultContext)),
    "blocked signals": (
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2]),
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, []),
    ),
    "faults": (
        lambda: faulthandler.disable() if faulthandler.is_enabled() else faulthandler.enable(),
        faulthandler.is_enabled,
    ),
    "allocations": (tracemalloc.start, tracemalloc.is_tracing),
    "collector": (lambda: gc.set_debug(gc.DEBUG_UNCOLLECTABLE), gc.get_debug),
    "environment": (lambda: setattr(os, "environ", {**os.environ}), lambda: id(os.environ)),
    "time zone": (change_time_zone, lambda: (time.tzname, time.localtime(0).tm_hour)),
    "limit": (lower_limit, lambda: resource.getrlimit(resource.RLIMIT_NOFILE)),
    "cores": (
        lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
        lambda: os.sched_getaffinity(0),
    ),
    "start of processes": (
        lambda: multiprocessing.set_start_method("spawn", force=True),
        lambda: multiprocessing.get_start_method(allow_none=True),
    ),
    "asynchronous generators": (lambda: sys.set_asyncgen_hooks(abs, abs), sys.get_asyncgen_hooks),
    "byte code": (lambda: setattr(sys, "pycache_prefix", "elsewhere"), lambda: sys.pycache_prefix),
    "fields": (lambda: csv.field_size_limit(5), csv.field_size_limit),
    "logger": (
        lambda: (logging.setLoggerClass(type("Own", (logging.Logger,), {})), setattr(logging, "lastResort", None)),
        lambda: (logging.getLoggerClass(), logging.lastResort),
    ),
    "thread": (lambda: setattr(threading.current_thread(), "name", "other"), lambda: threading.current_thread().name),
    "downloads": (
        lambda: urllib.request.install_opener(urllib.request.build_opener()),
        lambda: urllib.request._opener,
    ),
    "temporary files": (lambda: setattr(tempfile, "tempdir", "elsewhere"), lambda: tempfile.tempdir),
    "quantization": (
        lambda: setattr(torch.backends.quantized, "engine", torch.backends.quantized.supported_engines[-1]),
        lambda: torch.backends.quantized.engine,
    ),
    "executor": (
        lambda: torch._C._set_graph_executor_optimize(False),
        lambda: torch._C._get_graph_executor_optimize(),
    ),
    "autocast": (lambda: torch.autocast("cpu").__enter__(), count_autocasts),
}
"""Settings: a function that changes one, and one that returns it."""


class Changes(nn.Linear):
    """A layer that changes a setting, and then may fail."""

    def __init__(self, change, fails=False):
        super().__init__(4, 4)
        self.change, self.fails = change, fails

    def forward(self, x):
        self.change()
        if self.fails:
            raise ValueError("in the end")
        return super().forward(x)


@ways
@pytest.mark.parametrize("fails", [False, True], ids=["", "fails"])
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.skipif(sys.platform != "linux", reason="the settings are those of Linux")
def test_a_setting_is_that_of_the_caller(name, fails, settings):
    change, look = SETTINGS[name]
    before = look()
    try:
        with suppress(ForwardError):
            attnscope.trace(Changes(change, fails), torch.randn(2, 4), **settings)
        assert look() == before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())


def test_a_known_type_of_file_keeps_its_extensions():
    mimetypes.init()
    before = mimetypes.guess_all_extensions("text/plain")
    attnscope.trace(Changes(lambda: mimetypes.add_type("text/plain", ".zzz")), torch.randn(2, 4))
    assert mimetypes.guess_all_extensions("text/plain") == before
    assert mimetypes.guess_type("a.zzz") == (None, None)


def test_what_torch_load_accepts_since_an_import_within_a_forward_stays(tmp_path, monkeypatch):
    (tmp_path / "accepted_later.py").write_text(
        "import torch\nclass Own: pass\ntorch.serialization.add_safe_globals([Own])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    attnscope.trace(Changes(lambda: __import__("accepted_later")), torch.randn(2, 4))
    assert sys.modules["accepted_later"].Own in torch.serialization.get_safe_globals()
