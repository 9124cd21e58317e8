"""Everything that only a machine with an NVIDIA GPU can check, in one go; writes a page in Markdown.

    python -m benchmarks.gpu [page.md]

Steps over the whole, launches, graph replay, the allocator against the plan, kernels with their error, the backward, peaks
and bounds.
"""

import statistics
import subprocess
import sys
from pathlib import Path

import torch

from attnscope import SwinSpec, ViTSpec, attentions, explore
from attnscope.making import build
from attnscope.memory import Memory
from attnscope.probes.memory import allocated_bytes
from attnscope.probes.peaks import measure_peaks
from attnscope.render.peaks import peak_rows

SPECS = {
    "ViT-B, batch 8": ViTSpec(batch=8),
    "ViT-B, batch 64": ViTSpec(batch=64),
    "Swin stage 1, batch 8": SwinSpec(batch=8),
    "Swin stage 1 shifted, batch 64": SwinSpec(batch=64, shift=True),
    "ViT-B in float16, batch 64": ViTSpec(batch=64, dtype="float16"),
}
RUNS = 3


def sums() -> list[str]:
    """Sum of the steps over the whole on the device, and the whole with launches and as a graph."""
    lines = ["| | sum over whole | device ms | with launches ms | as a graph ms |", "|---|---|---|---|---|"]
    for name, spec in SPECS.items():
        times = [explore(spec, device="cuda", budget=0.5).time for _ in range(RUNS)]
        ratio = statistics.median(time.steps_sum_s / time.whole_median_s for time in times)
        last = times[-1]
        graph = "none" if last.graph_s is None else f"{last.graph_s * 1e3:.3f}"
        lines.append(
            f"| {name} | {ratio:.3f}{'' if 0.97 <= ratio <= 1.03 else ' MISSED'} | {last.whole_median_s * 1e3:.3f} | "
            f"{last.eager_s * 1e3:.3f} | {graph} |"
        )
    return lines


def memory() -> list[str]:
    """The allocator's fullest moment over the plan's, the worst step of each."""
    lines = ["| | allocator over plan, least | most |", "|---|---|---|"]
    for name, spec in SPECS.items():
        module, x = build(spec, torch.device("cuda"))
        held = allocated_bytes(module, x)
        ratios = [one / live for one, live in zip(held, Memory(attentions.plan(spec)).live, strict=True) if live]
        lines.append(f"| {name} | {min(ratios):.4f} | {max(ratios):.4f} |")
    return lines


def kernels() -> list[str]:
    """All kernels, with their error against float64."""
    lines = ["| | kernel | ms | error |", "|---|---|---|---|"]
    for name, spec in SPECS.items():
        for row in explore(spec, device="cuda", budget=0.5, kernels=True).kernels:
            told = f"{row.time_s * 1e3:.3f} | {row.error:.1e}" if row.time_s is not None else f"not here | {row.why}"
            lines.append(f"| {name} | {row.name} | {told} |")
    return lines


def backward() -> list[str]:
    """MACs by the letters and by torch, and time over the forward's."""
    lines = ["| | MACs over forward | torch agrees | time over forward |", "|---|---|---|---|"]
    for name, spec in SPECS.items():
        report = explore(spec, device="cuda", budget=0.5, backward=True, audit=True)
        back = report.backward
        ratio = back.time.whole_median_s / report.time.whole_median_s
        lines.append(f"| {name} | {back.macs / report.totals.macs:.3f} | {back.torch == back.macs} | {ratio:.2f} |")
    return lines


def bounds() -> list[str]:
    """Peaks, and the steps over their bounds."""
    peaks, _ = measure_peaks(torch.device("cuda"), torch.float32, 1)
    lines = ["| kernel | size | a second |", "|---|---|---|"]
    lines += [f"| {row.kernel} | {row.size} | {row.per_s:.3e} {row.unit} |" for row in peak_rows(peaks)]
    lines += ["", "| | step | time over bound | bound by |", "|---|---|---|---|"]
    for name, spec in SPECS.items():
        for row in explore(spec, device="cuda", budget=0.5).steps:
            if row.bytes_read:
                lines.append(
                    f"| {name} | {row.name} | {row.time.median_s / row.bound.seconds:.2f} | {row.bound.binds} |"
                )
    return lines


def tests() -> list[str]:
    """The tests that need a GPU."""
    words = [sys.executable, "-m", "pytest", "tests/test_devices.py", "-m", "cuda", "-q"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return ["```", *done.stdout.splitlines()[-15:], "```"]


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("no CUDA device here: nothing was checked")
    page = [f"# attnscope on {torch.cuda.get_device_name()}, torch {torch.__version__}"]
    for part in (sums, memory, kernels, backward, bounds, tests):
        page += ["", f"## {part.__name__}", "", part.__doc__ or "", "", *part()]
        print(*page[-3:], sep="\n", flush=True)
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "cuda.md")
    path.write_text("\n".join(page) + "\n", encoding="utf-8")
    print(f"written to {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
