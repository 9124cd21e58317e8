"""Build a module and its inputs from a Spec, seeded, after a check that they fit in memory."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from attnscope.attentions.spec import Spec, kind, own_fields
from attnscope.core.errors import AttnscopeError, DeviceError, UsageError, exceeds_addresses, ran_out_of_memory
from attnscope.core.sizes import count_sides, spell_sides, spread
from attnscope.ops.kernels import COMPILED, RUN_EVERYWHERE
from attnscope.plan.backward import least_backward_peak
from attnscope.plan.kernels import kernels
from attnscope.plan.memory import Memory
from attnscope.plan.plan import Plan
from attnscope.profiling.options import RunOptions

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

FORWARD = RunOptions(time=False)
"""Options of a forward without any measurement."""
OTHERWISE = "use {no_time} for shapes and costs only, or a smaller {batch}"
"""The fix that an error suggests if an attention does not fit."""


def build(spec: Spec, device: "torch.device") -> tuple["nn.Module", "tuple[Tensor, ...]"]:
    """Build the module of a Spec in evaluation mode, and inputs drawn from a standard normal distribution."""
    import torch

    dtype = getattr(torch, spec.dtype)
    with torch.device(device):
        module = spec.build().to(dtype).eval()
        return module, tuple(torch.randn(shape).to(dtype) for shape in spec.input_shapes)


@contextmanager
def settled(threads: int, seed: int, device: "torch.device") -> Iterator[None]:
    """Set torch's seed and number of threads within a `with` block; restore both at the end."""
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
    """Return the peak memory of a run in bytes: parameters, input, and the largest peak of any part of the run.

    One part is always the forward. The options may add the operands of each kernel that is measured alone, and the forward
    and the backward of training. Workspaces that fused kernels allocate internally are not included.
    """
    memory, itemsize = Memory(plan), plan.steps[0].itemsize
    peaks = [memory.least_peak]
    if options.time:
        peaks += [itemsize * kernel.elements for kernel in kernels(plan.steps)]
    if options.backward:
        peaks += [memory.least_training_peak, least_backward_peak(memory, options.input_grad)]
    return resident_bytes(plan) + max(peaks)


def needed_together(plans: Sequence[Plan]) -> int:
    """Return the peak memory in bytes of several modules that are in memory together and run one after another."""
    return sum(map(resident_bytes, plans)) + max([needed_bytes(plan) - resident_bytes(plan) for plan in plans])


def resident_bytes(plan: Plan) -> int:
    """Return the size of parameters and input in bytes."""
    return plan.steps[0].itemsize * plan.params + plan.input_bytes


def shortage(need: int, device: "torch.device") -> str | None:
    """Return `44.7 TiB, but cpu has 12.1 GiB free` if the device has fewer bytes free than needed, else None."""
    from attnscope.profiling.devices import free_memory

    free = free_memory(device)
    if free is None or need <= free:
        return None
    return f"{gigabytes(need)}, but {device.type} has {gigabytes(free)} free"


def check_fit(spec: Spec, plan: Plan, options: RunOptions, device: "torch.device") -> None:
    """Refuse a run that does not fit in the memory of its device, before anything is allocated.

    Raises:
        DeviceError: the run needs more memory than the device has free; the message names options that would fit.
    """
    from attnscope.profiling.devices import free_memory

    short = shortage(needed_bytes(plan, options), device)
    if short is None:
        return
    free = free_memory(device) or 0
    without_run = ["use {no_time}"] * options.time + ["leave out {audit}"] * options.audit
    fixes = [f"{' and '.join(without_run)} for shapes and costs only"]
    if options.backward and needed_bytes(plan, replace(options, backward=False)) <= free:
        fixes.append("leave out {backward}")
    fixes += filter(None, [largest_that_fits(spec, free, options)])
    *others, last = fixes
    what = "forward and backward need" if options.backward else "the run needs"
    raise DeviceError(f"{what} {short}; {', '.join(others)}{', or ' if others else ''}{last}")


def largest_that_fits(spec: Spec, free: int, options: RunOptions = FORWARD) -> str | None:
    """Return the change with which a run fits in this many bytes, such as `set {batch} to at most 8`.

    A smaller batch size is tried first, then fewer tokens. The result is None if neither fits.
    """
    sized: dict[str, Callable[[int], Spec]] = {
        "batch": lambda size: replace(spec, batch=size),
        spec.SIZE_FIELD: spec.of_size,
    }
    for field, of_size in sized.items():

        def is_too_large(size: int, of_size: Callable[[int], Spec] = of_size) -> bool:
            try:
                return needed_bytes(of_size(size).plan(), options) > free
            except UsageError:  # the size is above the largest one that a Spec accepts
                return True

        if is_too_large(1):
            continue
        high = 2
        while not is_too_large(high):
            high *= 2
        largest = of_size(bisect_left(range(high), True, lo=high // 2, key=is_too_large) - 1)
        size = spell_sides(spread(getattr(largest, field), 1), "x")
        return f"set {{{field}}} to at most {size}{_instead_of(field, spec)}"
    return None


def _instead_of(field: str, spec: Spec) -> str:
    """Return ` instead of {image}` if the field contradicts another one that this Spec sets, else an empty string."""
    given = {name for name, value in vars(spec).items() if value is not None}
    others = [set(pair) - {field} for pair in spec.contradictions(dict.fromkeys({*given, field})) if field in pair]
    return f" instead of {{{others[0].pop()}}}" if others else ""


def too_large(spec: Spec) -> str:
    """Return the error message for a Spec with a tensor that does not fit in a 64-bit address space.

    It names the field with the largest value.
    """
    sizes = {
        name: value
        for name, declared in own_fields(type(spec)).items()
        if (kind(declared) is int or count_sides(kind(declared))) and (value := getattr(spec, name)) is not None
    }
    largest = max(sizes, key=lambda name: max(spread(sizes[name], 1)))
    return (
        f"{{{largest}}} is too large for a 64-bit address space (got {spell_sides(spread(sizes[largest], 1), 'x')}); "
        "use a smaller value, or {no_time} without {device} meta for shapes and costs only"
    )


def gigabytes(size: int) -> str:
    """Format a size in bytes with a binary unit: `44.7 TiB`."""
    import humanize

    return humanize.naturalsize(size, binary=True)


@contextmanager
def memory_errors_explained(
    device: "torch.device", otherwise: str = OTHERWISE, too_large: str | None = None
) -> Iterator[None]:
    """Turn an out-of-memory error within a `with` block into a DeviceError of one line with the fix.

    Args:
        device: the device on which the block runs.
        otherwise: the fix that the message suggests.
        too_large: the whole message for a tensor that does not fit in a 64-bit address space; None for a general one.

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
    """Turn the error of a kernel that does not run here into a DeviceError that names the kernels that do.

    Args:
        spec: the Spec whose kernel runs within the `with` block.
        device: the device on which it runs.
        backward: whether the block runs the backward, which fewer kernels support.

    Raises:
        DeviceError: the kernel does not run on this device, or has no backward on it.
    """
    import torch

    from attnscope.profiling.kernels import backends_here, reasons, why_not

    with reasons(spec.kernel) as warned:
        try:
            yield
        except AttnscopeError:
            raise
        except Exception as error:
            if spec.kernel in RUN_EVERYWHERE or ran_out_of_memory(error):
                raise
            why = why_not(error, warned)
            if backward:
                raise DeviceError(
                    f"{{kernel}} {spec.kernel} has no backward here ({why}); use eager, sdpa or math"
                ) from None
            here = [*RUN_EVERYWHERE, *backends_here(device, getattr(torch, spec.dtype))]
            untried = " and ".join(kernel for kernel in COMPILED if kernel != spec.kernel)
            raise DeviceError(
                f"{{kernel}} {spec.kernel} does not run here ({why}); available: "
                f"{', '.join(kernel for kernel in here if kernel != spec.kernel)}; "
                f"{{kernels}} also tries {untried}"
            ) from None
