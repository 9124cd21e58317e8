"""State that a forward reaches outside of its module is the caller's after a trace, wherever it is kept."""

import argparse
import asyncio
import builtins
import copyreg
import functools
import importlib
import io
import itertools
import locale
import logging
import math
import operator
import signal
import sys
import threading
import types
import warnings
from collections import defaultdict, deque, namedtuple

import numpy as np
import pytest
import torch
from torch import nn

import attnscope
from tests.test_isolation import Changes, short_measurements, ways  # noqa: F401

# iterators

NEXT, METHOD = functools.partial(next, itertools.count()), itertools.count().__next__
LISTED, PAIRED, QUEUED = [itertools.count()], (itertools.count(), 1), deque([itertools.count()])
CYCLE, LEFT, VOCABULARY = itertools.cycle("abc"), iter([1, 2] * 100), defaultdict(itertools.count().__next__)
NAMED = namedtuple("Named", "ids names")(itertools.count(), [])


class Slotted:
    __slots__ = ("ids",)

    def __init__(self):
        self.ids = itertools.count()


SLOTTED = Slotted()


def of_default(ids=itertools.count(), *, more=itertools.count()):  # noqa: B008
    return next(ids), next(more)


def take_numbers():
    (
        NEXT(),
        METHOD(),
        next(LISTED[0]),
        next(PAIRED[0]),
        next(QUEUED[0]),
        next(SLOTTED.ids),
        next(NAMED.ids),
        of_default(),
    )
    VOCABULARY[len(VOCABULARY)]


def numbers():
    """Return the text of each counter, and of what holds them."""
    holders = NEXT.args, METHOD.__self__, LISTED, PAIRED, QUEUED, SLOTTED.ids, NAMED
    return repr((*holders, of_default.__defaults__, of_default.__kwdefaults__, VOCABULARY, id(METHOD)))


def left():
    return repr(LEFT.__reduce__()[2])


def left_of_cycle():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.14 cannot look into it
        return repr((CYCLE.__reduce__()[1][0].__reduce__(), CYCLE.__reduce__()[2:]))


# objects

OPTIONS, ONCE, SHOWN = argparse.Namespace(steps=0), threading.Event(), memoryview(bytearray(2))
IN_MEMORY, TEXT, OBJECTS = io.BytesIO(b"abc"), io.StringIO("abc"), np.array([[1], {}], dtype=object)
BITS, SHAPED, LOCKED, SORTED = np.random.PCG64(0), np.zeros((2, 2)), np.zeros(2), np.array([2.0, 1.0])


class Key:
    uses = 0


KEYS = {Key(): 1}
PART = nn.Linear(2, 2)
OPTIMIZER = torch.optim.SGD(PART.parameters(), 0.1, momentum=0.9)
SCHEDULE, SEQUENCE = torch.optim.lr_scheduler.StepLR(OPTIMIZER, 1), torch.quasirandom.SobolEngine(2)


def change_objects():
    OPTIONS.steps += 1
    ONCE.set()
    SHOWN[0] += 1
    for key in KEYS:
        key.uses += 1


TABLES = {name: torch.arange(6.0).view(2, 3) for name in ("turned", "resized", "set", "replaced", "learned", "used")}
TABLES["used"].requires_grad_()


def change_tensors():
    TABLES["turned"].t_()
    TABLES["resized"].resize_(12).zero_()
    TABLES["set"].set_(torch.zeros(1, device="cpu"))
    TABLES["replaced"].data = torch.ones(2, dtype=torch.float64, device="cpu")
    TABLES["learned"].requires_grad_().grad = torch.ones(2, 3, device="cpu").view_as(TABLES["learned"])
    with torch.enable_grad():
        TABLES["used"].sum().backward()


def tensors():
    return [
        (id(each), each.tolist(), each.stride(), each.dtype, each.requires_grad, each.grad, each._version, each.nbytes)
        for each in TABLES.values()
    ]


def optimize():
    for parameter in PART.parameters():
        parameter.grad = torch.ones_like(parameter)
    OPTIMIZER.step()
    SCHEDULE.step()
    SEQUENCE.draw(1)


def optimized():
    tensors = *PART.parameters(), SEQUENCE.quasi
    values = [tensor.tolist() for tensor in tensors], [tensor.grad for tensor in PART.parameters()]
    return values, len(OPTIMIZER.state), OPTIMIZER.param_groups[0]["lr"], SCHEDULE.last_epoch, SEQUENCE.num_generated


def change_arrays():
    OBJECTS[0].append(1)
    OBJECTS[1]["new"] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of NumPy 2.5
        SHAPED.shape = (4,)
    SORTED.sort()
    if LOCKED.flags.writeable:
        LOCKED[0] = 1
        LOCKED.flags.writeable = False


def arrays():
    every = OBJECTS, SHAPED, LOCKED, SORTED
    return [(array.tolist(), array.shape, array.flags.writeable) for array in every]


# names that the code does not spell, and attributes that Python calls

HIDDEN, LISTED_BY_NAME = 0, []


def set_by_text():
    setattr(sys.modules[__name__], "HID" + "DEN", 1)
    setattr(math, "sqrt", abs)  # noqa: B010
    operator.attrgetter("LISTED_BY_NAME")(sys.modules[__name__]).append(1)


def execute():
    exec("global HIDDEN; HIDDEN += 1")


def patch_methods():
    before = torch.Tensor.__matmul__
    torch.Tensor.__matmul__ = lambda a, b: before(a, b)
    Changes.__call__ = lambda self, x: x


@torch.library.custom_op("attnscope_tests::kept", mutates_args=())
def kept(x: torch.Tensor) -> torch.Tensor:
    LISTED_BY_NAME.append(x)
    return x.clone()


@kept.register_fake
def _(x):
    LISTED_BY_NAME.append(x)
    return torch.empty_like(x)


class Frozen(type):
    def __setattr__(cls, name, value):
        raise TypeError("frozen")


class OfFrozen(metaclass=Frozen):
    ids, made = itertools.count(), []


def use_frozen():
    next(OfFrozen.ids)
    OfFrozen.made.append(1)


# the process


def change_interpreter():
    sys.argv.append("more")
    sys.stdin, sys.unraisablehook = io.StringIO(), print
    sys.meta_path.append(types.SimpleNamespace(find_spec=lambda *_: None))
    sys.set_int_max_str_digits(10_000)
    builtins.added_by_a_forward = 1
    copyreg.pickle(Key, lambda key: (Key, ()))
    threading.stack_size(2**20)
    locale.setlocale(locale.LC_ALL, "C")


def interpreter():
    hooks = *map(id, (sys.stdin, sys.unraisablehook)), *map(id, sys.meta_path)
    of_builtins = hasattr(builtins, "added_by_a_forward"), Key in copyreg.dispatch_table
    sizes = sys.get_int_max_str_digits(), threading.stack_size()
    return sys.argv.copy(), hooks, of_builtins, sizes, locale.setlocale(locale.LC_ALL)


def change_logging():
    logger = logging.getLogger("torch")
    logger.propagate, logger.disabled = not logger.propagate, True
    logger.addFilter(abs)
    logging.captureWarnings(True)
    logging.setLogRecordFactory(logging.LogRecord.__call__)


def loggers():
    logger = logging.getLogger("torch")
    of_module = logging._warnings_showwarning, logging._logRecordFactory
    return logger.propagate, logger.disabled, logger.filters.copy(), of_module


def change_torch():
    torch.set_warn_always(True)
    torch.sparse.check_sparse_tensor_invariants.enable()
    torch.backends.nnpack.set_flags(False)
    torch.distributions.Distribution.set_default_validate_args(not torch.distributions.Distribution._validate_args)
    torch.hub.set_dir("elsewhere")
    nn.utils.parametrize.cached().__enter__()
    if torch.autograd.forward_ad._current_level < 0:
        torch.autograd.forward_ad.enter_dual_level()
    torch.jit._state.disable()


def settings_of_torch():
    return (
        torch.is_warn_always_enabled(),
        torch.sparse.check_sparse_tensor_invariants.is_enabled(),
        torch._C._get_nnpack_enabled(),
        torch.distributions.Distribution._validate_args,
        torch.hub._hub_dir,
        nn.utils.parametrize._cache_enabled,
        torch.autograd.forward_ad._current_level,
        torch.jit._state._enabled.enabled,
    )


def leave_timer():
    signal.signal(signal.SIGVTALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_VIRTUAL, 1000)


def run_loop():
    asyncio.run(asyncio.sleep(0))


def loop_of_thread():
    policy = asyncio.events._event_loop_policy
    return policy, policy and vars(policy._local).copy()


OUTSIDE = {
    "counters": (take_numbers, numbers),
    "iterators": (lambda: next(LEFT), left),
    **({} if sys.version_info >= (3, 14) else {"cycle": (lambda: next(CYCLE), left_of_cycle)}),
    "objects": (change_objects, lambda: (OPTIONS.steps, ONCE.is_set(), SHOWN.tolist(), [key.uses for key in KEYS])),
    "files in memory": (
        lambda: (IN_MEMORY.write(b"more"), TEXT.read(1)),
        lambda: (IN_MEMORY.tell(), IN_MEMORY.getvalue(), TEXT.tell()),
    ),
    "tensors": (change_tensors, tensors),
    "optimizer": (optimize, optimized),
    "arrays": (change_arrays, arrays),
    "bits": (lambda: BITS.random_raw(), lambda: str(BITS.state)),
    "text": (set_by_text, lambda: (HIDDEN, math.sqrt, LISTED_BY_NAME.copy())),
    "exec": (execute, lambda: HIDDEN),
    "methods": (patch_methods, lambda: (torch.Tensor.__matmul__, "__call__" in vars(Changes))),
    "operator": (
        lambda: (torch.ops.attnscope_tests.kept(torch.ones(1)), kept(torch.ones(1))),
        lambda: LISTED_BY_NAME.copy(),
    ),
    "metaclass": (use_frozen, lambda: (repr(OfFrozen.ids), OfFrozen.made.copy())),
    "interpreter": (change_interpreter, interpreter),
    "logging": (change_logging, loggers),
    "torch": (change_torch, settings_of_torch),
    "timer": (leave_timer, lambda: signal.getitimer(signal.ITIMER_VIRTUAL)),
    "event loop": (run_loop, loop_of_thread),
    "tracer": (lambda: sys.settrace(lambda *_: None), lambda: sys.gettrace()),
}
"""State outside of a module: a function that changes it, and one that returns it."""


@ways
@pytest.mark.parametrize("place", OUTSIDE)
def test_state_outside_the_module_is_that_of_the_caller(place, settings):
    change, look = OUTSIDE[place]
    before = look()
    assert attnscope.trace(Changes(change), torch.randn(2, 4), **settings).totals.macs == 32
    assert look() == before


def read_line(module, args):
    module.lines.readline()


@ways
def test_a_file_is_read_on_where_the_caller_was(settings, tmp_path):
    path = tmp_path / "lines"
    path.write_text("one\ntwo\nthree\n" * 99)
    with open(path) as of_module, open(path, "rb") as of_function:
        module = Changes(lambda: next(of_function))
        module.lines = of_module
        module.register_forward_pre_hook(read_line)
        attnscope.trace(module, torch.randn(2, 4), **settings)
        assert (of_module.readline(), of_function.readline()) == ("one\n", b"one\n")


MODES = []


class Notes(nn.Linear):
    """A module whose methods note outside of it when they are called."""

    def __init__(self):
        super().__init__(4, 4)

    def train(self, mode=True):
        MODES.append(mode)
        return super().train(mode)

    def __setstate__(self, state):
        MODES.append("copied")
        super().__setstate__(state)


class Makes(nn.Linear):
    made = 0

    def __new__(cls):
        Makes.made += 1
        return super().__new__(cls)

    def __init__(self):
        super().__init__(4, 4)


@ways
@pytest.mark.parametrize("kind", [Notes, Makes])
def test_what_copying_and_evaluation_change_is_as_before(kind, settings):
    module = kind()
    before = MODES.copy(), Makes.made
    attnscope.trace(module, torch.randn(2, 4), **settings)
    assert (MODES, Makes.made) == before


SEEN = []


def see(module, args, output):
    SEEN.append(output)


@ways
def test_hooks_of_every_module_change_nothing_that_lives_on(settings):
    handle = nn.modules.module.register_module_forward_hook(see)
    try:
        attnscope.trace(nn.Linear(4, 4), torch.randn(2, 4), **settings)
    finally:
        handle.remove()
    assert SEEN == []


REGISTERING = """
import copyreg, sys
class Kept: ...
class Finder:
    def find_spec(self, name, path=None, target=None): ...
copyreg.pickle(Kept, lambda kept: (Kept, ()))
finder = Finder()
sys.meta_path.insert(0, finder)
"""


@ways
def test_what_an_import_within_a_forward_registers_stays_as_the_module_does(settings, tmp_path, monkeypatch):
    (tmp_path / "registering.py").write_text(REGISTERING)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", sys.meta_path.copy())

    def load():
        importlib.import_module("registering")

    attnscope.trace(Changes(load), torch.randn(2, 4), **settings)
    made = sys.modules.pop("registering")
    assert copyreg.dispatch_table.pop(made.Kept)
    assert made.finder in sys.meta_path
