"""attnscope as a library: no function leaves a trace in the process, in any context."""

import asyncio
import gc
import locale
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy
import pytest
import torch
from torch import nn

import attnscope
from attnscope import SwinSpec, ViTSpec

SMALL = ViTSpec(dim=12, heads=3, tokens=5)
SHIFTED = SwinSpec(dim=6, resolution=(4, 4), window=(2, 2), heads=3, shift=True)
LAYER, X, WRONG = nn.Linear(4, 4), torch.zeros(2, 4), torch.zeros(2, 5)


def fail() -> None:
    """Call a Spec and a forward that raise."""
    with pytest.raises(attnscope.UsageError):
        ViTSpec(dim=13)
    with pytest.raises(attnscope.AttnscopeError):
        attnscope.trace(LAYER, WRONG)


CALLS: dict[str, Callable[[], object]] = {
    "explore": lambda: attnscope.explore(SMALL, time=False),
    "explore with times": lambda: attnscope.explore(SMALL, time=True, budget=0.01, threads=1, device="cpu"),
    "explore with the backward": lambda: attnscope.explore(SHIFTED, backward=True, budget=0.01, device="cpu"),
    "compare": lambda: attnscope.compare(["vit", "swin"], over={"resolution": [7, 14]}),
    "windows": lambda: attnscope.look_at_windows(SwinSpec(shift=True)),
    "trace": lambda: attnscope.trace(LAYER, X),
    "trace with times": lambda: attnscope.trace(LAYER, X, time=True, budget=0.01),
    "errors": fail,
}


def fingerprint() -> dict[str, object]:
    """Return what a process shares between all of its code."""
    backends = torch.backends
    return {
        "threads": torch.get_num_threads(),
        "between operations": torch.get_num_interop_threads(),
        "generators": (random.getstate(), str(numpy.random.get_state()), torch.get_rng_state().tolist()),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")),
        "deterministic": (torch.are_deterministic_algorithms_enabled(), torch.get_deterministic_debug_mode()),
        "precision": torch.get_float32_matmul_precision(),
        "backends": (
            backends.cudnn.enabled,
            backends.cudnn.benchmark,
            backends.mkldnn.enabled,
            backends.cuda.flash_sdp_enabled(),
        ),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "search path": list(sys.path),
        "handlers": {number: signal.getsignal(number) for number in signal.valid_signals() if number not in (9, 19)},
        "logging": {name: logging.getLogger(name).level for name in ("", "torch", "attnscope")},
        "log handlers": list(logging.getLogger().handlers),
        "filters": list(warnings.filters),
        "collector": (gc.isenabled(), gc.get_threshold()),
        "streams": (sys.stdout, sys.stderr, sys.excepthook, sys.displayhook),
        "recursion": sys.getrecursionlimit(),
        "locale": locale.setlocale(locale.LC_ALL),
        "live threads": {thread.name for thread in threading.enumerate() if not thread.daemon},
    }


def changes(call: Callable[[], object]) -> dict[str, tuple[object, object]]:
    """Return what a call changes in the fingerprint."""
    call()  # imports register what they need once
    before = fingerprint()
    call()
    after = fingerprint()
    return {name: (before[name], after[name]) for name in before if before[name] != after[name]}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_leaves_the_process_as_it_was(name):
    assert changes(CALLS[name]) == {}


def test_a_change_is_found():
    assert set(changes(lambda: torch.manual_seed(random.randrange(10**6)))) == {"generators"}


@pytest.mark.parametrize("name", ["explore", "compare", "windows", "trace"])
def test_a_call_gives_the_same_in_threads(name):
    expected = str(CALLS[name]())
    with ThreadPoolExecutor(4) as pool:
        assert {str(one) for one in pool.map(lambda _: CALLS[name](), range(8))} == {expected}


@pytest.mark.parametrize("name", ["explore", "compare", "windows", "trace"])
def test_a_call_gives_the_same_within_asyncio(name):
    async def gathered() -> list[object]:
        return await asyncio.gather(*(asyncio.to_thread(CALLS[name]) for _ in range(3)))

    expected = str(CALLS[name]())
    assert {str(one) for one in asyncio.run(gathered())} == {expected}


AROUND = {
    "no_grad": torch.no_grad,
    "inference mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "the meta device": lambda: torch.device("meta"),
}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("name", ["explore", "explore with the backward", "compare", "trace with times"])
def test_a_call_counts_the_same_within_a_context(name, around):
    def macs(report: object) -> object:
        return report.totals.macs if hasattr(report, "totals") else str(report)

    expected = macs(CALLS[name]())
    with AROUND[around]():
        assert macs(CALLS[name]()) == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
@pytest.mark.parametrize("name", ["explore", "trace"])
def test_a_call_runs_after_a_fork(name):
    expected = str(CALLS[name]())
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: other threads may hold locks
        child = os.fork()
    if child == 0:
        os.write(writing, b"same" if str(CALLS[name]()) == expected else b"other")
        os._exit(0)
    os.close(writing)
    assert os.read(reading, 8) == b"same"
    assert os.waitpid(child, 0)[1] == 0
