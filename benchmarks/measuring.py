"""The figures of attnscope's measurements, on a quiet machine: how far the steps add up, how steady a total is from process
to process, what a busy machine does to it, and how close a step comes to its bound.

    python -m benchmarks.measuring
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from attnscope.probes import process
from benchmarks.ratios import HEAD, Ratio

SPECS = {
    "ViT-B": "vit",
    "ViT-B, batch 8": "vit --batch 8",
    "Swin stage 1": "swin",
    "Swin stage 1, shifted": "swin --shift",
    "Swin stage 1, padded": "swin --resolution 50x60 --shift",
    "1×3136×768": "vit --tokens 3136",
}
BUSY = "while True: pass"
PROCESSES = 8


def run(command: str, *flags: str) -> dict:
    """A run of the command in a process of its own, as its JSON."""
    words = [sys.executable, "-m", "attnscope", *command.split(), "--json", *flags]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True, encoding="utf-8").stdout)


def sums(name: str, command: str, threads: int, runs: int = 3) -> Ratio:
    """Sum of the steps over the untouched whole."""
    times = [run(command, "--threads", str(threads))["time"] for _ in range(runs)]
    return Ratio(
        f"sum over whole, {name}, {threads} thread{'s' if threads > 1 else ''}",
        [time["steps_sum_s"] / time["whole_median_s"] for time in times],
        1.01,
        0.99,
    )


def steadiness() -> list[str]:
    """Coefficients of variation over processes, of the total and of the steps of 5 % and more."""
    found = [run("swin --shift") for _ in range(PROCESSES)]
    columns = {"total": [one["time"]["whole_median_s"] for one in found]}
    for index, step in enumerate(found[0]["steps"]):
        seconds = [one["steps"][index]["time"]["median_s"] for one in found]
        if statistics.fmean(seconds) >= 0.05 * statistics.fmean(columns["total"]):
            columns[step["name"]] = seconds
    lines = []
    for name, seconds in columns.items():
        variation = statistics.stdev(seconds) / statistics.fmean(seconds)
        bar = 0.02 if name == "total" else 0.05
        verdict = "ok" if variation <= bar else "MISSED"
        lines.append(f"| variation of {name}, {PROCESSES} processes | {variation:.3f} | | at most {bar} | {verdict} |")
    return lines


def busy() -> tuple[Ratio, str]:
    """A total under two busy loops over the same when quiet; and how many contended two-thread runs are flagged."""
    quiet = [run("vit")["time"]["whole_median_s"] for _ in range(3)]
    loops = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(2)]
    try:
        under = [run("vit")["time"]["whole_median_s"] for _ in range(5)]
        flagged = [any("--threads 1" in told for told in run("vit", "--threads", "2")["warnings"]) for _ in range(5)]
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    base = statistics.median(quiet)
    verdict = "ok" if all(flagged) else "MISSED"
    line = f"| contended two-thread runs that are flagged | {sum(flagged)} of {len(flagged)} | | all | {verdict} |"
    return Ratio("total under two busy loops over quiet", [one / base for one in under], 1.05, 0.95), line


def bounds() -> list[Ratio]:
    """Measured over the lower bound: of all steps that are no views, and of the matmuls."""
    rows = [step for command in SPECS.values() for step in run(command)["steps"]]
    over = [step["time"]["median_s"] / step["bound"]["seconds"] for step in rows if step["bytes_read"]]
    matmuls = [step["time"]["median_s"] / step["bound"]["seconds"] for step in rows if step["macs"]]
    return [
        Ratio(f"measured over bound, least of {len(over)} steps", [min(over)] * 3, least=0.95),
        Ratio(f"measured over bound, most of {len(matmuls)} matmuls", [max(matmuls)] * 3, 1.4, 0.95),
    ]


def peaks() -> list[str]:
    """How long the peaks take, and how far they spread from process to process."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "attnscope", "peaks", "--json"]
        env = {**process.os.environ, "XDG_CACHE_HOME": str(Path(folder))}
        found = [
            json.loads(subprocess.run(words, check=True, capture_output=True, text=True, env=env).stdout)
            for _ in range(PROCESSES)
        ]
    seconds = statistics.median(one["seconds"] for one in found)
    spreads = []
    for kind in ("matmul", "batched", "softmax", "copy"):
        for index in range(len(found[0][kind])):
            rates = [one[kind][index].get("per_s", one[kind][index].get("bytes_per_s")) for one in found]
            spreads.append(statistics.stdev(rates) / statistics.fmean(rates))
    worst, middle = max(spreads), statistics.median(spreads)
    return [
        f"| peaks, seconds of measuring | {seconds:.2f} | | at most 0.6 | {'ok' if seconds <= 0.6 else 'MISSED'} |",
        f"| peaks, spread over processes, median and worst | {middle:.3f} | to {worst:.3f} | at most 0.03 | "
        f"{'ok' if worst <= 0.03 else 'MISSED'} |",
    ]


def instrumentation() -> str:
    """What watching costs a step, in microseconds; it is taken off."""
    stamp = statistics.median(run("vit")["time"]["stamp_s"] for _ in range(3)) * 1e6
    return f"| instrumentation per step, µs | {stamp:.2f} | | at most 0.3 | {'ok' if stamp <= 0.3 else 'MISSED'} |"


def main() -> None:
    print(HEAD)
    for threads in range(1, min(2, process.cores()) + 1):
        for name, command in SPECS.items():
            print(sums(name, command, threads), flush=True)
    print(*steadiness(), sep="\n", flush=True)
    for figure in busy():
        print(figure, flush=True)
    print(instrumentation(), flush=True)
    print(*bounds(), *peaks(), sep="\n", flush=True)


if __name__ == "__main__":
    main()
