"""Time each torch call of a module in place, and the uninstrumented forward for comparison.

A function mode records a timestamp at the end of each call. Its overhead is measured in the same process, with caches as
cold as in a forward. It is subtracted for each call that the mode handles, including queries of a shape.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from attnscope.profiling.clocks import CLOCKS, Clock, Timed, run
from attnscope.profiling.timing import Progress, Timing, measuring, statistics_of, take_pairs
from attnscope.tracing.calls import (
    QUESTIONS,
    Call,
    flex_attention_as_a_call,
    makes_tensors,
    name_of,
    only_tensors_override,
)

ROUNDS, LOOPS = 5, 20
"""Rounds of measuring the overhead, and calls in each round."""
MOST_TOUCHED, WIDTH = 2**20, 256
"""The largest number of elements that are computed before each timestamp of the overhead, and the length of their rows.

The number of elements is otherwise the average that a call of the forward reads and writes.
"""


@dataclass(frozen=True)
class Overhead:
    """Overhead of the mode per call in seconds, for calls that C++ dispatches and for slower ones that Python does."""

    builtin_s: float = 0.0
    python_s: float = 0.0


class CallsDifferError(Exception):
    """An error for timed runs whose calls differ from those of the run that counted costs, so that no times match."""


def time_calls(
    device: torch.device,
    prepared: Callable[[], Callable[[], Any]],
    calls: Sequence[Call],
    budget_s: float,
    progress: Progress | None = None,
) -> Timing:
    """Time the calls of a forward.

    Args:
        device: the device on which it runs.
        prepared: prepares a run of the forward, and returns a function that runs it once.
        calls: the calls that it makes. Operators that ran outside any torch call have no times.
        budget_s: seconds to measure, without the warm-up.
        progress: called with the fraction of the measurement that is done.

    Returns:
        The times of the torch calls in their order.

    Raises:
        CallsDifferError: the forward makes different calls in this run.
    """
    clock = CLOCKS[device.type]()
    expected = [call.name for call in calls if call.seen]
    silent = frozenset(call.name for call in calls if call.seen and not call.outputs)
    stamper = _Stamper(clock, silent=silent, keep_names=True)
    ready = _ready
    try:
        with ready():
            stamper.time(prepared())
    except Exception as error:
        if not _is_compilers(error):
            raise
        ready, stamper = _ready_without_compiler, _Stamper(clock, silent=silent, keep_names=True)
        with ready():
            stamper.time(prepared())
    with ready():
        if stamper.names != expected:
            raise CallsDifferError
        overhead = _overhead(clock, _touched(calls))

    def chain() -> Timed:
        return _Stamper(clock, overhead, silent).time(prepared())

    stamp_s = overhead.builtin_s + clock.stamp_s
    pairs = take_pairs(lambda: run(clock, prepared(), []), chain, budget_s, stamp_s, progress, ready=ready)
    if any(len(timed.seconds) != len(expected) + 1 for timed in pairs.chains):
        raise CallsDifferError
    return statistics_of(pairs)


@contextmanager
def _ready() -> Iterator[None]:
    """Prepare a measurement within a `with` block, as `measuring` does, but allow the forward to compute gradients."""
    with measuring(), torch.inference_mode(False), torch.no_grad(), flex_attention_as_a_call():
        yield


@contextmanager
def _ready_without_compiler() -> Iterator[None]:
    """Prepare a measurement as `_ready` does, and run operators such as cond as they are; torch compiles them otherwise."""
    with _ready(), torch.compiler.set_stance("force_eager"):
        yield


def _is_compilers(error: BaseException | None) -> bool:
    """Return whether an error of a forward comes from torch's compiler, which cannot compile within a mode."""
    while error is not None:
        if type(error).__module__.startswith("torch._dynamo"):
            return hasattr(torch.compiler, "set_stance")
        error = error.__cause__
    return False


class _Stamper(TorchFunctionMode):
    """A mode that records a timestamp at the end of each call that is a row, and its own overhead until then.

    A call is a row if it returns a tensor, or if its name is in `silent`, the names of those that return none.
    """

    def __init__(
        self,
        clock: Clock,
        overhead: Overhead = Overhead(),
        silent: frozenset[str] = frozenset(),
        keep_names: bool = False,
    ) -> None:
        super().__init__()
        self.stamp = clock.stamp
        self.clock, self.overhead, self.silent = clock, overhead, silent
        self.stamps: list[Any] = []
        self.spent_s = 0.0
        self.spent_until: list[float] = []
        self.keep_names = keep_names
        self.names: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.spent_s += self.overhead.python_s if type(func) is FunctionType else self.overhead.builtin_s
        out = func(*args, **kwargs) if kwargs else func(*args)
        name = name_of(func)
        # calls before the first timestamp are those of the clock
        if self.stamps and name not in QUESTIONS and (name in self.silent or makes_tensors(out)):
            if self.keep_names:
                self.names.append(name)
            self.spent_until.append(self.spent_s)
            self.stamps.append(self.stamp())
        return out

    def time(self, forward: Callable[[], Any]) -> Timed:
        """Run the forward once, and return its times without the overhead of the mode."""
        with only_tensors_override(), self:
            timed = run(self.clock, forward, self.stamps)
        sums = [0.0, *self.spent_until, self.spent_s]
        spent = [after - before for before, after in pairwise(sums)]
        return replace(timed, seconds=[max(0.0, s - off) for s, off in zip(timed.seconds, spent, strict=True)])


def _touched(calls: Sequence[Call]) -> int:
    """Return the average number of elements that a call reads and writes, at most MOST_TOUCHED."""
    touched = sum(call.bytes_read + call.bytes_written for call in calls) // (4 * max(1, len(calls)))
    return min(MOST_TOUCHED, touched)


def _overhead(clock: Clock, touched: int) -> Overhead:
    """Measure the overhead of the mode on calls that do almost nothing.

    Other calls run in between, so that the caches are in the same state as in a forward.

    Args:
        clock: the clock of the device.
        touched: number of elements that the calls in between work on.
    """
    if not clock.on_processor:
        return Overhead()

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float32, device="cpu")

    tensor, weight = randn(2, 2), randn(WIDTH, WIDTH)
    x = randn(max(1, touched // WIDTH), WIDTH)

    def work() -> None:
        F.gelu(F.layer_norm(F.linear(x, weight), (WIDTH,))).softmax(-1).t().contiguous()

    def seconds(call: Callable[[], Any]) -> float:
        samples = []
        for _ in range(LOOPS):
            work()
            start = clock.stamp()
            call()
            samples += clock.seconds([start, clock.stamp()])
        return statistics.median(samples)

    def watched(call: Callable[[], Any]) -> float:
        stamper = _Stamper(clock)
        stamper.stamps.append(clock.stamp())
        with stamper:
            return seconds(call)

    def overhead(call: Callable[[], Any]) -> float:
        return max(0.0, statistics.median(watched(call) - seconds(call) for _ in range(ROUNDS)))

    return Overhead(overhead(lambda: tensor.t()), overhead(lambda: F.softmax(tensor, -1)))
