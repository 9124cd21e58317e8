"""Spec -> plan, module and inputs: made where they fit, seeded, and told in a line where they do not."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from attnscope import attentions, networks
from attnscope.errors import AttnscopeError, DeviceError
from attnscope.memory import Memory
from attnscope.spec import LARGEST, Spec
from attnscope.steps import Plan

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


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


def needed_bytes(plan: Plan) -> int:
    """What a run allocates: parameters, input and the fullest moment of the forward."""
    return plan.steps[0].itemsize * plan.params + plan.input_bytes + Memory(plan).least_peak


def largest_that_fits(spec: Spec, free: int) -> str | None:
    """What to ask for so that a run fits in this many bytes: a smaller batch, or else fewer tokens."""
    for name, build_spec in (("batch", lambda size: replace(spec, batch=size)), (spec.SIZE_FIELD, spec.of_size)):
        low, high = 0, LARGEST
        while low < high:
            middle = (low + high + 1) // 2
            fits = needed_bytes(plan_of(build_spec(middle))) <= free
            low, high = (middle, high) if fits else (low, middle - 1)
        if low:
            return f"{{{name}}} {low} at most"
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
