"""The same attention in different kernels: the time of each, and its error against float64."""

import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from attnscope.attentions.kernels import BACKENDS, fused_attention
from attnscope.core.errors import DeviceError, ran_out_of_memory
from attnscope.ops.kernels import RUN_EVERYWHERE
from attnscope.profiling.statistics import Samples
from attnscope.profiling.timing import Progress, Turns, measuring, time_in_turn
from attnscope.reports.report import KernelRow

CLASSES = re.compile(r"^(?:[A-Z]\w+: )+")
"""The names of the errors that the compiler puts before the words of each."""
NO_REASON = ("because:", "runtime disabled.")
"""How the warnings end that say nothing about the requested kernel."""


def backends_here(device: torch.device, dtype: torch.dtype) -> list[str]:
    """Return the backends of scaled_dot_product_attention that run on this device, found by trying."""
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
    """Collect torch's warnings while a kernel is tried: before it fails, they say why. None reaches the screen."""
    if kernel in RUN_EVERYWHERE:
        yield []
        return
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        yield said


def why_not(error: Exception, said: Iterable[warnings.WarningMessage] = ()) -> str:
    """Return why a kernel does not run, in a few words: those of the error, or of the warnings before it."""
    if ran_out_of_memory(error):
        return "it needs more memory than there is"
    lines = [line.strip() for line in str(error).splitlines() if line and not line.endswith(":")]
    why = (lines or [type(error).__name__])[0]
    if why.startswith(("No viable backend", "No available kernel")):
        texts = (str(warning.message).split(" (Triggered")[0] for warning in said)
        why = next(
            (text for text in texts if not text.endswith(NO_REASON)), "torch has none for this device, type and bias"
        )
        why = why.split(". ")[0]
    return CLASSES.sub("", why).rstrip(".").replace("{", "(").replace("}", ")")  # braces would name a flag


class Contenders(NamedTuple):
    """The same attention in several kernels: modules of those that run, with their errors; why the others do not."""

    ready: dict[str, nn.Module]
    errors: dict[str, float | None]
    failed: dict[str, str]

    def rows(self, times: Iterable[Samples]) -> list[KernelRow]:
        """Return a row for each kernel, from the times of those that run, in their order."""
        rows = [
            KernelRow(name, time.interquartile_mean_s, time.iqr_s, self.errors[name], None)
            for name, time in zip(self.ready, times, strict=True)
        ]
        return rows + [KernelRow(name, None, None, None, why) for name, why in self.failed.items()]


Builds = Mapping[str, Callable[[], nn.Module]]
"""A function for each kernel, by name, that builds its module."""


def contenders(
    builds: Builds, module: nn.Module, x: tuple[Tensor, ...], build_exact: Callable[[], nn.Module] | None = None
) -> Contenders:
    """Build the modules of several kernels and run each once.

    Args:
        builds: what builds them.
        module: the module whose weights all share.
        x: the inputs.
        build_exact: a function that builds the module in float64 from which each error is computed; None for no errors.
    """
    exact = None if build_exact is None else _exact(build_exact, module, x)
    found = Contenders({}, {}, {})
    for name, build in builds.items():
        with reasons(name) as said:
            try:
                other = build().to(x[0]).eval()
                other.load_state_dict(module.state_dict(), assign=True)
                with measuring():
                    result = other(*x)
            except Exception as error:
                found.failed[name] = why_not(error, said)
                continue
        found.ready[name] = other
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
    """Time the untouched forward of each kernel, in turn, so that a drift of the machine affects all alike.

    Args:
        builds, module, x, build_exact: as in `contenders`.
        budget_s: seconds to measure them together, without the warm-up and compiling.
        progress: called with the share that is done.

    Returns:
        A row for each kernel, with the reason if it cannot be built or does not run, and how the forwards were run; None if
        no kernel runs.
    """
    found = contenders(builds, module, x, build_exact)
    turns = time_in_turn([(other, x) for other in found.ready.values()], budget_s, progress) if found.ready else None
    rows = {row.name: row for row in found.rows(turns.times if turns else [])}
    return [rows[name] for name in builds], turns


def _exact(build: Callable[[], nn.Module], module: nn.Module, x: tuple[Tensor, ...]) -> Tensor | None:
    """Return the output in float64, computed on the CPU if the device has no float64; None if it does not fit."""
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
    """Return the largest difference over the largest value; None if it is not finite."""
    difference = (result.to(exact.device).to(exact.dtype) - exact).abs().max()
    distance = float(difference / exact.abs().max().clamp(min=torch.finfo(torch.float64).tiny))
    return distance if math.isfinite(distance) else None
