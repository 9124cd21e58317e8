"""Spec -> plan, module and inputs: made where they fit, seeded, and told in a line where they do not."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from attnscope.attentions.spec import Spec
from attnscope.core.errors import AttnscopeError, DeviceError, UsageError, ran_out_of_memory
from attnscope.core.sizes import pair, spell_pair
from attnscope.ops.kernels import COMPILED, RUN_EVERYWHERE
from attnscope.plan.backward import least_backward_peak
from attnscope.plan.memory import Memory
from attnscope.plan.plan import Plan
from attnscope.plan.roofline import kernels
from attnscope.profiling.options import Asked

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

FORWARD = Asked(time=False)
"""A forward, and nothing besides."""


OTHERWISE = "type {no_time} for shapes and costs alone, or a smaller {batch}"
"""What to do instead where an attention does not fit."""


def build(spec: Spec, device: "torch.device") -> tuple["nn.Module", "tuple[Tensor, ...]"]:
    """The module of a Spec in evaluation mode, and inputs of random normals."""
    import torch

    dtype = getattr(torch, spec.dtype)
    with torch.device(device):
        module = spec.build().to(dtype).eval()
        return module, tuple(torch.randn(shape).to(dtype) for shape in spec.input_shapes)


@contextmanager
def settled(threads: int, seed: int, device: "torch.device") -> Iterator[None]:
    """Seeded and with this many threads; both are put back at the end."""
    import torch

    from attnscope.profiling.devices import seeded

    before = torch.get_num_threads()
    with seeded(device, seed):
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def needed_bytes(plan: Plan, asked: Asked = FORWARD) -> int:
    """What a run holds at its fullest: what lies there all the while, and the most of what it does one after the other.

    That is the forward and, as far as they are asked for, the operands of a kernel that is measured alone, and the forward
    and the backward of training. What fused kernels have for themselves is not known, and not in it.
    """
    memory, itemsize = Memory(plan), plan.steps[0].itemsize
    fullest = [memory.least_peak]
    if asked.time:
        fullest += [itemsize * kernel.elements for kernel in kernels(plan.steps)]
    if asked.backward:
        fullest += [memory.least_training_peak, least_backward_peak(memory, asked.input_grad)]
    return resident_bytes(plan) + max(fullest)


def needed_together(plans: Sequence[Plan]) -> int:
    """What the forwards of several hold that are built at once and run in turn."""
    return sum(map(resident_bytes, plans)) + max([needed_bytes(plan) - resident_bytes(plan) for plan in plans])


def resident_bytes(plan: Plan) -> int:
    """Parameters and input."""
    return plan.steps[0].itemsize * plan.params + plan.input_bytes


def lacking(need: int, device: "torch.device") -> str | None:
    """`44.7 TiB and cpu has 12.1 GiB free`, where the device has not as many bytes left; None where it has."""
    from attnscope.profiling.devices import free_memory

    free = free_memory(device)
    return None if free is None or need <= free else f"{gigabytes(need)} and {device.type} has {gigabytes(free)} free"


def largest_that_fits(spec: Spec, free: int, asked: Asked = FORWARD) -> str | None:
    """What to ask for so that a run fits in this many bytes: a smaller batch, or else fewer tokens."""
    sized: dict[str, Callable[[int], Spec]] = {
        "batch": lambda size: replace(spec, batch=size),
        spec.SIZE_FIELD: spec.of_size,
    }
    for field, of_size in sized.items():

        def is_too_large(size: int, of_size: Callable[[int], Spec] = of_size) -> bool:
            try:
                return needed_bytes(of_size(size).plan(), asked) > free
            except UsageError:  # larger than a size can be
                return True

        if is_too_large(1):
            continue
        high = 2
        while not is_too_large(high):
            high *= 2
        largest = of_size(bisect_left(range(high), True, lo=high // 2, key=is_too_large) - 1)
        return f"{{{field}}} {spell_pair(pair(getattr(largest, field)), 'x')} at most{_in_place_of(field, spec)}"
    return None


def _in_place_of(field: str, spec: Spec) -> str:
    """`, in place of --image`, where that field contradicts another one of this Spec."""
    given = {name for name, value in vars(spec).items() if value is not None}
    others = [set(pair) - {field} for pair in spec.contradictions(dict.fromkeys({*given, field})) if field in pair]
    return f", in place of {{{others[0].pop()}}}" if others else ""


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

    from attnscope.profiling.kernels import backends_here, reasons, why_not

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
                f"{{kernels}} tries {untried} too"
            ) from None
