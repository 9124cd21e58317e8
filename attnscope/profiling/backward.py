"""Time the backward of each step in place, and the uninstrumented backward for comparison.

autograd calls a hook on the output of a step right before it runs the backward of that step. A timestamp in this hook ends
the previous step and begins this one. The steps therefore add up to the whole, as in the forward.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from attnscope.plan.step import Step
from attnscope.profiling.clocks import Clock, Timed, run
from attnscope.profiling.hooks import listening
from attnscope.profiling.steps import tensors_of
from attnscope.profiling.timing import (
    Pairs,
    Progress,
    Timing,
    Yardsticks,
    by_best_clock,
    device_type,
    measuring,
    statistics_of,
    take_pairs,
)


def time_backward(
    module: nn.Module, x: tuple[Tensor, ...], budget_s: float, input_grad: bool, progress: Progress | None = None
) -> tuple[Timing, list[bool]]:
    """Return the times of the backward of each step, and for each step whether it has one, as `backward_pairs` does."""
    pairs, has_backward = backward_pairs(module, x, budget_s, input_grad, progress)
    return statistics_of(pairs), has_backward


def backward_pairs(
    module: nn.Module,
    x: tuple[Tensor, ...],
    budget_s: float,
    input_grad: bool,
    progress: Progress | None = None,
    yardsticks: Yardsticks = MappingProxyType({}),
) -> tuple[Pairs, list[bool]]:
    """Time the backward of each step in place, and the whole uninstrumented backward. Forwards are not timed.

    Args:
        module: a module whose steps are tied to methods, in evaluation mode, so that dropout is off.
        x: its inputs.
        budget_s: seconds to measure, forwards included.
        input_grad: whether the inputs need a gradient.
        progress: called with the fraction of the measurement that is done.
        yardsticks: those that are interleaved.

    Returns:
        The runs, with the times of the steps in the order of the forward, and for each step whether it has a backward.
    """
    inputs = tuple(tensor.detach().requires_grad_(input_grad) for tensor in x)
    has_backward = _steps_with_backward(module, inputs)

    def pairs_by(clock: Clock) -> Pairs:
        @_with_gradients()
        def whole() -> Timed:
            return _back(clock, _forward(module, inputs), [])

        @_with_gradients()
        def chain() -> Timed:
            stamps: list[Any] = []
            steps: list[int] = []
            with listening(module, _stamping(clock, stamps, steps)):
                result = _forward(module, inputs)
            back = _back(clock, result, stamps)
            before, *gaps = back.seconds
            seconds = [0.0] * len(has_backward)
            for step, gap in zip(steps, gaps, strict=True):
                seconds[step] += max(0.0, gap - overhead_s)
            return replace(back, seconds=[*seconds, before])

        with measuring(), _with_gradients():
            overhead_s = _hook_overhead(clock)
        return take_pairs(whole, chain, budget_s, overhead_s + clock.stamp_s, progress, yardsticks=yardsticks)

    pairs = by_best_clock(pairs_by, device_type(x))
    module.zero_grad(set_to_none=True)
    return pairs, has_backward


def _stamping(clock: Clock, stamps: list[Any], steps: list[int]) -> Callable[..., Callable[..., Any]]:
    """Return a listener whose steps record a timestamp when the backward reaches their outputs."""
    count = iter(range(2**31))

    def listener(path: str, attention: Any, step: Step, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            index = next(count)

            def stamp(_: Tensor) -> None:
                stamps.append(clock.stamp())
                steps.append(index)

            result = method(*args)
            for tensor in tensors_of(result):
                if tensor.requires_grad:
                    tensor.register_hook(stamp)
            return result

        return call

    return listener


def _steps_with_backward(module: nn.Module, x: tuple[Tensor, ...]) -> list[bool]:
    """Return for each step that runs whether any of its outputs requires a gradient."""
    has_backward: list[bool] = []

    def listener(path: str, attention: Any, step: Step, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            result = method(*args)
            has_backward.append(any(tensor.requires_grad for tensor in tensors_of(result)))
            return result

        return call

    with _with_gradients(), listening(module, listener):
        module(*x)
    return has_backward


@contextmanager
def _with_gradients() -> Iterator[None]:
    with torch.inference_mode(False), torch.enable_grad():
        yield


def _forward(module: nn.Module, x: tuple[Tensor, ...]) -> Tensor:
    module.zero_grad(set_to_none=True)
    for tensor in x:
        tensor.grad = None
    return module(*x)


def _back(clock: Clock, result: Tensor, stamps: list[Any]) -> Timed:
    gradient = torch.ones_like(result)
    return run(clock, lambda: result.backward(gradient), stamps)


def _hook_overhead(clock: Clock) -> float:
    """Measure the overhead of a timestamp hook in seconds of the clock.

    It is the time of a chain of trivial backward steps with hooks, minus the time of the same chain without hooks.
    """
    if not clock.on_processor:
        return 0.0
    length = 100

    def seconds(hooked: bool) -> float:
        stamps: list[Any] = []
        tensor = start = torch.zeros(1, requires_grad=True, device="cpu")
        for _ in range(length):
            tensor = tensor.view(1)
            if hooked:
                tensor.register_hook(lambda _: stamps.append(clock.stamp()))
        return run(clock, lambda: tensor.backward(torch.ones_like(start)), []).total

    costs = sorted((seconds(True) - seconds(False)) / length for _ in range(9))
    return max(0.0, costs[len(costs) // 2])
