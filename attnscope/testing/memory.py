"""Checks of the bytes that are held and kept, by torch's profiler and by autograd's hooks, against the plan."""

import gc
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function

from attnscope.attentions.spec import Spec
from attnscope.plan.memory import Memory
from attnscope.plan.plan import Plan, place
from attnscope.plan.step import Step
from attnscope.profiling.hooks import listening
from attnscope.testing.comparison import built, fail

TOO_LITTLE = (
    "a tensor that forward keeps in a variable (holds= of Plan.of), a copy that the step's operation does not make, "
    "or another layout or backward of its operator (attnscope/ops)"
)
TOO_MUCH = (
    "a name in holds= of Plan.of that forward does not keep, an operation that copies what torch views, "
    "or another layout or backward of its operator (attnscope/ops)"
)
MANY = 4
"""A hint that names more tensors than these helps nobody."""


def hold_memory(spec: Spec) -> None:
    """Hold the fullest moment of each step, in inference and in the forward of training, against torch's profiler.

    Where a kernel or a library holds more than is known, the prediction is a lower bound.

    Raises:
        AssertionError: a step holds another number of bytes than is predicted, or fewer than the lower bound.
    """
    memory = Memory(spec.plan())
    with built(spec) as (module, x):
        held = held_bytes(module.eval(), *x)
        hold_bytes(spec, "bytes held in inference", memory.plan, memory.live, memory.live_at_least, held)
        held = held_bytes(module.train(), *x)
        hold_bytes(spec, "bytes held in training", memory.plan, memory.training, memory.training_at_least, held)


def hold_saved(spec: Spec) -> None:
    """Hold what each step is the first to save for the backward against autograd's saved-tensor hooks.

    Raises:
        AssertionError: a step saves another number of bytes than is predicted, or fewer than the lower bound.
    """
    plan = spec.plan()
    memory = Memory(plan)
    with built(spec) as (module, x):
        kept = kept_bytes(module, *x)
    hold_bytes(spec, "bytes saved for the backward", plan, memory.saved, memory.saved_at_least, kept)
    real = sum(kept.values())
    if real < memory.least_kept or memory.kept not in (None, real):
        fail(spec, "bytes saved for the backward", "all steps", memory.least_kept, real, TOO_LITTLE)


def hold_bytes(
    spec: Spec,
    what: str,
    plan: Plan,
    exact: Sequence[int | None],
    least: Sequence[int],
    held: Mapping[str, int],
) -> None:
    """Hold the bytes of each step, of its several runs the most, against what is predicted of them.

    Args:
        spec: what is tested.
        what: the quantity, for the message.
        plan: the steps.
        exact: the prediction for each step; None if it is a lower bound.
        least: the lower bound for each step.
        held: the real bytes by the place of each run.

    Raises:
        AssertionError: they differ.
    """
    for step, known, bound in zip(plan.steps, exact, least, strict=True):
        real = max([held.get(where, 0) for where in step.places])
        if known is None and bound > real:
            fail(spec, what, step.places[0], f"at least {bound:,}", real, TOO_MUCH + _suspects(plan, real - bound))
        if known is not None and not known == bound == real:
            hint = TOO_LITTLE if known < real else TOO_MUCH
            fail(spec, what, step.places[0], known, real, hint + _suspects(plan, real - known))


def _suspects(plan: Plan, missing: int) -> str:
    """Return the names of the tensors that have the missing bytes, in words; of those too many, if it is negative."""
    kept = {*plan.holds, *[name for call in plan.calls for name in call.holds]}
    names = {
        name
        for step in plan.steps
        for name, shape in zip((*step.takes, *step.makes), (*step.inputs, *step.outputs), strict=True)
        if step.itemsize * prod(shape) == abs(missing) and (name in kept) == (missing < 0)
    }
    return f"; {abs(missing):,} bytes are as much as {' or '.join(sorted(names))}" if 0 < len(names) <= MANY else ""


def held_bytes(module: nn.Module, *x: Tensor) -> dict[str, int]:
    """Return the bytes at the fullest moment of each step, beyond what was there before, by the place of the step.

    torch's profiler counts them. Gradients are recorded if the module is in training mode.
    """

    def listener(path: str, owner: nn.Module, step: Step, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            with record_function(f"step:{place(path, step.name)}"):
                return method(*args)

        return call

    with torch.set_grad_enabled(module.training):
        module(*x)  # what a module makes once and keeps, such as a mask, is there before
        with listening(module, listener), profiling() as profiler:
            result = module(*x)
    assert result is not None  # alive until the profile is over
    return fullest_moments(profiler)


def kept_bytes(module: nn.Module, *x: Tensor) -> dict[str, int]:
    """Return the bytes that each step is the first to save for the backward, each storage once, by the place of the step.

    autograd's hooks tell them. Parameters, inputs, and what a module makes once and keeps are not in them.
    """
    module.train()(*x)
    lasting = [value for owner in module.modules() for value in vars(owner).values() if isinstance(value, Tensor)]
    known = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers(), *lasting, *x)}
    kept: dict[str, int] = {}
    alive: list[Tensor] = []
    now: list[str] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            known.add(storage.data_ptr())
            alive.append(tensor)  # so that nothing else comes to lie there
            kept[now[-1]] = kept.get(now[-1], 0) + storage.nbytes()
        return tensor

    def listener(path: str, owner: nn.Module, step: Step, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            now.append(place(path, step.name))
            return method(*args)

        return call

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), listening(module, listener):
        module(*x)
    return kept


@contextmanager
def profiling() -> Iterator[Any]:
    """Profile memory on the CPU, without the garbage collector: what it frees was there before."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of its own profiler's clean-up in some releases
            with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
                yield profiler
    finally:
        if collecting:
            gc.enable()


def fullest_moments(profiler: Any, until_the_next: bool = False) -> dict[str, int]:
    """Return the bytes at the fullest moment of each step that was marked: of its span, or until the next one is marked."""
    allocations: list[tuple[int, int]] = []
    spans: list[tuple[int, int, str]] = []
    events = profiler.profiler.kineto_results.experimental_event_tree()[::-1]
    while events:  # in the order of time, so that a sort leaves those of one nanosecond as they came
        event = events.pop()
        events.extend(event.children[::-1])
        if hasattr(event.extra_fields, "alloc_size"):
            allocations.append((event.start_time_ns, event.extra_fields.alloc_size))
        elif event.name.startswith("step:"):
            spans.append((event.start_time_ns, event.end_time_ns, event.name.removeprefix("step:")))
    allocations.sort(key=itemgetter(0))
    spans.sort()
    if until_the_next:
        spans = [(start, end, where) for (start, _, where), (end, _, _) in itertools.pairwise(spans)]
    held: dict[str, int] = {}
    for start, end, where in spans:
        live = sum([size for moment, size in allocations if moment < start])
        inside = [size for moment, size in allocations if start <= moment <= end]
        held[where] = max(held.get(where, 0), *itertools.accumulate(inside, initial=live))
    return held
