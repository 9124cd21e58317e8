"""Spec -> plan, module and inputs: made where they fit, seeded, and told in a line where they do not."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from attnscope import attentions, networks
from attnscope.errors import AttnscopeError, DeviceError, ran_out_of_memory
from attnscope.memory import Memory
from attnscope.spec import COMPILED, LARGEST, RUN_EVERYWHERE, Spec
from attnscope.steps import Plan

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


OTHERWISE = "type {no_time} for shapes and costs alone, or a smaller {batch}"
"""What to do instead where an attention does not fit."""


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
def settled(threads: int, seed: int, device: "torch.device") -> Iterator[None]:
    """Seeded and with this many threads; both are put back at the end."""
    import torch

    from attnscope.probes.device import seeded

    before = torch.get_num_threads()
    with seeded(device, seed):
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def needed_bytes(plan: Plan) -> int:
    """What a run allocates: parameters, input and the fullest moment of the forward."""
    return plan.steps[0].itemsize * plan.params + plan.input_bytes + Memory(plan).least_peak


def lacking(need: int, device: "torch.device") -> str | None:
    """`44.7 TiB and cpu has 12.1 GiB free`, where the device has not as many bytes left; None where it has."""
    from attnscope.probes.device import free_memory

    free = free_memory(device)
    return None if free is None or need <= free else f"{gigabytes(need)} and {device.type} has {gigabytes(free)} free"


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
def told_when_memory_runs_out(device: "torch.device", otherwise: str = OTHERWISE) -> Iterator[None]:
    """Tell in a line when there was less memory than there seemed to be, and what to do instead.

    Raises:
        DeviceError: the device ran out of memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not ran_out_of_memory(error):
            raise
        raise DeviceError(f"{device.type} ran out of memory; {otherwise}") from None


@contextmanager
def told_when_kernel_does_not_run(spec: Spec, device: "torch.device", backward: bool = False) -> Iterator[None]:
    """Raises a DeviceError where the kernel that was asked for does not run, or not backward, and says which do."""
    import torch

    from attnscope.probes.kernels import backends_here, reasons, why_not

    with reasons(spec.kernel) as said:
        try:
            yield
        except AttnscopeError:
            raise
        except Exception as error:
            if spec.kernel in RUN_EVERYWHERE or ran_out_of_memory(error):
                raise
            why = why_not(error, said)
            if backward:
                raise DeviceError(
                    f"{{kernel}} {spec.kernel} has no backward here ({why}); eager, sdpa and math have"
                ) from None
            here = [*RUN_EVERYWHERE, *backends_here(device, getattr(torch, spec.dtype))]
            untried = " and ".join(kernel for kernel in COMPILED if kernel != spec.kernel)
            raise DeviceError(
                f"{{kernel}} {spec.kernel} does not run here ({why}); there is: "
                f"{', '.join(kernel for kernel in here if kernel != spec.kernel)}; "
                f"attnscope vit --kernels tries {untried} too"
            ) from None
