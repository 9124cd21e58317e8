"""Everything that only a machine with an NVIDIA GPU can check, in one go; writes a page in Markdown.

    python -m benchmarks.gpu [page.md]

Steps over the whole, launches, graph replay, the allocator against the plan, kernels with their error, the backward, peaks
and bounds, and the tests that need a GPU. The last line says how many of the figures missed what they must be, and so does
the exit code: 1 where one did.
"""

import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
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
"""How far a kernel may lie from float64, as a share of the largest value."""
KERNELS_THAT_RUN = {"eager", "sdpa"}
"""On any GPU."""


@dataclass
class Held:
    """A figure that is no ratio of several runs: what it is, what it must be, and whether it is so."""

    name: str
    told: str
    must: str
    ok: bool

    def __str__(self) -> str:
        return f"| {self.name} | {self.told} | | {self.must} | {'ok' if self.ok else 'MISSED'} |"


Line = str | Ratio | Held
"""A row of the page, with a verdict or without one."""


def environment() -> Iterator[Line]:
    """What is needed to repeat this."""
    yield "| | |\n|---|---|"
    found = explore(ViTSpec(), device=DEVICE, budget=BUDGET_S).environment
    yield from [f"| {name} | {value} |" for name, value in found.items()]


def sums() -> Iterator[Line]:
    """Sum of the steps over the whole on the device, and a graph of the whole over the whole with its launches."""
    yield HEAD
    for name, spec in SPECS.items():
        times = [explore(spec, device=DEVICE, budget=BUDGET_S).time for _ in range(RUNS)]
        ratios = [time.steps_sum_s / time.whole_interquartile_mean_s for time in times]
        yield Ratio(f"sum over whole, {name}", ratios, each=(0.97, 1.03))
        device, eager = times[-1].whole_interquartile_mean_s * 1e3, times[-1].eager_s * 1e3
        took = f"{eager:.3f} ms with launches, {device:.3f} ms on the device"
        if any(time.graph_s is None for time in times):
            yield Held(f"graph over eager, {name}", f"not captured; {took}", "at most 1.03", ok=False)
        else:
            yield Ratio(f"graph over eager ({took}), {name}", [time.graph_s / time.eager_s for time in times], 1.03)


def memory() -> Iterator[Line]:
    """The fullest moment of each step by what was asked of the allocator over the plan's."""
    yield HEAD
    for name, spec in SPECS.items():
        module, x = build(spec, torch.device(DEVICE))
        held = allocated_bytes(module, x, "requested_bytes")
        ratios = [one / live for one, live in zip(held, Memory(attentions.plan(spec)).live, strict=True) if live]
        yield Ratio(f"allocator over plan, steps of {name}", ratios, each=(0.99, 1.01))


def kernels() -> Iterator[Line]:
    """All kernels, with their error against float64."""
    yield HEAD
    for name, spec in SPECS.items():
        most = ERRORS[spec.dtype]
        for row in explore(spec, device=DEVICE, budget=BUDGET_S, kernels=True).kernels:
            told = f"error of {row.name}, {name}"
            if row.error is not None:
                took = f"{row.error:.1e}, in {row.time_s * 1e3:.3f} ms"
                yield Held(told, took, f"at most {most:g}", ok=row.error <= most)
            elif row.name in KERNELS_THAT_RUN:
                yield Held(told, f"{row.why}", f"at most {most:g}", ok=False)
            else:
                yield f"| {told} | not here: {row.why} | | | |"


def backward() -> Iterator[Line]:
    """MACs by the letters against torch's, and time over the forward's."""
    yield HEAD
    for name, spec in SPECS.items():
        reports = [explore(spec, device=DEVICE, budget=BUDGET_S, backward=True, audit=not run) for run in range(RUNS)]
        back = reports[0].backward
        yield Held(f"backward MACs, {name}", f"{back.macs}", f"torch's {back.torch}", ok=back.macs == back.torch)
        ratios = [one.backward.time.whole_interquartile_mean_s / one.time.whole_interquartile_mean_s for one in reports]
        yield Ratio(f"backward over forward, {name}", ratios)


def bounds() -> Iterator[Line]:
    """Peaks, and every step that is no view over its bound."""
    peaks, _ = measure_peaks(torch.device(DEVICE), torch.float32, 1)
    yield "| kernel | size | a second |\n|---|---|---|"
    yield from [f"| {row.kernel} | {row.size} | {row.per_s:.3e} {row.unit} |" for row in peak_rows(peaks)]
    yield f"\n{HEAD}"
    for name, spec in SPECS.items():
        runs = [explore(spec, device=DEVICE, budget=BUDGET_S).steps for _ in range(RUNS)]
        for step in zip(*runs, strict=True):
            if step[0].bytes_read:
                ratios = [row.time.interquartile_mean_s / row.bound.seconds for row in step]
                told = f"{step[0].name} over its bound ({step[0].bound.binds}), {name}"
                yield Ratio(told, ratios, 1.4, 0.95) if step[0].macs else Ratio(told, ratios, least=0.95)


def tests() -> Iterator[Line]:
    """The tests that need a GPU."""
    words = [sys.executable, "-m", "pytest", "tests", "-m", "cuda", "-q", "-rs"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    yield HEAD
    ran = "no CUDA device here" not in done.stdout  # as they say where they are skipped
    yield Held("exit code of the tests", f"{done.returncode}" if ran else "skipped", "0", ran and not done.returncode)
    yield "\n```\n" + "\n".join([*done.stdout.splitlines()[-15:], *done.stderr.splitlines()[-15:]]) + "\n```"


Part = Callable[[], Iterator[Line]]
PARTS: tuple[Part, ...] = (environment, sums, memory, kernels, backward, bounds, tests)


def check(part: Part) -> Iterator[tuple[str, bool]]:
    """The rows of a part, each with whether it missed; an error is a row that did, and ends the part alone."""
    try:
        for line in part():
            yield str(line), not getattr(line, "ok", True)
    except Exception:
        yield f"\nMISSED: {part.__name__} raised\n\n```\n{traceback.format_exc()}```", True


def write_page(path: Path, title: str, parts: Iterable[Part] = PARTS) -> int:
    """Write and print the page, row by row, so that nothing is lost; tells how many figures missed what they must be."""
    missed = 0
    with path.open("w", encoding="utf-8") as page:

        def tell(text: str) -> None:
            print(text, flush=True)
            print(text, file=page, flush=True)

        tell(f"# {title}")
        for part in parts:
            tell(f"\n## {part.__name__}\n\n{part.__doc__}\n")
            for text, is_missed in check(part):
                tell(text)
                missed += is_missed
        tell(f"\n{missed} missed" if missed else "\nnothing was missed")
    print(f"written to {path}", file=sys.stderr)
    return missed


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("no CUDA device here: nothing was checked")
    title = f"attnscope on {torch.cuda.get_device_name()}, torch {torch.__version__}"
    sys.exit(1 if write_page(Path(sys.argv[1] if len(sys.argv) > 1 else "cuda.md"), title) else 0)


if __name__ == "__main__":
    main()
