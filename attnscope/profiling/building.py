"""Spec -> plan, module and inputs: built if they fit, seeded; one line says why and what to do if they do not."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from attnscope.attentions.spec import Spec, kind, own_fields
from attnscope.core.errors import AttnscopeError, DeviceError, UsageError, exceeds_addresses, ran_out_of_memory
from attnscope.core.sizes import Pair, pair, spell_pair
from attnscope.ops.kernels import COMPILED, RUN_EVERYWHERE
from attnscope.plan.backward import least_backward_peak
from attnscope.plan.memory import Memory
from attnscope.plan.plan import Plan
from attnscope.plan.roofline import kernels
from attnscope.profiling.options import RunOptions

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

FORWARD = RunOptions(time=False)
"""A forward alone."""
OTHERWISE = "type {no_time} for shapes and costs alone, or a smaller {batch}"
"""What to do instead if an attention does not fit."""


def build(spec: Spec, device: "torch.device") -> tuple["nn.Module", "tuple[Tensor, ...]"]:
    """The module of a Spec in evaluation mode, and inputs of random normals."""
    import torch

    dtype = getattr(torch, spec.dtype)
    with torch.device(device):
        module = spec.build().to(dtype).eval()
        return module, tuple(torch.randn(shape).to(dtype) for shape in spec.input_shapes)


@contextmanager
def settled(threads: int, seed: int, device: "torch.device") -> Iterator[None]:
    """Seed torch and set its number of threads for the length of a with block, and restore both."""
    import torch

    from attnscope.profiling.devices import seeded

    before = torch.get_num_threads()
    with seeded(device, seed):
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def needed_bytes(plan: Plan, options: RunOptions = FORWARD) -> int:
    """Return the peak memory of a run in bytes: parameters and input, and the most that any part of the run holds.

    The parts are the forward and, if the options request them, the operands of a kernel that is measured alone, and the
    forward and the backward of training. What fused kernels allocate internally is not known, and not included.
    """
    memory, itemsize = Memory(plan), plan.steps[0].itemsize
    fullest = [memory.least_peak]
    if options.time:
        fullest += [itemsize * kernel.elements for kernel in kernels(plan.steps)]
    if options.backward:
        fullest += [memory.least_training_peak, least_backward_peak(memory, options.input_grad)]
    return resident_bytes(plan) + max(fullest)


def needed_together(plans: Sequence[Plan]) -> int:
    """Return the peak memory in bytes of several forwards that are built at once and run in turn."""
    return sum(map(resident_bytes, plans)) + max([needed_bytes(plan) - resident_bytes(plan) for plan in plans])


def resident_bytes(plan: Plan) -> int:
    """Return the bytes of parameters and input."""
    return plan.steps[0].itemsize * plan.params + plan.input_bytes


def shortage(need: int, device: "torch.device") -> str | None:
    """Return `44.7 TiB and cpu has 12.1 GiB free` if the device has fewer bytes free than needed, else None."""
    from attnscope.profiling.devices import free_memory

    free = free_memory(device)
    return None if free is None or need <= free else f"{gigabytes(need)} and {device.type} has {gigabytes(free)} free"


def check_fit(spec: Spec, plan: Plan, options: RunOptions, device: "torch.device") -> None:
    """Refuse a run that does not fit in the memory of its device, before anything is allocated.

    Raises:
        DeviceError: the run needs more memory than the device has free; the line says what would fit.
    """
    from attnscope.profiling.devices import free_memory

    short = shortage(needed_bytes(plan, options), device)
    if short is None:
        return
    free = free_memory(device) or 0
    alone = ["type {no_time}"] * options.time + ["leave out {audit}"] * options.audit
    ways = [f"{' and '.join(alone)} for shapes and costs alone"]
    if options.backward and needed_bytes(plan, replace(options, backward=False)) <= free:
        ways.append("leave out {backward}")
    ways += filter(None, [largest_that_fits(spec, free, options)])
    *others, last = ways
    what = "this and its backward need" if options.backward else "this needs"
    raise DeviceError(f"{what} {short}; {', '.join(others)}{', or ' if others else ''}{last}")


def largest_that_fits(spec: Spec, free: int, options: RunOptions = FORWARD) -> str | None:
    """Return the flag and value with which a run fits in this many bytes: a smaller batch, or else fewer tokens."""
    sized: dict[str, Callable[[int], Spec]] = {
        "batch": lambda size: replace(spec, batch=size),
        spec.SIZE_FIELD: spec.of_size,
    }
    for field, of_size in sized.items():

        def is_too_large(size: int, of_size: Callable[[int], Spec] = of_size) -> bool:
            try:
                return needed_bytes(of_size(size).plan(), options) > free
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


def too_large(spec: Spec) -> str:
    """Return the line for a Spec with a tensor that does not fit in a 64-bit address space, with its largest flag."""
    sizes = {
        name: value
        for name, declared in own_fields(type(spec)).items()
        if kind(declared) in (int, Pair) and (value := getattr(spec, name)) is not None
    }
    largest = max(sizes, key=lambda name: max(pair(sizes[name])))
    return (
        f"{{{largest}}} is too large for a 64-bit address space (got {spell_pair(pair(sizes[largest]), 'x')}); "
        "give a smaller one, or {no_time} without {device} meta for shapes and costs alone"
    )


def gigabytes(size: int) -> str:
    """Return a size in words, `44.7 TiB`."""
    import humanize

    return humanize.naturalsize(size, binary=True)


@contextmanager
def memory_errors_explained(
    device: "torch.device", otherwise: str = OTHERWISE, too_large: str | None = None
) -> Iterator[None]:
    """Turn the error of a device that runs out of memory into one line that says what to do instead.

    Args:
        device: where the code inside the with block runs.
        otherwise: what to do instead.
        too_large: what to say of a tensor that fits in no memory at all.

    Raises:
        DeviceError: the device ran out of memory, or a tensor does not fit in a 64-bit address space.
    """
    try:
        yield
    except (MemoryError, RuntimeError, TypeError) as error:
        if exceeds_addresses(error):
            raise DeviceError(too_large or f"a tensor does not fit in a 64-bit address space; {otherwise}") from None
        if not ran_out_of_memory(error):
            raise
        raise DeviceError(f"{device.type} ran out of memory; {otherwise}") from None


@contextmanager
def kernel_errors_explained(spec: Spec, device: "torch.device", backward: bool = False) -> Iterator[None]:
    """Turn the error of a kernel that does not run here, or not backward, into a DeviceError that names those that do."""
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
