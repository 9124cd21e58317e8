"""The same attention in different kernels: how long each takes, and how far it lies from float64."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from attnscope.attentions.kernels import BACKENDS, fused_attention
from attnscope.probes.time import device_type, mean_of_middle, measuring, spread, time_in_turn
from attnscope.report import KernelRow


def backends_here(device: torch.device) -> list[str]:
    """The backends of scaled_dot_product_attention that run on this device."""
    return [name for name in BACKENDS if _runs(name, device)]


def why_not(error: Exception) -> str:
    """Why a kernel does not run, in a few words."""
    first = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    if first.startswith(("No viable backend", "No available kernel")):
        return "torch has none for this device, type and bias"
    return first


def _runs(kernel: str, device: torch.device) -> bool:
    tensor = torch.zeros(1, 1, 16, 16, device=device, dtype=torch.float16 if device.type == "cuda" else torch.float32)
    try:
        with torch.no_grad():
            fused_attention(kernel, tensor, tensor, tensor)
    except RuntimeError:
        return False
    return True


def compare_kernels(
    builds: Mapping[str, Callable[[], nn.Module]],
    module: nn.Module,
    x: tuple[Tensor, ...],
    budget_s: float,
    errors: bool,
) -> list[KernelRow]:
    """Time the untouched forward of each kernel, in turn, so that a drift of the machine touches all alike.

    Args:
        builds: what makes the module of each kernel, by name.
        module: whose weights all get.
        x: the inputs.
        budget_s: how long to measure them together, warm-up and compiling aside.
        errors: hold each output against that of the first kernel in float64.
    """
    exact = _exact(builds, module, x) if errors else None
    ready: dict[str, nn.Module] = {}
    rows: dict[str, KernelRow] = {}
    for name, build in builds.items():
        other = build().to(x[0]).eval()
        other.load_state_dict(module.state_dict(), assign=True)  # the same weights, and no copy of them
        try:
            with measuring():
                result = other(*x)
        except Exception as error:
            rows[name] = KernelRow(name, None, None, None, why_not(error))
            continue
        ready[name] = other
        distance = None if exact is None else _distance(result, exact)
        rows[name] = KernelRow(name, None, None, distance, None)
    timed = time_in_turn([(other, x) for other in ready.values()], budget_s).samples if ready else []
    for name, seconds in zip(ready, timed, strict=True):
        rows[name].time_s, rows[name].iqr_s = mean_of_middle(seconds), spread(seconds)
    return list(rows.values())


def _exact(builds: Mapping[str, Callable[[], nn.Module]], module: nn.Module, x: tuple[Tensor, ...]) -> Tensor | None:
    """The output in float64, on the processor where the device knows no float64."""
    device = "cpu" if device_type(x) == "mps" else device_type(x)
    exact = next(iter(builds.values()))().to(device, torch.float64).eval()
    exact.load_state_dict(module.state_dict())
    with torch.no_grad():
        return exact(*(tensor.to(device, torch.float64) for tensor in x))


def _distance(result: Tensor, exact: Tensor) -> float:
    """The largest difference over the largest value."""
    difference = (result.to(exact) - exact).abs().max()
    return float(difference / exact.abs().max().clamp(min=torch.finfo(torch.float64).tiny))
