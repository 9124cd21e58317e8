"""Compare the kernels of one attention: the time of each, and its error against float64."""

import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from attnscope.attentions.kernels import BACKENDS, fused_attention
from attnscope.core.errors import DeviceError, ran_out_of_memory
from attnscope.core.interval import Interval
from attnscope.ops.kernels import RUN_EVERYWHERE
from attnscope.profiling.intervals import ratio_of_rounds
from attnscope.profiling.outputs import not_finite
from attnscope.profiling.statistics import Samples
from attnscope.profiling.timing import Progress, Turns, measuring, time_in_turn
from attnscope.reports.report import KernelRow

CLASSES = re.compile(r"^(?:[A-Z]\w+: )+")
"""Class names of the nested errors that the compiler puts in front of its message."""
NO_REASON = ("because:", "runtime disabled.")
"""Endings of warnings that give no reason for the requested kernel."""


def backends_here(device: torch.device, dtype: torch.dtype) -> list[str]:
    """Return the backends of scaled_dot_product_attention that run on this device; each is tried on a small input."""
    tensor = torch.zeros(1, 1, 16, 16, device=device, dtype=dtype)
    return [name for name in BACKENDS if _runs(name, tensor)]


def _runs(kernel: str, tensor: Tensor) -> bool:
    try:
        with torch.no_grad(), reasons(kernel):
            fused_attention(kernel, tensor, tensor, tensor)
    except RuntimeError:
        return False
    return True


@contextmanager
def reasons(kernel: str) -> Iterator[list[warnings.WarningMessage]]:
    """Collect torch's warnings within a `with` block that tries a kernel, and hide them from the screen.

    Before a kernel fails, torch gives the reason in warnings.
    """
    if kernel in RUN_EVERYWHERE:
        yield []
        return
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", UserWarning)
        yield warned


def why_not(error: BaseException, warned: Iterable[warnings.WarningMessage] = ()) -> str:
    """Return the reason for which a kernel does not run, in a few words of the error or of the warnings before it.

    Args:
        error: the error that the kernel raised.
        warned: the warnings that `reasons` collected before it.
    """
    if ran_out_of_memory(error):
        return "it needs more memory than is free"
    lines = [line.strip() for line in str(error).splitlines() if line and not line.endswith(":")]
    why = (lines or [type(error).__name__])[0]
    if why.startswith(("No viable backend", "No available kernel")):
        texts = (str(warning.message).split(" (Triggered")[0] for warning in warned)
        why = next(
            (text for text in texts if not text.endswith(NO_REASON)),
            "torch has no such kernel for this device, dtype and bias",
        )
        why = why.split(". ")[0]
    return CLASSES.sub("", why).rstrip(".").replace("{", "(").replace("}", ")")  # braces would name a flag


class Contenders(NamedTuple):
    """The kernels of one attention: modules and numerical errors of those that run, and why the others do not."""

    ready: dict[str, nn.Module]
    errors: dict[str, float | None]
    failed: dict[str, str]
    finite: dict[str, bool]

    def rows(self, times: Sequence[Samples], eager: Samples | None = None) -> list[KernelRow]:
        """Return one row for each kernel.

        Args:
            times: the times of the kernels that run, in their order.
            eager: the interleaved times of the eager steps, if these are not one of the kernels.
        """
        timed = dict(zip(self.ready, times, strict=True))
        eager = eager or timed.get("eager")
        rows = [
            KernelRow(
                name,
                time.interquartile_mean_s,
                time.iqr_s,
                self.errors[name],
                None,
                self.finite[name],
                None if eager is None else _ratio(time, eager),
            )
            for name, time in timed.items()
        ]
        return rows + [KernelRow(name, None, None, None, why) for name, why in self.failed.items()]


Builds = Mapping[str, Callable[[], nn.Module]]
"""Functions that build the module of each kernel, by its name."""


def contenders(
    builds: Builds, module: nn.Module, x: tuple[Tensor, ...], build_exact: Callable[[], nn.Module] | None = None
) -> Contenders:
    """Build the modules of several kernels and run each once.

    Args:
        builds: the function that builds the module of each kernel.
        module: the module whose weights all kernels share.
        x: the inputs.
        build_exact: builds the module that runs in float64 as the reference for errors; None to compute no errors.
    """
    exact = None if build_exact is None else _exact(build_exact, module, x)
    found = Contenders({}, {}, {}, {})
    for name, build in builds.items():
        with reasons(name) as warned:
            try:
                other = build().to(x[0]).eval()
                other.load_state_dict(module.state_dict(), assign=True)
                with measuring():
                    result = other(*x)
            except Exception as error:
                found.failed[name] = why_not(error, warned)
                continue
        found.ready[name] = other
        found.finite[name] = not not_finite([result])
        found.errors[name] = None if exact is None else _distance(result, exact)
    return found


def compare_kernels(
    builds: Builds,
    module: nn.Module,
    x: tuple[Tensor, ...],
    budget_s: float,
    build_exact: Callable[[], nn.Module] | None = None,
    progress: Progress | None = None,
) -> tuple[list[KernelRow], Turns | None]:
    """Time the uninstrumented forward of each kernel, interleaved, so that drift of the machine affects all equally.

    Args:
        builds, module, x, build_exact: as in `contenders`.
        budget_s: seconds to measure all kernels together, without the warm-up and compilation.
        progress: called with the fraction of the measurement that is done.

    Returns:
        One row for each kernel, with the reason if it does not run; and the samples of all forwards, None if no kernel
        runs.
    """
    found = contenders(builds, module, x, build_exact)
    turns = time_in_turn([(other, x) for other in found.ready.values()], budget_s, progress) if found.ready else None
    rows = {row.name: row for row in found.rows(turns.times if turns else [])}
    return [rows[name] for name in builds], turns


def _ratio(time: Samples, eager: Samples) -> Interval | None:
    """Return the interval of the time of a kernel over that of the eager steps."""
    found = ratio_of_rounds(time.samples_s, eager.samples_s)
    return found and found.including(time.interquartile_mean_s / eager.interquartile_mean_s)


def _exact(build: Callable[[], nn.Module], module: nn.Module, x: tuple[Tensor, ...]) -> Tensor | None:
    """Return the output in float64, computed on the CPU if the device has no float64; None if memory runs out."""
    device = torch.device("cpu") if x[0].device.type == "mps" else x[0].device
    try:
        exact = build().to(device, torch.float64).eval()
        exact.load_state_dict({name: weight.to(device) for name, weight in module.state_dict().items()})
        with torch.no_grad():
            return exact(*(tensor.to(device).to(torch.float64) for tensor in x))
    except Exception as error:
        if isinstance(error, DeviceError) or ran_out_of_memory(error):
            return None
        raise


def _distance(result: Tensor, exact: Tensor) -> float | None:
    """Return the largest absolute difference, divided by the largest absolute value; None if it is not finite."""
    difference = (result.to(exact.device).to(exact.dtype) - exact).abs().max()
    distance = float(difference / exact.abs().max().clamp(min=torch.finfo(torch.float64).tiny))
    return distance if math.isfinite(distance) else None
