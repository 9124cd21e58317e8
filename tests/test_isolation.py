"""A trace leaves the caller's module, inputs, generators and process as they were."""

import asyncio
import decimal
import functools
import gc
import io
import itertools
import json
import logging
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import textwrap  # noqa: F401
import threading
import warnings
import weakref
from array import array
from collections import ChainMap, OrderedDict, deque
from contextlib import nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from queue import Queue
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import BaseTorchFunctionMode
from torch.utils._python_dispatch import BaseTorchDispatchMode
from torch.utils._pytree import tree_map_only

import attnscope
from attnscope.core.errors import AttnscopeError, UsageError
from attnscope.profiling import timing
from attnscope.profiling.printing import HIDDEN, MOST_LINES, prints_on_stderr
from attnscope.tracing import call_timing, isolation
from attnscope.tracing.isolation import isolated
from attnscope.tracing.process_state import process_as_before
from attnscope.tracing.targets import find_target, parse_input
from attnscope.tracing.trace import ForwardError, TraceOptions, trace_target

CPU, META = torch.device("cpu"), torch.device("meta")
SETTINGS = {"meta": {}, "cpu": {"device": "cpu"}, "timed": {"time": True, "budget": 0.001}}
ways = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)


@pytest.fixture(autouse=True)
def short_measurements(monkeypatch):
    """Measure as little as a timed trace can, since these tests do not read the times."""
    for name, least in {"WARMUP_S": 0.0, "WARMUP_RUNS": 1, "FEWEST_PAIRS": 2, "FEWEST_CLEAN": 1}.items():
        monkeypatch.setattr(timing, name, least)
    for name in ("LOOPS", "ROUNDS"):
        monkeypatch.setattr(call_timing, name, 1)


@pytest.fixture(autouse=True)
def lazy_copies(monkeypatch):
    """Copy the small tensors of these tests lazily, as large ones are."""
    monkeypatch.setattr(isolation, "SMALL", 0)


def values_of(tensor):
    """Return the values of a tensor of any kind."""
    if isinstance(tensor, Wraps):
        return id(tensor.inner), values_of(tensor.inner)
    if tensor.is_nested:
        return [values_of(row) for row in tensor.detach().unbind()]
    if tensor.is_quantized:
        return tensor.int_repr().tolist()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    tensor = tensor.detach().resolve_conj().resolve_neg().contiguous()
    return tensor.view(torch.uint8).tolist() if tensor.dim() else tensor.item()


def of_tensor(tensor):
    """Return all of a tensor that a caller can observe."""
    if nn.parameter.is_lazy(tensor):
        return id(tensor), type(tensor), tensor.requires_grad
    grad = None if not tensor.is_leaf or tensor.grad is None else of_tensor(tensor.grad)
    is_array = tensor.layout is torch.strided and not tensor.is_nested
    return (
        id(tensor),
        str(tensor.device),
        tensor.dtype,
        tensor.layout,
        (tensor.shape, tensor.stride()) if is_array else None,
        values_of(tensor),
        tensor._version,
        tensor.requires_grad,
        tensor.is_inference(),
        grad,
        repr(vars(tensor)),
    )


class Wraps(torch.Tensor):
    """A tensor subclass that wraps another tensor."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, device=inner.device)

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        args, kwargs = tree_map_only(Wraps, lambda wrapped: wrapped.inner, (args, kwargs or {}))
        return tree_map_only(torch.Tensor, Wraps, func(*args, **kwargs))


def of_value(value):
    """Return what a caller can observe of an attribute."""
    if isinstance(value, torch.Tensor):
        return of_tensor(value)
    if isinstance(value, dict):
        return [(key, of_value(item)) for key, item in value.items()]
    if isinstance(value, list | tuple | deque):
        return [of_value(item) for item in value]
    return id(value)


def of_process():
    """Return the state of the process: generators, and settings of Python and torch."""
    backends = torch.backends
    return {
        "random": random.getstate(),
        "numpy": [part.tobytes() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],
        "torch": torch.get_rng_state().numpy().tobytes(),
        "dtype": torch.get_default_dtype(),
        "device": torch.empty(0).device,  # torch 2.5 cannot return the default device once it was reset
        "modes": [*map(id, torch.overrides._get_current_function_mode_stack())],
        "dispatch modes": torch._C._len_torch_dispatch_stack(),
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": (
            torch.is_autocast_enabled("cpu"),
            torch.get_autocast_dtype("cpu"),
            torch.is_autocast_cache_enabled(),
        ),
        "deterministic": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        "precision": (torch.get_float32_matmul_precision(), backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32),
        "cudnn": (backends.cudnn.enabled, backends.cudnn.benchmark, backends.cudnn.deterministic),
        "sdp": (
            backends.cuda.flash_sdp_enabled(),
            backends.cuda.mem_efficient_sdp_enabled(),
            backends.cuda.math_sdp_enabled(),
        ),
        "mkldnn": backends.mkldnn.enabled,
        "fastpath": backends.mha.get_fastpath_enabled(),
        "anomaly": torch.is_anomaly_enabled(),
        "threads": torch.get_num_threads(),
        "filters": list(warnings.filters),
        "showwarning": warnings.showwarning,
        "hooks": [
            [(key, id(hook)) for key, hook in hooks.items()]
            for name, hooks in vars(nn.modules.module).items()
            if name.startswith("_global_") and isinstance(hooks, dict)
        ],
        "patches": (nn.Module.__call__, F.scaled_dot_product_attention, threading.Thread.start),
        "gc": (gc.isenabled(), gc.get_threshold()),
        "path": list(sys.path),
        "environ": dict(os.environ),
        "cwd": os.getcwd(),
        "streams": (id(sys.stdout), id(sys.stderr)),
        "tracer": (id(sys.gettrace()), sys.getprofile()),
        "recursion": sys.getrecursionlimit(),
    }


def fingerprint(module, *values):
    """Return all that a trace must not change: the module, its inputs, and the process."""
    return {
        "modules": [
            (path, type(each), each.training, [(name, of_value(value)) for name, value in vars(each).items()])
            for path, each in module.named_modules()
        ],
        "classes": [sorted(name for name in vars(type(each)) if name != "__slotnames__") for each in module.modules()],
        "inputs": [of_value(value) for value in values],
        **of_process(),
    }


class LazyMask(nn.Linear):
    def forward(self, x):
        if not hasattr(self, "mask"):
            self.register_buffer("mask", torch.ones(x.shape[-1], x.shape[-1]).tril())
        return super().forward(x) @ self.mask


class ScalesItself(nn.Linear):
    def forward(self, x):
        self.weight.data.mul_(0.5)
        with torch.no_grad():
            self.bias.add_(1)
        return super().forward(x)


class AddsInPlace(nn.Module):
    def forward(self, x):
        return x.add_(1)


class KeepsState(nn.Linear):
    state = None

    def forward(self, x):
        before = torch.zeros_like(x) if self.state is None else self.state
        self.state = torch.tanh(super().forward(x + before))
        self.calls = getattr(self, "calls", 0) + 1
        return self.state


class KeepsOnClass(nn.Linear):
    table = None

    def forward(self, x):
        if KeepsOnClass.table is None:
            KeepsOnClass.table = torch.arange(4.0)
        type(self).newest = x
        return super().forward(x) + KeepsOnClass.table


class Merges(nn.Linear):
    """A linear layer with an adapter, which eval() merges into its weight and train() takes out again."""

    def __init__(self, *args):
        super().__init__(*args)
        self.down, self.up = nn.Parameter(torch.randn(2, 4)), nn.Parameter(torch.randn(4, 2))
        self.merged = False

    def train(self, mode=True):
        super().train(mode)
        if self.merged == mode:
            self.weight.data += (-1 if mode else 1) * self.up.data @ self.down.data
            self.merged = not mode
        return self


class RefusesEval(nn.Linear):
    def train(self, mode=True):
        if not mode:
            raise RuntimeError("this layer is only for training")
        return super().train(mode)


class RefusesCopy(nn.Linear):
    def __deepcopy__(self, memo):
        raise TypeError("one of a kind")


class CopiesItself(ScalesItself):
    def __deepcopy__(self, memo):
        return self


class HasLock(ScalesItself):
    def __init__(self, *args):
        super().__init__(*args)
        self.lock, self.draws = threading.Lock(), torch.Generator()

    def forward(self, x):
        with self.lock:
            torch.rand(2, generator=self.draws, device="cpu")
            return super().forward(x)


class Trains(nn.Linear):
    def forward(self, x):
        with torch.enable_grad():
            super().forward(x.detach()).sum().backward()
        return super().forward(x)


class ChangesModes(nn.Linear):
    def forward(self, x):
        self.train()
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        self.register_forward_hook(lambda *_: None)
        self.added = nn.Linear(4, 4)
        return super().forward(x)


class NonLeaf(nn.Linear):
    """A layer with a weight that is the result of an operation, as old parametrizations have it."""

    def __init__(self, *args):
        super().__init__(*args)
        self.scaled = self.weight * 2

    def forward(self, x):
        return super().forward(x) if x.is_meta else F.linear(x, self.scaled)


class Disturbs(nn.Linear):
    """A layer that changes every setting of the process."""

    def forward(self, x):
        random.random(), np.random.rand(), torch.rand(2), torch.manual_seed(7)
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(2)
        torch.set_grad_enabled(True)
        torch.set_autocast_enabled("cpu", True)
        torch.set_autocast_dtype("cpu", torch.float16)
        torch.set_autocast_enabled("cpu", False)
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.mha.set_fastpath_enabled(False)
        torch.autograd.set_detect_anomaly(True)
        warnings.simplefilter("ignore")
        warnings.showwarning = print
        nn.modules.module.register_module_forward_hook(lambda *_: None)
        gc.disable()
        gc.set_threshold(1, 2, 3)
        sys.path.insert(0, "somewhere")
        os.environ["SOMETHING"] = "else"
        sys.setrecursionlimit(5000)
        os.chdir("/")
        return super().forward(x)


class SetsModes(nn.Linear):
    """A layer that sets the default device, and leaves modes active."""

    def forward(self, x):
        torch.set_default_device("cpu")
        BaseTorchFunctionMode().__enter__()
        BaseTorchDispatchMode().__enter__()
        return super().forward(x)


class Hooked(nn.Linear):
    """A layer whose hook, a closure, collects its outputs."""

    def __init__(self, *args):
        super().__init__(*args)
        outputs = []
        self.register_forward_hook(lambda module, args, out: outputs.append(out))


class Tied(nn.Linear):
    """Two layers with one weight, which one of them changes."""

    def __init__(self, *args):
        super().__init__(*args)
        self.twin = ScalesItself(*args)
        self.twin.weight = self.weight

    def forward(self, x):
        return super().forward(self.twin(x))


class HasFile(ScalesItself):
    def __init__(self, *args):
        super().__init__(*args)
        self.log = open(os.devnull, "w")  # noqa: SIM115
        weakref.finalize(self, self.log.close)

    def forward(self, x):
        self.log.write("forward")
        return super().forward(x)


class RunsInThread(ScalesItself):
    def forward(self, x):
        outs = []
        thread = threading.Thread(target=lambda: outs.append(ScalesItself.forward(self, x)))
        thread.start()
        thread.join()
        return outs[0]


class Differentiates(nn.Linear):
    """A layer that computes a gradient with respect to its input."""

    def forward(self, x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(super().forward(x).tanh().sum(), x)[0]


KINDS = [
    Tied,
    HasFile,
    RunsInThread,
    Differentiates,
    nn.Linear,
    LazyMask,
    ScalesItself,
    KeepsState,
    KeepsOnClass,
    Merges,
    RefusesEval,
    RefusesCopy,
    CopiesItself,
    HasLock,
    Trains,
    ChangesModes,
    NonLeaf,
    Disturbs,
    SetsModes,
    Hooked,
]
BUILT = {kind.__name__: functools.partial(kind, 4, 4) for kind in KINDS} | {
    "AddsInPlace": AddsInPlace,
    "BatchNorm": lambda: nn.BatchNorm1d(4),
    "Dropout": nn.Dropout,
    "WeightNorm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
    "SpectralNorm": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)),
    "Lazy": lambda: nn.LazyLinear(3),
    "LSTM": lambda: nn.LSTM(4, 3),
    "MultiheadAttention": lambda: SelfAttention(nn.MultiheadAttention(4, 2, batch_first=True)),
    "Encoder": lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
    "Script": lambda: torch.jit.script(nn.Linear(4, 4)),
    "Exported": lambda: torch.fx.symbolic_trace(nn.Linear(4, 4)),
}


class SelfAttention(nn.Module):
    def __init__(self, attend):
        super().__init__()
        self.attend = attend

    def forward(self, x):
        return self.attend(x, x, x)[0]


class Whole(nn.Module):
    """A module around another one; it may need values, which meta does not have, or fail at the end."""

    def __init__(self, part, needs_values=False, fails=False):
        super().__init__()
        self.part, self.needs_values, self.fails = part, needs_values, fails

    def forward(self, x):
        out = self.part(x)
        if self.needs_values and float(x.sum()) > 1e9:
            return x
        if self.fails:
            raise ValueError("in the end")
        return out


def built(create, seed=0, **way):
    """Return a module in training mode, with gradients, that is the same in each call."""
    torch.manual_seed(seed)
    module = Whole(create(), **way).train()
    for parameter in module.parameters():
        if not nn.parameter.is_lazy(parameter):
            parameter.grad = torch.ones_like(parameter)
    return module


def trained(module, x):
    """Return the output of a training step, and the values of the module after it."""
    with process_as_before():
        torch.manual_seed(1)
        out = module(x.clone())
        out = out[0] if isinstance(out, tuple) else out
        if out.requires_grad:
            out.sum().backward()
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.grad is not None:
                    parameter -= 0.1 * parameter.grad
        return values_of(out), {name: values_of(value) for name, value in module.state_dict().items()}


def unchanged(module, x, settings):
    """Trace a module, and compare it with its fingerprint."""
    before = fingerprint(module, x)
    with pytest.raises(ForwardError, match="in the end") if module.fails else nullcontext():
        attnscope.trace(module, x, **settings)
    after = fingerprint(module, x)
    assert {key: value for key, value in after.items() if value != before[key]} == {}


def check(create, x, settings, seed=0, **way):
    """Trace a module, and compare it with its fingerprint, and its training step with that of an equal module."""
    module = built(create, seed, **way)
    unchanged(module, x, settings)
    if not way.get("fails"):
        assert trained(module, x) == trained(built(create, seed, **way), x)


@ways
@pytest.mark.parametrize("way", [{}, {"needs_values": True}, {"fails": True}], ids=["plain", "needs values", "fails"])
@pytest.mark.parametrize("kind", BUILT)
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:Lazy modules:UserWarning")
def test_a_trace_leaves_everything_as_it_was(kind, way, settings):
    x = torch.randn(2, 3, 4)[:, 1] if kind == "BatchNorm" else torch.randn(2, 3, 4)
    check(BUILT[kind], x, settings, **way)


RUNNABLE = [row for row in itertools.permutations(KINDS, 2) if row[0] is not Disturbs]  # it changes the default dtype
ROWS = random.Random(0).sample(RUNNABLE, 300 - len(BUILT))
"""Modules in a row: with those of BUILT, 300 that differ."""


@pytest.mark.parametrize("row", range(len(ROWS)), ids=lambda row: "-".join(kind.__name__ for kind in ROWS[row]))
def test_traces_of_modules_in_a_row_leave_everything_as_it_was(row):
    def create():
        return nn.Sequential(*[kind(4, 4) for kind in ROWS[row]])

    x, way = torch.randn(2, 4), {"needs_values": row % 3 == 0}
    module = built(create, **way)
    for name, settings in {**SETTINGS, "failing": SETTINGS["cpu"]}.items():
        module.fails = name == "failing"
        unchanged(module, x, settings)
    module.fails = False
    assert trained(module, x) == trained(built(create, **way), x)


TABLE, TABLE_LENGTH, BY_LENGTH, NEWEST, HISTORY = None, 0, {}, [], deque(maxlen=2)
STEPS, SETTINGS_OF = torch.zeros(()), SimpleNamespace()


@functools.lru_cache
def cached(length):
    return torch.arange(float(length)), length


@functools.cache
def cached_forever(length):
    return {"table": torch.arange(float(length))}


class Tables:
    def of(self, length):
        if not hasattr(self, "table"):
            self.table = torch.arange(float(length))
        return self.table

    @functools.lru_cache(maxsize=4)  # noqa: B019
    def kept(self, length):
        return torch.arange(float(length))


TABLES = Tables()


def in_closure():
    table = None

    def of(length):
        nonlocal table
        if table is None:
            table = torch.arange(float(length))
        return table

    return of


closed = in_closure()


def in_attribute(length):
    if not hasattr(in_attribute, "table"):
        in_attribute.table = torch.arange(float(length))
    return in_attribute.table


def in_default(length, tables={}):  # noqa: B006
    return tables.setdefault(length, torch.arange(float(length)))


def in_globals(length):
    global TABLE, TABLE_LENGTH
    if length > TABLE_LENGTH:
        TABLE, TABLE_LENGTH = torch.arange(float(length)), length
    return TABLE[:length]


def in_dictionary(length):
    if length not in BY_LENGTH:
        BY_LENGTH[length] = torch.arange(float(length))
    return BY_LENGTH[length]


def in_list(length):
    if not NEWEST:
        NEWEST.append([torch.arange(float(length))])
    return NEWEST[0][0]


def in_deque(length):
    HISTORY.append(torch.arange(float(length)))
    return sum(HISTORY)


def in_namespace(length):
    if not hasattr(SETTINGS_OF, "table"):
        SETTINGS_OF.table = torch.arange(float(length))
    return SETTINGS_OF.table


def in_tensor(length):
    STEPS.add_(1)
    return STEPS.expand(length)


PLACES = {
    "lru_cache": lambda length: cached(length)[0],
    "cache": lambda length: cached_forever(length)["table"],
    "object": TABLES.of,
    "cached method": TABLES.kept,
    "closure": closed,
    "attribute": in_attribute,
    "default": in_default,
    "globals": in_globals,
    "dictionary": in_dictionary,
    "list": in_list,
    "deque": in_deque,
    "namespace": in_namespace,
    "tensor": in_tensor,
}


class Positions(nn.Linear):
    def __init__(self, table):
        super().__init__(4, 4)
        self.table = table

    @torch.inference_mode(False)
    def forward(self, x):
        return super().forward(x) * self.table(x.shape[-1])


def of_places():
    """Return what the places hold, without those whose caches count hits."""
    closure = [of_value(cell.cell_contents) for cell in closed.__closure__]
    objects = [of_value(vars(each)) for each in (TABLES, SETTINGS_OF, in_attribute)]
    holders = [
        of_value(each) for each in (TABLE, TABLE_LENGTH, BY_LENGTH, NEWEST, HISTORY, STEPS, in_default.__defaults__)
    ]
    return closure, objects, holders


@ways
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("is_warm", [False, True], ids=["empty", "filled"])
def test_tables_outside_the_module_are_those_of_the_caller(place, is_warm, settings):
    module, x = Positions(PLACES[place]), torch.randn(2, 4)
    if is_warm:
        module(x)
    before = of_places()
    report = attnscope.trace(module, x, **settings)
    assert report.totals.macs == 32
    assert of_places() == before
    module(x).sum().backward()
    assert not module(x).is_inference()


class Slotted:
    __slots__ = ("count", "later")

    def __init__(self):
        self.count = 0


ARRAY, BYTES, NUMBERS, SLOTTED = np.zeros(3), bytearray(2), array("d", [1.0]), Slotted()
DRAWS, NUMPY_DRAWS, OLD_NUMPY_DRAWS = random.Random(0), np.random.default_rng(0), np.random.RandomState(0)
TORCH_DRAWS, OF_THREAD, CHAINED, WAITING = torch.Generator(), threading.local(), ChainMap({}), Queue()
OF_CONTEXT = ContextVar("OF_CONTEXT", default=0)


def fill_slots():
    SLOTTED.count += 1
    SLOTTED.later = torch.ones(1)


def bind_name():
    globals()["BOUND_LATER"] = torch.ones(1)


def replace_function():
    relu = F.relu
    F.relu = lambda *args: relu(*args)


def add_function():
    F.added_later = abs


IDS, NUMBERED = itertools.count(5, 2), {"ids": itertools.count(0.5)}


class Numbers:
    ids = itertools.count()


def number_in_closure():
    ids = itertools.count(1)
    return lambda: next(ids), lambda: repr(ids)


def number():
    return next(IDS), next(NUMBERED["ids"]), next(Numbers.ids)


def patch_classes():
    nn.Module.patched = torch.Tensor.patched = torch.ones(1)


def write_array():
    ARRAY[0] += 1


def write_bytes():
    BYTES[0] += 1
    NUMBERS.append(2.0)


def add_handler():
    logging.getLogger("torch").addHandler(logging.NullHandler())
    logging.disable(logging.ERROR)


def replace_stream():
    sys.stdout = sys.stderr = io.StringIO()


def swap_hooks():
    sys.excepthook = threading.excepthook = print


def make_modules():
    sys.modules["made_by_hand"] = sys.modules["textwrap"] = ModuleType("made_by_hand")


def warn_silently():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.warn("only once", stacklevel=1)


def set_hooks_of_threads():
    threading.settrace(lambda *_: None)
    threading.setprofile(lambda *_: None)


OUTSIDE = {
    "array": (write_array, lambda: ARRAY.tolist()),
    "bytes": (write_bytes, lambda: (bytes(BYTES), NUMBERS.tolist())),
    "slots": (fill_slots, lambda: (SLOTTED.count, hasattr(SLOTTED, "later"))),
    "Random": (lambda: DRAWS.random(), lambda: DRAWS.getstate()),
    "NumPy generator": (lambda: NUMPY_DRAWS.random(), lambda: str(NUMPY_DRAWS.bit_generator.state)),
    "RandomState": (lambda: OLD_NUMPY_DRAWS.rand(), lambda: str(OLD_NUMPY_DRAWS.get_state())),
    "Generator": (
        lambda: torch.rand(2, generator=TORCH_DRAWS, device="cpu"),
        lambda: TORCH_DRAWS.get_state().tolist(),
    ),
    "thread": (lambda: vars(OF_THREAD).update(table=1), lambda: dict(vars(OF_THREAD))),
    "ChainMap": (lambda: CHAINED.update(table=1), lambda: dict(CHAINED)),
    "Queue": (lambda: WAITING.put(1), lambda: WAITING.qsize()),
    "context": (lambda: OF_CONTEXT.set(OF_CONTEXT.get() + 1), lambda: OF_CONTEXT.get()),
    "name": (bind_name, lambda: "BOUND_LATER" in globals()),
    "function": (replace_function, lambda: F.relu),
    "new function": (add_function, lambda: hasattr(F, "added_later")),
    "counters": (number, lambda: (id(IDS), *map(repr, (IDS, NUMBERED["ids"], Numbers.ids)))),
    "counter of a closure": number_in_closure(),
    "classes": (patch_classes, lambda: (hasattr(nn.Module, "patched"), hasattr(torch.Tensor, "patched"))),
    "print options": (
        lambda: torch.set_printoptions(precision=2),
        lambda: torch._tensor_str.PRINT_OPTS.precision,
    ),
    "saved tensors": (
        lambda: torch.autograd.graph.saved_tensors_hooks(abs, abs).__enter__(),
        lambda: torch._C._autograd._top_saved_tensors_default_hooks(False),
    ),
    "conversion": (
        lambda: torch.__future__.set_overwrite_module_params_on_conversion(True),
        lambda: torch.__future__.get_overwrite_module_params_on_conversion(),
    ),
    "signals": (
        lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
        lambda: signal.getsignal(signal.SIGTERM),
    ),
    "collector": (lambda: gc.callbacks.append(print), lambda: gc.callbacks.copy()),
    "logging": (add_handler, lambda: (logging.getLogger("torch").handlers.copy(), logging.root.manager.disable)),
    "streams": (replace_stream, lambda: (sys.stdout, sys.stderr)),
    "arithmetic": (
        lambda: setattr(decimal.getcontext(), "prec", 5),
        lambda: (decimal.getcontext().prec, id(decimal.getcontext())),
    ),
    "modules": (make_modules, lambda: (sys.modules["textwrap"], "made_by_hand" in sys.modules)),
    "hooks of threads": (set_hooks_of_threads, lambda: (threading.gettrace(), threading.getprofile())),
    "linear algebra": (
        lambda: torch.backends.cuda.preferred_linalg_library("cusolver"),
        lambda: torch.backends.cuda.preferred_linalg_library(),
    ),
    "shown warnings": (warn_silently, lambda: repr(globals().get("__warningregistry__"))),
    "hooks of errors": (swap_hooks, lambda: (sys.excepthook, threading.excepthook)),
    "profile": (lambda: sys.setprofile(lambda *_: None), lambda: sys.getprofile()),
    "path": (lambda: setattr(sys, "path", [*sys.path]), lambda: id(sys.path)),
    "switches": (lambda: sys.setswitchinterval(0.01), lambda: sys.getswitchinterval()),
    "anomalies": (
        lambda: torch.autograd.set_detect_anomaly(False, check_nan=False),
        lambda: torch.is_anomaly_check_nan_enabled(),
    ),
}
"""State outside of a module: a function that changes it, and one that returns it."""


class Changes(nn.Linear):
    def __init__(self, change):
        super().__init__(4, 4)
        self.change = change

    def forward(self, x):
        self.change()
        return super().forward(x)


@ways
@pytest.mark.parametrize("place", OUTSIDE)
def test_state_outside_the_module_is_that_of_the_caller(place, settings):
    if place == "saved tensors" and torch.__version__ < "2.6":
        pytest.skip("torch 2.5 has no function that returns the hooks of saved tensors")
    change, look = OUTSIDE[place]
    before = look()
    assert attnscope.trace(Changes(change), torch.randn(2, 4), **settings).totals.macs == 32
    assert look() == before


@pytest.fixture(params=["no_grad", "inference", "autocast", "deterministic", "device", "default device", "float64"])
def around(request):
    """Return a context in which a caller may trace."""
    if request.param == "deterministic":
        torch.use_deterministic_algorithms(True)
    elif request.param == "default device":
        torch.set_default_device("meta")
    elif request.param == "float64":
        torch.set_default_dtype(torch.float64)
    yield {
        "no_grad": torch.no_grad,
        "inference": torch.inference_mode,
        "autocast": functools.partial(torch.autocast, "cpu"),
        "device": functools.partial(torch.device, "cpu"),
    }.get(request.param, lambda: torch.device("cpu"))
    torch.use_deterministic_algorithms(False)
    torch.set_default_device(None)
    torch.set_default_dtype(torch.float32)


@ways
@pytest.mark.parametrize("kind", ["KeepsState", "KeepsOnClass", "Merges", "Disturbs", "Encoder"])
def test_a_trace_inside_a_context_leaves_everything_as_it_was(kind, settings, around):
    with torch.device("cpu"):
        module, x = BUILT[kind]().to(torch.float32), torch.randn(2, 3, 4, dtype=torch.float32)
        plain = attnscope.trace(module, x, **settings).totals.macs
    with around():
        before = fingerprint(module, x)
        report = attnscope.trace(module, x, **settings)
        after = fingerprint(module, x)
    assert {key: value for key, value in after.items() if value != before[key]} == {}
    assert report.totals.macs == plain
    trained(module, x)


def quantized_per_channel():
    return torch.quantize_per_channel(torch.randn(5, 5), torch.full((5,), 0.1), torch.zeros(5), 0, torch.qint8)


def rows(**layout):
    return torch.nested.nested_tensor([torch.randn(2, 5), torch.randn(3, 5)], **layout)


def product(tensor, x):
    return tensor @ x


TENSORS = {
    "sparse": (lambda: torch.eye(5).to_sparse(), product, 25),
    "compressed": (lambda: torch.eye(5).to_sparse_csr(), product, 25),
    "quantized": (
        lambda: torch.quantize_per_tensor(torch.randn(5, 5), 0.1, 0, torch.qint8),
        lambda tensor, x: tensor.dequantize() @ x,
        125,
    ),
    "quantized per channel": (quantized_per_channel, lambda tensor, x: tensor.dequantize() @ x, 125),
    "mkldnn": (lambda: torch.randn(5, 5).to_mkldnn(), lambda tensor, x: tensor.to_dense() @ x, 125),
    "nested": (rows, lambda tensor, x: tensor.to_padded_tensor(0.0)[0, :1] + x, 0),
    "jagged": (lambda: rows(layout=torch.jagged), lambda tensor, x: tensor.values()[:5] + x, 0),
    "wrapper": (lambda: Wraps(torch.randn(5, 5)), product, 125),
    "conjugate": (lambda: torch.randn(5, 5, dtype=torch.complex64).mH, lambda tensor, x: (tensor @ (x + 0j)).real, 500),
    "negative": (lambda: torch.randn(5, 5, dtype=torch.complex64).conj().imag, product, 125),
}


class Odd(nn.Linear):
    """A layer with a tensor of a special kind at each place where tensors live."""

    def __init__(self, place, tensor, work):
        super().__init__(5, 6)
        self.place, self.work = place, work
        if place == "buffer":
            self.register_buffer("odd", tensor)
        elif place == "parameter":
            self.odd = nn.Parameter(tensor, requires_grad=False)
        elif place == "attribute":
            self.odd = [tensor]
        elif place == "closure":
            self.work = lambda _, x: work(tensor, x)

    def forward(self, x, odd=None):
        tensor = odd if self.place in ("input", "closure") else self.odd
        return super().forward(self.work(tensor[0] if self.place == "attribute" else tensor, x))


@ways
@pytest.mark.parametrize("kind", TENSORS)
@pytest.mark.parametrize("place", ["buffer", "parameter", "attribute", "closure", "input"])
@pytest.mark.filterwarnings(
    "ignore:Sparse CSR tensor", "ignore:The PyTorch API of nested", "ignore:torch.quantize_per_tensor"
)
def test_tensors_of_every_kind_are_copied(kind, place, settings):
    create, work, macs = TENSORS[kind]
    if (place, kind) == ("input", "nested"):
        pytest.skip("the report cannot spell its shape yet")
    tensor = create()
    module, x = Odd(place, tensor, work), torch.randn(5, 5)
    inputs = (x, tensor) if place == "input" else (x,)
    before, out = fingerprint(module, tensor, *inputs), module(*inputs)
    report = attnscope.trace(module, *inputs, **settings)
    assert report.totals.macs == macs + 150
    after = fingerprint(module, tensor, *inputs)
    assert {key: value for key, value in after.items() if value != before[key]} == {}
    assert module(*inputs).equal(out)


@ways
def test_attributes_of_tensors_are_copied(settings):
    class Tags(nn.Linear):
        def forward(self, x):
            self.weight.tags.append("run")
            self.weight.mask.mul_(2)
            return super().forward(x)

    module = Tags(4, 4)
    module.weight.tags, module.weight.mask = [], torch.ones(4)
    attnscope.trace(module, torch.randn(3, 4), **settings)
    assert (module.weight.tags, module.weight.mask.tolist()) == ([], [1, 1, 1, 1])


@dataclass
class Batch:
    images: torch.Tensor
    sizes: list


class Reads(nn.Module):
    """A module that changes each of its inputs, which share memory, in place."""

    def forward(self, batch, options, first):
        assert type(options) is OrderedDict
        assert first is batch.images
        batch.images.add_(1)
        batch.sizes.append(options.pop("scale"))
        options["view"].mul_(0)
        assert first.is_meta or not first[0].any(), "views of one memory"
        return first @ first


@ways
def test_inputs_of_every_kind_arrive_and_remain(settings):
    images = torch.randn(3, 3, requires_grad=True) * 2
    batch, options = Batch(images, [1, 2]), OrderedDict(scale=2, view=images[0])
    before = of_value(vars(batch)), of_value(options), of_process()
    assert attnscope.trace(Reads(), batch, options, images, **settings).totals.macs == 27
    assert (of_value(vars(batch)), of_value(options), of_process()) == before


def test_a_copy_shares_memory_until_it_is_written():
    module = nn.Linear(1024, 1024)
    there, _ = isolated(module, ((), {}), CPU)
    if not hasattr(torch.Tensor, "_lazy_clone"):
        pytest.skip("this torch has no copy-on-write clones")
    there(torch.randn(2, 1024))
    assert torch._C._is_cow_tensor(there.weight)
    with torch.no_grad():
        there.weight.zero_()
    assert module.weight.any()


class WritesScratch(nn.Linear):
    def __init__(self):
        super().__init__(4, 4)
        self.register_buffer("scratch", torch.empty(0))

    def forward(self, x):
        return torch.mm(super().forward(x), self.weight, out=self.scratch).clone()


@ways
def test_a_forward_can_resize_a_small_buffer(settings, monkeypatch):
    monkeypatch.setattr(isolation, "SMALL", 2**16)
    module, x = WritesScratch().requires_grad_(False), torch.randn(2, 4)
    before = fingerprint(module, x)
    assert attnscope.trace(module, x, **settings).totals.macs == 64
    assert fingerprint(module, x) == before


@ways
@pytest.mark.parametrize("kind", ["ScalesItself", "KeepsState", "Hooked", "Trains"])
def test_a_trace_returns_the_memory_that_its_copies_shared(kind, settings):
    module, x = built(BUILT[kind]), torch.randn(2, 4)
    tensors = [*module.state_dict().values(), x]
    places = [torch._C._data_address(tensor) for tensor in tensors]
    attnscope.trace(module, x, **settings)
    assert [torch._C._data_address(tensor) for tensor in tensors] == places
    assert not any(map(getattr(torch._C, "_is_cow_tensor", lambda tensor: False), tensors))
    x.resize_(9).add_(1)  # torch would refuse this on shared memory


def cannot_clone(tensor):
    raise RuntimeError("this memory belongs to a file")


@pytest.mark.parametrize("device", [CPU, META], ids=str)
@pytest.mark.parametrize("clones", ["lazy", "whole"])
def test_what_is_shared_in_a_module_is_shared_in_its_copy(device, clones, monkeypatch):
    if clones == "whole":
        monkeypatch.setattr(torch.Tensor, "_lazy_clone", cannot_clone, raising=False)
    module = nn.ModuleDict({"one": nn.Linear(3, 3), "two": nn.Linear(3, 3), "three": RefusesCopy(3, 3)})
    module["two"].weight = module["one"].weight
    module["three"].first = module["one"]
    module["two"].register_buffer("row", module["one"].weight.detach()[1])
    module["one"].weight.is_special = True
    there, ((x, again), _) = isolated(module, ((module["two"].row, module["two"].row), {}), device)
    assert there["two"].weight is there["one"].weight is not module["one"].weight
    assert there["three"].first is there["one"]
    assert there["two"].row.untyped_storage()._cdata == there["one"].weight.untyped_storage()._cdata
    assert (x is again is there["two"].row, there["one"].weight.is_special) == (True, True)
    assert {tensor.device for tensor in there.state_dict().values()} == {device}
    assert isinstance(there["one"].weight, nn.Parameter)


@pytest.mark.parametrize("settings", [*SETTINGS.values(), {"device": "meta"}], ids=[*SETTINGS, "explicit"])
@pytest.mark.parametrize("needs_values", [False, True])
def test_a_module_partly_on_meta_is_refused_in_a_line(settings, needs_values):
    module = Whole(nn.Linear(4, 4), needs_values)
    module.extra = nn.Parameter(torch.ones(4, device="meta"))
    expected = "must not be on meta" if settings in ({"device": "cpu"}, SETTINGS["timed"]) else r"\(extra is on meta\)"
    with pytest.raises(UsageError, match=expected):
        attnscope.trace(module, torch.randn(3, 4), **settings)


def test_a_module_wholly_on_meta_is_traced_on_meta():
    module = nn.Linear(4, 4, device="meta")
    report = attnscope.trace(module, torch.randn(3, 4))
    assert (report.totals.macs, report.notes) == (48, [])


def vectorized(function):
    return lambda x: torch.func.vmap(function)(x).sum()


@pytest.mark.parametrize("transform", [torch.func.grad, vectorized], ids=["grad", "vmap"])
def test_a_trace_inside_a_transform_of_functions_counts(transform):
    module, found = nn.Linear(4, 4), []

    def function(x):
        found.append(attnscope.trace(module, x, device="cpu").totals.macs)
        return x.sum()

    transform(function)(torch.zeros(1, 3, 4))
    assert found == [48]


def counts(count=1):
    """Return the MACs of several traces that change every setting."""
    # with its dtype, since a trace in another thread may be changing the default
    module = Disturbs(4, 4, device="meta", dtype=torch.float32).to_empty(device="cpu")
    x = torch.zeros(3, 4, dtype=torch.float32)
    return [
        attnscope.trace(module, x, **settings).totals.macs for settings in [{}, {"device": "cpu"}] for _ in range(count)
    ]


def test_threads_that_trace_at_once_leave_the_process_as_it_was():
    counts()  # torch imports modules that add warning filters
    before, found = of_process(), []
    threads = [threading.Thread(target=lambda: found.append(counts(5))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[48] * 10] * 4
    assert of_process() == before


def test_coroutines_and_workers_of_asyncio_can_trace():
    async def several():
        return await asyncio.gather(*[asyncio.to_thread(counts) for _ in range(3)], asyncio.sleep(0, counts()))

    counts()  # torch imports modules that add warning filters
    before = of_process()
    assert asyncio.run(several()) == [[48, 48]] * 4
    assert of_process() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_can_trace_while_a_thread_of_the_parent_traces():
    inside, forked = threading.Event(), threading.Event()

    class Waits(nn.Linear):
        def __deepcopy__(self, memo):
            inside.set()
            forked.wait(30)
            return Waits(4, 4)

    thread = threading.Thread(target=attnscope.trace, args=(Waits(4, 4), torch.randn(3, 4)))
    thread.start()
    assert inside.wait(30)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        found = pool.apply_async(counts).get(timeout=60)
    forked.set()
    thread.join()
    assert found == [48, 48]


FILE = """
import os
import sys
import torch
from torch import nn
import next_to_it

print("loaded")
os.chdir("/")


@torch.library.custom_op("attnscope_tests::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2


TABLE = torch.arange(4.0)


class Prints(nn.Module):
    def __init__(self):
        super().__init__()
        print("built")
        self.part = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.ones(4, device="cpu"))

    def forward(self, x):
        print("runs")
        return self.part(x) * TABLE * self.scale if float(x.sum()) < 1e9 else x
"""


@pytest.mark.parametrize("options", [[], ["--device", "cpu"], ["--time", "--budget", "0.01"]], ids=SETTINGS)
@pytest.mark.parametrize("form", ["--json", "--format=csv"])
def test_what_a_file_prints_goes_to_stderr_and_it_runs_once(tmp_path, options, form):
    """The file registers an operator, is partly on meta, and needs values: it is built on meta, and again on the CPU."""
    (tmp_path / "prints.py").write_text(FILE)
    (tmp_path / "next_to_it.py").touch()
    done = subprocess.run(
        [sys.executable, "-m", "attnscope", "trace", "prints.py", "--input", "2,4", *options, form],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr.count("loaded")) == (0, 1), done.stderr
    assert {"built", "runs"} <= set(done.stderr.split())
    if form == "--json":
        assert json.loads(done.stdout)["totals"]["macs"] == 32
    else:
        assert "runs" not in done.stdout


@pytest.mark.parametrize("command", ["trace prints.py", "compare prints.py torch.nn:Identity"])
def test_what_a_timed_module_prints_is_on_stderr_and_its_repetitions_are_hidden(tmp_path, command):
    (tmp_path / "prints.py").write_text(FILE)
    (tmp_path / "next_to_it.py").touch()
    done = subprocess.run(
        [sys.executable, "-m", "attnscope", *command.split(), "--input", "2,4", "--time", "--budget", "0.1", "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["command"].startswith(f"attnscope {command}")
    assert MOST_LINES // 2 < done.stderr.split().count("runs") <= MOST_LINES + 5  # a contender is traced before
    assert done.stderr.count(HIDDEN) == 1


def test_all_lines_of_code_that_runs_once_are_shown(capsys):
    with prints_on_stderr():
        print("\n".join(map(str, range(2 * MOST_LINES))))
    assert capsys.readouterr() == ("", "".join(f"{count}\n" for count in range(2 * MOST_LINES)))


def test_lines_of_a_measurement_after_the_first_ones_are_hidden(capsys):
    with prints_on_stderr(repeats=True):
        for count in range(MOST_LINES // 3):
            print("first", "second", sep="\n", end="")
            sys.stdout.writelines(["\n", f"{count}\n"])
        print("no more")
    print("after")
    shown = capsys.readouterr()
    lines = [line for count in range(MOST_LINES // 3) for line in ("first", "second", str(count))]
    assert shown.err == "\n".join(lines) + "\n" + HIDDEN
    assert shown.out == "after\n"


@pytest.mark.parametrize("fails", [False, True])
def test_a_file_leaves_no_modules_and_folders(tmp_path, fails):
    (tmp_path / "prints.py").write_text(FILE.replace("tests::twice", f"tests::twice_{fails}") + "raise OSError" * fails)
    (tmp_path / "next_to_it.py").touch()
    modules, before = dict(sys.modules), of_process()
    target = find_target(f"{tmp_path}/prints.py", {}, [parse_input("2,4")])
    options = TraceOptions(False, None, "module", None, None, 1.0, 1, 0, None)
    with pytest.raises(AttnscopeError, match="OSError") if fails else nullcontext():
        trace_target(target, options)
    assert of_process() == before
    assert {"prints", "next_to_it"} & sys.modules.keys() == set()
    assert {name for name in modules if sys.modules.get(name) is not modules[name]} == set()


class Instances(OrderedDict):
    """A dictionary of classes that returns an instance, as the activations of transformers."""

    def __getitem__(self, key):
        return super().__getitem__(key)()


ACTIVATIONS = Instances(gelu=nn.GELU, relu=nn.ReLU)


class Activated(nn.Module):
    def forward(self, x):
        ACTIVATIONS["tanh"] = nn.Tanh
        return ACTIVATIONS["gelu"](x)


def test_a_dictionary_with_methods_of_its_own_is_as_before():
    attnscope.trace(Activated(), torch.randn(2, 3))
    assert [*OrderedDict.items(ACTIVATIONS)] == [("gelu", nn.GELU), ("relu", nn.ReLU)]
    assert isinstance(ACTIVATIONS["relu"], nn.ReLU)


class Raising:
    """An object without attributes whose access to a missing one raises, as those that pydantic puts into its classes."""

    __slots__ = ()

    def __getattr__(self, name):
        raise RuntimeError(name)


RAISING = Raising()


class UsesRaising(nn.Module):
    def forward(self, x):
        return x if RAISING is None else x + 1


def test_an_object_whose_attributes_raise_is_passed_by():
    assert attnscope.trace(UsesRaising(), torch.zeros(2)).totals.other_flops == 2
