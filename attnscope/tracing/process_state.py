"""Restore the state of the process that a forward, or a file that is run, may change."""

import builtins
import contextlib
import copyreg
import gc
import locale
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Container, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from operator import is_
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.nn.modules import module as modules
from torch.nn.utils import parametrize
from torch.utils import _device, checkpoint

from attnscope.tracing.restoring import (
    UNKNOWN,
    Restore,
    is_of_import,
    keep_attribute,
    keep_contents,
    keep_names,
    keep_setting,
)
from attnscope.tracing.system_settings import system_settings

HOOKS = [hooks for name, hooks in vars(modules).items() if name.startswith("_global_") and isinstance(hooks, dict)]
"""Hooks of every module."""
FLAGS = (
    "fp32_precision",
    "enabled",
    "benchmark",
    "benchmark_limit",
    "deterministic",
    "allow_tf32",
    "allow_fp16_reduced_precision_reduction",
    "allow_bf16_reduced_precision_reduction",
    "strategy",
    "engine",
)
"""Flags of the backends. The first is restored last, since older ones set it too."""
BACKENDS = (
    "",
    "cudnn",
    "cudnn.conv",
    "cudnn.rnn",
    "cuda.matmul",
    "mkldnn",
    "mkldnn.conv",
    "mkldnn.matmul",
    "opt_einsum",
    "quantized",
)
"""Parts of torch.backends with flags that are attributes."""
LIBRARIES = ("preferred_linalg_library", "preferred_blas_library")
"""Functions of torch.backends.cuda that return a choice of a library, or set it."""
TIMERS = ("ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF")
KERNELS = ("flash_sdp", "mem_efficient_sdp", "math_sdp", "cudnn_sdp")
"""Kernels of fused attention, which functions of torch.backends.cuda enable."""

_one_at_a_time = threading.RLock()


def _renew_lock() -> None:
    global _one_at_a_time
    _one_at_a_time = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)  # another thread of the parent may have held it


@contextmanager
def process_as_before() -> Iterator[None]:
    """Restore the state of the process at the end of a `with` block, also after an error.

    The block runs in one thread at a time: a second one would save the state that the first one has changed.
    """
    with _one_at_a_time, warnings.catch_warnings(), ExitStack() as stack:
        for restore in _restores():
            stack.callback(restore)
        yield


@contextmanager
def modes_as_before() -> Iterator[None]:
    """Restore the modes of this thread at the end of a `with` block, so that contexts around it end their own modes."""
    with ExitStack() as stack:
        for restore in _modes():
            stack.callback(restore)
        yield


@contextmanager
def collector_paused() -> Iterator[None]:
    """Stop the garbage collector within a `with` block whose objects live on.

    Each time that enough of them are new, the collector would search all objects of the process for garbage.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def default_device(device: torch.device) -> Iterator[None]:
    """Make a device the default within a `with` block.

    A forward may set another default. torch refuses that if contexts of devices are nested, so that others are set aside.
    """
    with modes_as_before():
        modes = torch.overrides._get_current_function_mode_stack()
        while torch._C._len_torch_function_stack():
            torch._C._pop_torch_function_stack()
        torch._GLOBAL_DEVICE_CONTEXT.device_context = None
        for mode in modes:
            if not isinstance(mode, _device.DeviceContext):
                torch._C._push_on_torch_function_stack(mode)
        torch.set_default_device(device)
        yield


def _restores() -> Iterator[Restore]:
    """Yield functions that restore one part of the state each. The last one runs first.

    The modes are restored first. In torch 2.5, setting aside a mode that nothing else refers to ends the process, and
    `_flushes_denormals` sets all modes aside.
    """
    yield from _generators()
    yield from _torch_settings()
    yield from _backend_flags()
    yield from _python_settings()
    yield from _modes()


def _generators() -> Iterator[Restore]:
    """Yield functions that restore the generators of Python, NumPy and torch."""
    yield keep_setting(random.getstate, random.setstate)
    if (numpy := sys.modules.get("numpy.random")) is not None:
        yield keep_setting(numpy.get_state, numpy.set_state)
    yield keep_setting(torch.get_rng_state, torch.set_rng_state)
    if torch.cuda.is_initialized():
        yield keep_setting(torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all)


def _torch_settings() -> Iterator[Restore]:
    """Yield functions that restore the settings of torch that are not flags of a backend."""
    yield keep_setting(torch.get_default_dtype, torch.set_default_dtype)
    yield keep_setting(torch.get_num_threads, torch.set_num_threads)
    yield keep_setting(_flushes_denormals, torch.set_flush_denormal)
    yield keep_setting(torch.is_grad_enabled, torch._C._set_grad_enabled)
    yield keep_setting(torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled)
    for device in ("cpu", "cuda"):
        yield keep_setting(torch.is_autocast_enabled, torch.set_autocast_enabled, device)
        yield keep_setting(torch.get_autocast_dtype, torch.set_autocast_dtype, device)
    finds, finds_nan = torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()
    yield lambda: torch.autograd.set_detect_anomaly(finds, finds_nan)
    strict, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    yield lambda: torch.use_deterministic_algorithms(strict, warn_only=warns)
    for name in ("overwrite_module_params_on_conversion", "swap_module_params_on_conversion"):
        future = torch.__future__
        yield keep_setting(getattr(future, f"get_{name}"), getattr(future, f"set_{name}"))
    yield keep_setting(torch.is_warn_always_enabled, torch.set_warn_always)
    for holder, name in (
        (torch.utils.deterministic, "fill_uninitialized_memory"),
        (torch._tensor_str, "PRINT_OPTS"),
        (torch.distributions.Distribution, "_validate_args"),
        (torch.hub, "_hub_dir"),
        (parametrize, "_cache_enabled"),
        (torch.jit._state._enabled, "enabled"),
        (checkpoint, "_checkpoint_debug_enabled"),
    ):
        yield keep_attribute(holder, name)
    for contents in (vars(torch._tensor_str.PRINT_OPTS), parametrize._cache):
        yield keep_contents(contents)
    checks = torch.sparse.check_sparse_tensor_invariants
    yield keep_setting(checks.is_enabled, lambda enabled: checks.enable() if enabled else checks.disable())
    yield keep_setting(torch._C._get_nnpack_enabled, torch._C._set_nnpack_enabled)
    yield keep_setting(torch._C._get_graph_executor_optimize, torch._C._set_graph_executor_optimize)
    yield keep_setting(torch._C._jit_can_fuse_on_cpu, torch._C._jit_override_can_fuse_on_cpu)
    yield keep_setting(torch.multiprocessing.get_sharing_strategy, torch.multiprocessing.set_sharing_strategy)
    yield keep_contents(torch.serialization._package_registry)
    yield _safe_globals()
    yield keep_setting(_nested_autocasts, _leave_autocasts)
    level = forward_ad._current_level
    yield lambda: [forward_ad.exit_dual_level() for _ in range(forward_ad._current_level - level)]
    for hooks in HOOKS:
        yield keep_contents(hooks)
    if hasattr(torch._C._autograd, "_top_saved_tensors_default_hooks"):  # torch 2.5 has no function that returns them
        yield _saved_tensors_hooks()


def _safe_globals() -> Restore:
    """Return a function that restores what `torch.load` accepts; classes of modules imported since stay as these do."""
    serialization = torch.serialization
    before, modules = {*serialization.get_safe_globals()}, set(sys.modules)

    def restore() -> None:
        now = {*serialization.get_safe_globals()}
        after = before | {each for each in now - before if is_of_import(each, modules)}
        if now != after:
            serialization.clear_safe_globals()
            serialization.add_safe_globals([*after])

    return restore


def _nested_autocasts() -> int:
    """Return how many contexts of autocast are active, which torch tells only when the number changes."""
    torch.autocast_increment_nesting()
    return torch.autocast_decrement_nesting()


def _leave_autocasts(count: int) -> None:
    """Leave contexts of autocast that a forward entered, until this number is active. The outermost one has a cache."""
    while _nested_autocasts() > count:
        torch.autocast_decrement_nesting()
    if not count:
        torch.clear_autocast_cache()


def _saved_tensors_hooks() -> Restore:
    """Return a function that removes the hooks of saved tensors that were added since."""
    top: Any = partial(torch._C._autograd._top_saved_tensors_default_hooks, False)
    before = top()

    def restore() -> None:
        while (now := top()) is not None and now != before:
            torch._C._autograd._pop_saved_tensors_default_hooks()

    return restore


def _flushes_denormals() -> bool:
    """Return whether this thread replaces subnormal numbers by zero, which torch can set but not tell."""
    with torch.utils._python_dispatch._disable_current_modes(), torch._C.DisableTorchFunction():
        return not torch.tensor([1e-39], dtype=torch.float32, device="cpu").mul(1).item()


def _modes() -> Iterator[Restore]:
    """Yield functions that restore the modes of this thread, of which the default device is one.

    A forward that sets the default device, or leaves a mode active, changes the order in which the modes end.
    """
    yield keep_contents(vars(torch._GLOBAL_DEVICE_CONTEXT))
    yield partial(setattr, _device, "CURRENT_DEVICE", _device.CURRENT_DEVICE)
    yield _stack("function", lambda mode: torch._C._pop_torch_function_stack())
    yield _stack("dispatch", lambda mode: torch._C._pop_torch_dispatch_stack(getattr(mode, "_mode_key", None)))


def _stack(kind: str, pop: Callable[[Any], object]) -> Restore:
    """Return a function that restores the active modes of a kind; `pop` removes the innermost one."""
    size, at, push = (
        getattr(torch._C, name)
        for name in (f"_len_torch_{kind}_stack", f"_get_{kind}_stack_at", f"_push_on_torch_{kind}_stack")
    )

    def modes() -> list[Any]:
        return [at(place) for place in range(size())]

    before = modes()

    def restore() -> None:
        if [*map(id, modes())] != [*map(id, before)]:
            for mode in reversed(modes()):
                pop(mode)
            for mode in before:
                push(mode)

    return restore


def _backend_flags() -> Iterator[Restore]:
    """Yield functions that restore the flags of torch.backends that this version of torch has."""
    for backend, name in _flags():
        yield keep_setting(partial(_flag, backend, name), partial(setattr, backend, name))
    yield keep_setting(_matmul_precision, torch.set_float32_matmul_precision)
    for kernel in KERNELS:
        enabled, enable = (
            getattr(torch.backends.cuda, name, None) for name in (f"{kernel}_enabled", f"enable_{kernel}")
        )
        if enabled is not None and enable is not None:
            yield keep_setting(enabled, enable)
    for choice in filter(None, (getattr(torch.backends.cuda, name, None) for name in LIBRARIES)):
        yield keep_setting(choice, choice)
    yield keep_setting(torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled)


@cache
def _flags() -> list[tuple[Any, str]]:
    """Return the backends and the names of the flags that this version of torch has."""
    return [(backend, name) for name in FLAGS for backend in map(_backend, BACKENDS) if _has(backend, name)]


def _has(backend: Any, name: str) -> bool:
    try:
        return hasattr(backend, name)
    except RuntimeError:  # an older and a newer interface are mixed
        return True


def _backend(path: str) -> Any:
    """Return a part of torch.backends; None if this version of torch lacks it."""
    found: Any = torch.backends
    for part in filter(None, path.split(".")):
        found = getattr(found, part, None)
    return found


def _flag(backend: Any, name: str) -> Any:
    """Return a flag; UNKNOWN if torch refuses since an older and a newer interface are mixed."""
    try:
        return getattr(backend, name)
    except RuntimeError:
        return UNKNOWN


def _matmul_precision() -> Any:
    """Return torch's float32 matmul precision; UNKNOWN if torch refuses, as in `_flag`."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return UNKNOWN


def _python_settings() -> Iterator[Restore]:
    """Yield functions that restore settings of Python."""
    modules = dict(sys.modules)
    yield from system_settings()
    for contents in (sys.path, sys.argv, os.environ, gc.callbacks):
        yield keep_contents(contents)
    for importers in (sys.meta_path, sys.path_hooks):
        yield _importers(importers, modules)
    yield keep_names(copyreg.dispatch_table, lambda kind: is_of_import(kind, modules))
    for names in (logging._levelToName, logging._nameToLevel, vars(builtins)):
        yield keep_names(names)
    yield _loggers()
    yield keep_setting(partial(locale.setlocale, locale.LC_ALL), partial(locale.setlocale, locale.LC_ALL))
    for get, set_ in ((sys.getprofile, sys.setprofile), (sys.gettrace, sys.settrace)):
        yield _function_of_calls(get, set_)
    yield from _timers()
    yield _event_loop()
    of_threads = threading.gettrace(), threading.getprofile()
    yield partial(threading.settrace, of_threads[0])
    yield partial(threading.setprofile, of_threads[1])
    if (decimal := sys.modules.get("decimal")) is not None:
        for context in (decimal.getcontext(), decimal.DefaultContext, decimal.BasicContext, decimal.ExtendedContext):
            yield _context(context)
    yield lambda: _modules_as_before(modules)
    if threading.current_thread() is threading.main_thread():  # the only one that can change them
        yield _handlers_of_signals()
    yield keep_setting(gc.isenabled, lambda enabled: gc.enable() if enabled else gc.disable())
    yield keep_setting(gc.get_threshold, lambda threshold: gc.set_threshold(*threshold))
    with contextlib.suppress(FileNotFoundError):  # the folder is deleted
        yield keep_setting(os.getcwd, os.chdir)


def _loggers() -> Restore:
    """Return a function that restores the loggers, of which a process has hundreds."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    before = [(logger, *_of_logger(logger)) for logger in loggers if isinstance(logger, logging.Logger)]

    known, modules = set(logging.root.manager.loggerDict), set(sys.modules)

    def restore() -> None:
        imported = sys.modules.keys() - modules  # the logger of a module stays as the module does
        for name, logger in [*logging.root.manager.loggerDict.items()]:
            is_new = name not in known and name.partition(".")[0] not in imported
            if is_new and isinstance(logger, logging.Logger):
                logger.handlers[:], logger.filters[:], logger.propagate, logger.disabled = [], [], True, False
                logger.setLevel(logging.NOTSET)
        for logger, *state in before:
            if _of_logger(logger) != (*state,):
                logger.handlers[:], logger.filters[:], logger.propagate, logger.disabled, level = state
                logger.setLevel(level)

    return restore


def _handlers_of_signals() -> Restore:
    """Return a function that restores the handlers of signals, without those that no Python code has set."""
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}

    def restore() -> None:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)

    return restore


def _of_logger(logger: logging.Logger) -> tuple[Any, ...]:
    return [*logger.handlers], [*logger.filters], logger.propagate, logger.disabled, logger.level


def _function_of_calls(get: Callable[[], Any], set_: Callable[[Any], object]) -> Restore:
    """Return a function that restores the profile or trace function, unless it is unchanged: an equal one would restart."""
    before = get()
    return lambda: None if get() is before else set_(before)


def _timers() -> Iterator[Restore]:
    """Yield functions that stop the timers that are not set now, whose signals the restored handlers do not expect."""
    for which in (getattr(signal, name) for name in TIMERS if hasattr(signal, name)):
        if signal.getitimer(which)[0] == 0:
            yield partial(_stop_timer, which)


def _stop_timer(which: int) -> None:
    if signal.getitimer(which)[0]:
        signal.setitimer(which, 0)


def _event_loop() -> Restore:
    """Return a function that restores the event loop of asyncio of this thread, which `asyncio.run` removes."""
    events = sys.modules.get("asyncio.events")
    if events is None:
        return lambda: None
    policy: Any = getattr(events, "_event_loop_policy", None)
    of_thread: Any = vars(policy._local) if hasattr(policy, "_local") else {}
    before = dict(of_thread)

    def restore() -> None:
        vars(events)["_event_loop_policy"] = policy
        of_thread.clear()
        of_thread.update(before)

    return restore


def _importers(found: list[Any], modules: Container[str]) -> Restore:
    """Return a function that restores the finders of imports, without those of modules that were imported since."""
    before = [*found]

    def restore() -> None:
        kept = [each for each in found if each in before or is_of_import(each, modules)]
        if [each for each in kept if each in before] != before:
            kept = [*before, *[each for each in kept if each not in before]]
        if found != kept:
            found[:] = kept

    return restore


def _context(context: Any) -> Restore:
    """Return a function that restores the arithmetic of the module decimal in this thread."""
    names = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")
    before = context.copy()

    def restore() -> None:
        for name in names:
            setattr(context, name, getattr(before, name))
        context.flags.update(before.flags)
        context.traps.update(before.traps)

    return restore


def _modules_as_before(before: dict[str, ModuleType]) -> None:
    """Restore entries of sys.modules that were replaced or removed, and remove new ones that no import made.

    What a forward imports stays, as it does without a trace: many libraries cannot be imported twice.
    """
    if [*sys.modules] == [*before] and all(map(is_, sys.modules.values(), before.values())):
        return  # as after most forwards; there are thousands of modules
    for name in sys.modules.keys() - before.keys():
        if "." not in name and getattr(sys.modules[name], "__spec__", None) is None:
            del sys.modules[name]
    for name, module in before.items():
        if sys.modules.get(name) is not module:
            sys.modules[name] = module


@contextmanager
def imports_as_before() -> Iterator[None]:
    """Remove the modules of the user's files from `sys.modules` at the end of a `with` block.

    The next file then imports its own. Modules from folders that were on the search path before stay, as libraries do.
    """
    path, before = list(sys.path), dict(sys.modules)
    try:
        yield
    finally:
        added = [folder for folder in sys.path if folder not in path]
        new = sys.modules.keys() - before.keys()
        packages = {name.partition(".")[0] for name in new if _is_in(sys.modules[name], added)}
        for name in new:
            if name.partition(".")[0] in packages:
                del sys.modules[name]
        sys.modules.update({name: module for name, module in before.items() if sys.modules.get(name) is not module})
        sys.path[:] = path


def _is_in(module: ModuleType, folders: list[str]) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and any(Path(file).is_relative_to(folder) for folder in folders if folder)
