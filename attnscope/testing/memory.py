"""Checks of peak memory with torch's profiler, and of memory saved for backward with autograd's hooks."""

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
    "a tensor that forward stores in a variable (holds= of Plan.of), a copy that the step's operation lacks, "
    "or another memory layout or backward of its operator (attnscope/ops)"
)
TOO_MUCH = (
    "a name in holds= of Plan.of that forward does not store, a copy that is a view in torch, "
    "or another memory layout or backward of its operator (attnscope/ops)"
)
MANY = 4
"""Maximum number of tensors that a hint names."""


def hold_memory(spec: Spec) -> None:
    """Check the predicted peak memory of each step, in inference and in the forward of training, with torch's profiler.

    The prediction is a lower bound if the workspace of a kernel or a library is unknown.

    Raises:
        AssertionError: if a step's peak differs from the prediction, or is below a predicted lower bound.
    """
    memory = Memory(spec.plan())
    with built(spec) as (module, x):
        held = held_bytes(module.eval(), *x)
        hold_bytes(spec, "bytes held in inference", memory.plan, memory.live, memory.live_at_least, held)
        held = held_bytes(module.train(), *x)
        hold_bytes(spec, "bytes held in training", memory.plan, memory.training, memory.training_at_least, held)


def hold_saved(spec: Spec) -> None:
    """Check the predicted memory that each step saves for backward with autograd's saved-tensor hooks.

    A storage that several steps save counts for the first of them.

    Raises:
        AssertionError: if the saved bytes differ from the prediction, or are below a predicted lower bound.
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
    """Check the predicted bytes of each step; for a step with several runs, the maximum counts.

    Args:
        spec: Spec that is tested.
        what: name of the quantity, for the message.
        plan: plan with the steps.
        exact: predicted bytes of each step; None if only a lower bound is known.
        least: lower bound of each step, in bytes.
        held: real bytes by the place of each run.

    Raises:
        AssertionError: if the real bytes differ from the prediction, or are below a lower bound.
    """
    for step, predicted, bound in zip(plan.steps, exact, least, strict=True):
        real = max([held.get(where, 0) for where in step.places])
        if predicted is None and bound > real:
            fail(spec, what, step.places[0], f"at least {bound:,}", real, TOO_MUCH + _suspects(plan, real - bound))
        if predicted is not None and not predicted == bound == real:
            hint = TOO_LITTLE if predicted < real else TOO_MUCH
            fail(spec, what, step.places[0], predicted, real, hint + _suspects(plan, real - predicted))


def _suspects(plan: Plan, missing: int) -> str:
    """Return a phrase with the names of tensors that have the missing bytes, or the excess bytes if it is negative."""
    kept = {*plan.holds, *[name for call in plan.calls for name in call.holds]}
    names = {
        name
        for step in plan.steps
        for name, shape in zip((*step.takes, *step.makes), (*step.inputs, *step.outputs), strict=True)
        if step.itemsize * prod(shape) == abs(missing) and (name in kept) == (missing < 0)
    }
    return f"; {abs(missing):,} bytes are as much as {' or '.join(sorted(names))}" if 0 < len(names) <= MANY else ""


def held_bytes(module: nn.Module, *x: Tensor) -> dict[str, int]:
    """Return the peak memory of each step in bytes, without earlier allocations, by the step's place.

    torch's profiler records the allocations. Autograd is enabled if the module is in training mode.
    """

    def listener(path: str, owner: nn.Module, step: Step, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            with record_function(f"step:{place(path, step.name)}"):
                return method(*args)

        return call

    with torch.set_grad_enabled(module.training):
        module(*x)  # fills caches, such as a mask, before the measurement
        with listening(module, listener), profiling() as profiler:
            result = module(*x)
    assert result is not None  # keeps the result alive until the profile ends
    return peak_bytes(profiler)


def kept_bytes(module: nn.Module, *x: Tensor) -> dict[str, int]:
    """Return the bytes that each step saves for backward, by the step's place.

    autograd's saved-tensor hooks report the tensors. Each storage counts once, for the first step that saves it.
    Parameters, buffers, inputs and tensors that a module caches do not count.
    """
    module.train()(*x)
    cached = [value for owner in module.modules() for value in vars(owner).values() if isinstance(value, Tensor)]
    counted = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers(), *cached, *x)}
    kept: dict[str, int] = {}
    alive: list[Tensor] = []
    running: list[str] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if (
            storage.nbytes() and storage.data_ptr() not in counted
        ):  # up to torch 2.5, a checkpoint saves an empty tensor
            counted.add(storage.data_ptr())
            alive.append(tensor)  # so that the address is not reused
            kept[running[-1]] = kept.get(running[-1], 0) + storage.nbytes()
        return tensor

    def listener(path: str, owner: nn.Module, step: Step, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            running.append(place(path, step.name))
            return method(*args)

        return call

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), listening(module, listener):
        module(*x)
    return kept


@contextmanager
def profiling() -> Iterator[Any]:
    """Profile memory on the CPU, with the garbage collector disabled, which would free older memory."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some torch releases warn about the clean-up of the profiler
            with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
                yield profiler
    finally:
        if collecting:
            gc.enable()


def peak_bytes(profiler: Any, until_next: bool = False) -> dict[str, int]:
    """Return the peak memory of each marked step in bytes: within its span, or until the next mark."""
    allocations: list[tuple[int, int]] = []
    spans: list[tuple[int, int, str]] = []
    events = profiler.profiler.kineto_results.experimental_event_tree()[::-1]
    while events:  # in chronological order, which a stable sort keeps for events of the same nanosecond
        event = events.pop()
        events.extend(event.children[::-1])
        if hasattr(event.extra_fields, "alloc_size"):
            allocations.append((event.start_time_ns, event.extra_fields.alloc_size))
        elif event.name.startswith("step:"):
            spans.append((event.start_time_ns, event.end_time_ns, event.name.removeprefix("step:")))
    allocations.sort(key=itemgetter(0))
    spans.sort()
    if until_next:
        spans = [(start, end, where) for (start, _, where), (end, _, _) in itertools.pairwise(spans)]
    held: dict[str, int] = {}
    for start, end, where in spans:
        live = sum([size for moment, size in allocations if moment < start])
        inside = [size for moment, size in allocations if start <= moment <= end]
        held[where] = max(held.get(where, 0), *itertools.accumulate(inside, initial=live))
    return held
