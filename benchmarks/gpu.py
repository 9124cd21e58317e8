"""Checks that need an NVIDIA GPU; they write a Markdown page.

    python -m benchmarks.gpu [page.md] [--only part ...]

The page covers the environment, the clock of the GPU, the tests that need a GPU, the steps over the whole, launches and
graph replay. The peaks and bounds, the allocator against the plan, the backward, and the error of kernels follow. The
last line gives the number of figures that missed their limit. The exit code is 1 if there is one.
"""

import argparse
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from attnscope import SwinSpec, ViTSpec, attentions, explore
from attnscope.plan.memory import Memory
from attnscope.profiling.building import build
from attnscope.profiling.memory import allocated_bytes
from attnscope.profiling.peaks import measure_peaks
from attnscope.render.peaks import peak_rows
from benchmarks.ratios import HEAD, Ratio

DEVICE = "cuda"
SPECS = {
    "ViT-B, batch 8": ViTSpec(batch=8),
    "ViT-B, batch 64": ViTSpec(batch=64),
    "Swin stage 1, batch 8": SwinSpec(batch=8),
    "Swin stage 1 shifted, batch 64": SwinSpec(batch=64, shift=True),
    "ViT-B in float16, batch 64": ViTSpec(batch=64, dtype="float16"),
}
RUNS = 3
BUDGET_S = 0.5
ERRORS = {"float32": 1e-5, "float16": 1e-2}
"""Largest allowed error of a kernel against float64, relative to the largest value, by dtype."""
KERNELS_THAT_RUN = {"eager", "sdpa"}
"""Kernels that every GPU supports."""


@dataclass
class Figure:
    """A figure that is not a ratio of several runs: its value, the required value, and the verdict."""

    name: str
    value: str
    required: str
    ok: bool

    def __str__(self) -> str:
        return f"| {self.name} | {self.value} | | {self.required} | {'ok' if self.ok else 'MISSED'} |"


Line = str | Ratio | Figure
"""A row of the page, with or without a verdict."""


def environment() -> Iterator[Line]:
    """List the environment, so that the figures can be reproduced."""
    yield "| | |\n|---|---|"
    found = explore(ViTSpec(), device=DEVICE, budget=BUDGET_S).environment
    yield from [f"| {name} | {value} |" for name, value in found.items()]


def clock() -> Iterator[Line]:
    """List the clock of the GPU during a measurement, and what lowered it; this needs nvidia-ml-py."""
    gpu = explore(ViTSpec(batch=64), device=DEVICE, budget=2.0).time.gpu
    yield "| | |\n|---|---|"
    yield from [f"| {name} | {value} |" for name, value in (asdict(gpu) if gpu else {"clock": "not reported"}).items()]


def sums() -> Iterator[Line]:
    """Compare the sum of the steps with the whole on the device, and a CUDA graph with the eager forward."""
    yield HEAD
    for name, spec in SPECS.items():
        times = [explore(spec, device=DEVICE, budget=BUDGET_S).time for _ in range(RUNS)]
        ratios = [time.steps_sum_s / time.whole_interquartile_mean_s for time in times]
        yield Ratio(f"sum over whole, {name}", ratios, each=(0.97, 1.03))
        device, eager = times[-1].whole_interquartile_mean_s * 1e3, times[-1].eager_s * 1e3
        took = f"{eager:.3f} ms with launches, {device:.3f} ms on the device"
        if any(time.graph_s is None for time in times):
            yield Figure(f"graph over eager, {name}", f"not captured; {took}", "at most 1.03", ok=False)
        else:
            yield Ratio(f"graph over eager ({took}), {name}", [time.graph_s / time.eager_s for time in times], 1.03)


def memory() -> Iterator[Line]:
    """Compare the peak memory that each step requests from the allocator with the plan's."""
    yield HEAD
    for name, spec in SPECS.items():
        module, x = build(spec, torch.device(DEVICE))
        held = allocated_bytes(module, x, "requested_bytes")
        live_bytes = Memory(attentions.plan(spec)).live
        ratios = [requested / live for requested, live in zip(held, live_bytes, strict=True) if live]
        yield Ratio(f"allocator over plan, steps of {name}", ratios, each=(0.99, 1.01))


def kernels() -> Iterator[Line]:
    """Check the error of each kernel against float64."""
    yield HEAD
    for name, spec in SPECS.items():
        limit = ERRORS[spec.dtype]
        for row in explore(spec, device=DEVICE, budget=BUDGET_S, kernels=True).kernels:
            title = f"error of {row.name}, {name}"
            if row.error is not None:
                took = f"{row.error:.1e}, in {row.time_s * 1e3:.3f} ms"
                yield Figure(title, took, f"at most {limit:g}", ok=row.error <= limit)
            elif row.name in KERNELS_THAT_RUN:
                yield Figure(title, f"{row.why}", f"at most {limit:g}", ok=False)
            else:
                yield f"| {title} | not available: {row.why} | | | |"


def backward() -> Iterator[Line]:
    """Compare the MACs of the backward with torch's, and its time with the forward's."""
    yield HEAD
    for name, spec in SPECS.items():
        reports = [explore(spec, device=DEVICE, budget=BUDGET_S, backward=True, audit=not run) for run in range(RUNS)]
        back = reports[0].backward
        yield Figure(f"backward MACs, {name}", f"{back.macs}", f"torch's {back.torch}", ok=back.macs == back.torch)
        ratios = [one.backward.time.whole_interquartile_mean_s / one.time.whole_interquartile_mean_s for one in reports]
        yield Ratio(f"backward over forward, {name}", ratios)


def bounds() -> Iterator[Line]:
    """List the peaks, and compare each step with its roofline lower bound and with its kernels alone."""
    peaks, _ = measure_peaks(torch.device(DEVICE), torch.float32, 1)
    yield "| kernel | size | per second |\n|---|---|---|"
    yield from [f"| {row.kernel} | {row.size} | {row.per_s:.3e} {row.unit} |" for row in peak_rows(peaks)]
    yield f"\n{HEAD}"
    for name, spec in SPECS.items():
        runs = [explore(spec, device=DEVICE, budget=BUDGET_S, focus=["roofline"]).steps for _ in range(RUNS)]
        for step in zip(*runs, strict=True):
            if all(row.roofline for row in step):
                ratios = [row.time.interquartile_mean_s / row.roofline.seconds for row in step]
                yield Ratio(f"{step[0].name} over its bound ({step[0].roofline.binds}), {name}", ratios, least=0.999)
            if all(row.alone for row in step):
                for kind in ("warm", "cold"):
                    ratios = [row.time.interquartile_mean_s / getattr(row.alone, f"{kind}_s") for row in step]
                    yield Ratio(f"{step[0].name} over its kernels alone, {kind}, {name}", ratios)


def tests() -> Iterator[Line]:
    """Run the tests that need a GPU."""
    words = [sys.executable, "-m", "pytest", "tests", "-m", "cuda", "-rfEs"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    yield HEAD
    ran = "no CUDA device here" not in done.stdout  # the reason for which they are skipped
    yield Figure("exit code of the tests", f"{done.returncode}" if ran else "skipped", "0", ran and not done.returncode)
    yield "\n```\n" + "\n".join([*done.stdout.splitlines()[-15:], *done.stderr.splitlines()[-15:]]) + "\n```"


Part = Callable[[], Iterator[Line]]
PARTS: tuple[Part, ...] = (environment, clock, tests, sums, bounds, memory, backward, kernels)


def check(part: Part) -> Iterator[tuple[str, bool]]:
    """Yield the rows of a part, each with True if it missed its limit.

    An exception counts as a missed row and ends only this part.
    """
    try:
        for line in part():
            yield str(line), not getattr(line, "ok", True)
    except Exception:
        yield f"\nMISSED: {part.__name__} raised\n\n```\n{traceback.format_exc()}```", True


def write_page(path: Path, title: str, parts: Iterable[Part] = PARTS) -> int:
    """Write and print the page row by row, so that a crash loses no results.

    Returns:
        The number of figures that missed their limit.
    """
    missed = 0
    with path.open("w", encoding="utf-8") as page:

        def write(text: str) -> None:
            print(text, flush=True)
            print(text, file=page, flush=True)

        write(f"# {title}")
        for part in parts:
            write(f"\n## {part.__name__}\n\n{part.__doc__}\n")
            for text, is_missed in check(part):
                write(text)
                missed += is_missed
        write(f"\n{missed} missed" if missed else "\nnothing was missed")
    print(f"written to {path}", file=sys.stderr)
    return missed


def main() -> None:
    parts = {part.__name__: part for part in PARTS}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="Check attnscope on an NVIDIA GPU.")
    parser.add_argument("page", nargs="?", type=Path, default=Path("cuda.md"), help="The page to write (cuda.md).")
    parser.add_argument(
        "--only", nargs="+", choices=parts, default=[*parts], metavar="part", help=f"Of {', '.join(parts)}."
    )
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu needs a CUDA device; torch finds none")
    title = f"attnscope on {torch.cuda.get_device_name()}, torch {torch.__version__}"
    sys.exit(1 if write_page(chosen.page, title, [parts[name] for name in chosen.only]) else 0)


if __name__ == "__main__":
    main()
