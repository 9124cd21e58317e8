"""Spec -> plan, module and inputs: made where they fit, seeded, and told in a line where they do not."""

import warnings
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from attnscope import attentions, networks
from attnscope.asked import Asked
from attnscope.backward import least_backward_peak
from attnscope.bounds import kernels
from attnscope.errors import AttnscopeError, DeviceError, UsageError
from attnscope.memory import Memory
from attnscope.spec import DTYPE_BYTES, Spec, pair, spell_pair
from attnscope.steps import Plan

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

FORWARD = Asked(time=False)
"""A forward, and nothing besides."""


def plan_of(spec: Spec) -> Plan:
    """The steps that this Spec runs, of an attention or of a network."""
    return networks.plan(spec) if isinstance(spec, networks.NetworkSpec) else attentions.plan(spec)


def build_module(spec: Spec) -> "nn.Module":
    """The module of this Spec, an attention or a network."""
    return networks.build(spec) if isinstance(spec, networks.NetworkSpec) else attentions.build(spec)


def build(spec: Spec, device: "torch.device") -> tuple["nn.Module", "tuple[Tensor, ...]"]:
    """The module of a Spec in evaluation mode, and inputs of random normals."""
    import torch

    dtype = getattr(torch, spec.dtype)
    with torch.device(device):
        module = build_module(spec).to(dtype).eval()
        return module, tuple(torch.randn(shape).to(dtype) for shape in spec.input_shapes)


@contextmanager
def settled(threads: int, seed: int) -> Iterator[None]:
    """Seeded and with this many threads; both are put back at the end."""
    import torch

    before = torch.get_num_threads()
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=gpus):
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def needed_bytes(plan: Plan, asked: Asked = FORWARD) -> int:
    """What a run holds at its fullest: parameters, input, and the most of what it does one after the other.

    That is the forward and, as far as they are asked for, the operands of a kernel that is measured alone, the same again
    in float64, and the forward and the backward of training. What fused kernels have for themselves is not known, and not
    in it.
    """
    memory, itemsize = Memory(plan), plan.steps[0].itemsize
    there = itemsize * plan.params + plan.input_bytes
    fullest = [memory.least_peak]
    if asked.time:
        fullest += [itemsize * kernel.elements for kernel in kernels(plan.steps)]
    if asked.kernels:
        fullest.append((there + memory.least_peak) * DTYPE_BYTES["float64"] // itemsize)
    if asked.backward:
        fullest += [memory.least_training_peak, least_backward_peak(memory, asked.input_grad)]
    return there + max(fullest)


def largest_that_fits(spec: Spec, free: int, asked: Asked = FORWARD) -> str | None:
    """What to ask for so that a run fits in this many bytes: a smaller batch, or else fewer tokens."""
    sized: dict[str, Callable[[int], Spec]] = {
        "batch": lambda size: replace(spec, batch=size),
        spec.SIZE_FIELD: spec.of_size,
    }
    for field, of_size in sized.items():

        def is_too_large(size: int, of_size: Callable[[int], Spec] = of_size) -> bool:
            try:
                return needed_bytes(plan_of(of_size(size)), asked) > free
            except UsageError:  # larger than a size can be
                return True

        if is_too_large(1):
            continue
        high = 2
        while not is_too_large(high):
            high *= 2
        largest = of_size(bisect_left(range(high), True, lo=high // 2, key=is_too_large) - 1)
        return f"{{{field}}} {spell_pair(pair(getattr(largest, field)), 'x')} at most"
    return None


def gigabytes(size: int) -> str:
    """A size in words, `44.7 TiB`."""
    import humanize

    return humanize.naturalsize(size, binary=True)


@contextmanager
def told_when_memory_runs_out(device: "torch.device") -> Iterator[None]:
    """Tell in a line when there was less memory than there seemed to be.

    Raises:
        DeviceError: the device ran out of memory.
    """
    import torch

    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise DeviceError(
                f"{device.type} ran out of memory; type {{no_time}} for shapes and costs alone, or a smaller {{batch}}"
            ) from None
        raise


@contextmanager
def told_when_kernel_does_not_run(spec: Spec, device: "torch.device", backward: bool = False) -> Iterator[None]:
    """Raises a DeviceError where the kernel that was asked for does not run, or not backward, and says which do."""
    import torch

    try:
        with warnings.catch_warnings():
            if spec.kernel not in ("eager", "sdpa"):
                warnings.simplefilter("ignore", UserWarning)  # torch warns why a kernel does not run before it says so
            yield
    except (AttnscopeError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if spec.kernel in ("eager", "sdpa"):
            raise
        from attnscope.probes.kernels import backends_here, why_not

        if backward:
            raise DeviceError(
                f"{{kernel}} {spec.kernel} has no backward here ({why_not(error)}); eager, sdpa and math have"
            ) from None
        here = ", ".join(["eager", "sdpa", *backends_here(device), "flex", "compile"])
        raise DeviceError(f"{{kernel}} {spec.kernel} does not run here ({why_not(error)}); there is: {here}") from None
