"""How long each torch call of a module takes, in place, beside the untouched forward.

A function mode stamps the end of each call. What it costs to watch is measured in the same process, with the caches as
cold as they are in a forward, and taken off for each time that the mode was asked, questions of shape included.
"""

import statistics
from collections.abc import Callable, Sequence
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
from attnscope.tracing.calls import QUESTIONS, Call, makes_tensors, name_of, only_tensors_override

ROUNDS, LOOPS = 5, 20
"""Of measuring what watching costs."""
MOST_TOUCHED, WIDTH = 2**20, 256
"""Numbers that are worked on before each look at the clock: as many as the forward's calls touch on average, but no more
than this; and the width of the rows that they stand in."""


@dataclass(frozen=True)
class AskingCost:
    """What the mode costs a call, in seconds: one that C++ hands over, and one that Python does, which takes longer."""

    builtin_s: float = 0.0
    python_s: float = 0.0


class CallsDifferError(Exception):
    """The timed runs make other calls than the run that told the costs, so that times cannot be put beside them."""


def time_calls(
    device: torch.device,
    forward: Callable[[], Any],
    calls: Sequence[Call],
    budget_s: float,
    progress: Progress | None = None,
) -> Timing:
    """Time the calls of a forward.

    Args:
        device: where it runs.
        forward: runs it once.
        calls: what it calls. Those that were not seen as torch calls get no time of their own.
        budget_s: seconds to measure, without the warm-up.
        progress: called with the share that is done.

    Raises:
        CallsDifferError: the forward makes other calls now.
    """
    clock = CLOCKS[device.type]()
    expected = [call.name for call in calls if call.seen]
    with measuring():
        stamper = _Stamper(clock, keep_names=True)
        stamper.time(forward)
        if stamper.names != expected:
            raise CallsDifferError
        cost = _asking_cost(clock, _touched(calls))

    def chain() -> Timed:
        return _Stamper(clock, cost).time(forward)

    pairs = take_pairs(lambda: run(clock, forward, []), chain, budget_s, cost.builtin_s + clock.empty_s, progress)
    if any(len(timed.seconds) != len(expected) + 1 for timed in pairs.chains):
        raise CallsDifferError
    return statistics_of(pairs)


class _Stamper(TorchFunctionMode):
    """Stamps the end of each call that makes a tensor, and adds up what it cost to be asked until then."""

    def __init__(self, clock: Clock, cost: AskingCost = AskingCost(), keep_names: bool = False) -> None:
        super().__init__()
        self.stamp = clock.stamp
        self.clock, self.cost = clock, cost
        self.stamps: list[Any] = []
        self.spent_s = 0.0
        self.spent_until: list[float] = []
        self.keep_names = keep_names
        self.names: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.spent_s += self.cost.python_s if type(func) is FunctionType else self.cost.builtin_s
        out = func(*args, **kwargs) if kwargs else func(*args)
        name = name_of(func)
        # the first stamp begins the forward: what a clock calls before it is its own
        if self.stamps and name not in QUESTIONS and makes_tensors(out):
            if self.keep_names:
                self.names.append(name)
            self.spent_until.append(self.spent_s)
            self.stamps.append(self.stamp())
        return out

    def time(self, forward: Callable[[], Any]) -> Timed:
        """One run, less what watching it cost."""
        with only_tensors_override(), self:
            timed = run(self.clock, forward, self.stamps)
        sums = [0.0, *self.spent_until, self.spent_s]
        spent = [after - before for before, after in pairwise(sums)]
        return replace(timed, seconds=[max(0.0, s - off) for s, off in zip(timed.seconds, spent, strict=True)])


def _touched(calls: Sequence[Call]) -> int:
    """Numbers that a call reads and writes, on average."""
    touched = sum(call.bytes_read + call.bytes_written for call in calls) // (4 * max(1, len(calls)))
    return min(MOST_TOUCHED, touched)


def _asking_cost(clock: Clock, touched: int) -> AskingCost:
    """What the mode costs calls that do next to nothing, between others that leave the caches as a forward does."""
    if not clock.on_processor:
        return AskingCost()

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

    def cost(call: Callable[[], Any]) -> float:
        return max(0.0, statistics.median(watched(call) - seconds(call) for _ in range(ROUNDS)))

    return AskingCost(cost(lambda: tensor.t()), cost(lambda: F.softmax(tensor, -1)))
