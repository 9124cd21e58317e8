"""False verdicts of measured comparisons: a leader among identical contenders, and a gate on saved runs.

    python -m benchmarks.verdicts [leader | gate ...] [--pairs N] [--loads LOAD ...] [--processes N ...] [--races N]
        [--budget S] [--device cpu | cuda]

**leader**: `vit` and `vit:kernel=eager` are the same module. A race builds both, times them interleaved, and judges the
interval of their paired ratios. The rate must be at most 5%. The table also gives the former rule, disjoint interquartile
ranges, and the quartiles of the measured ratio over all races.

**gate**: `diff --fail-above 1.1` on pairs of runs in fresh processes, under four loads of the machine. The runs of a
pair are identical, or the second one computes a step twice, which takes about 1.25 times as long. Runs of one process
are judged alone, as two saved runs are, and each 6 consecutive pairs together, as with `--rerun`. Runs of several
processes, as with `--processes 5`, are judged alone. The table also gives the variation of the total between the first 8
processes, in wall time and normalized.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

from attnscope.profiling import process

process.pin_allocator()  # before torch is imported, as the command does

from attnscope import ViTSpec, explore  # noqa: E402
from attnscope.analyses import blocks  # noqa: E402
from attnscope.analyses.contenders import arrange  # noqa: E402
from attnscope.analyses.diff import compare, compare_in_turn  # noqa: E402
from attnscope.analyses.gate import TIME, Limits, gate  # noqa: E402
from attnscope.analyses.paper_comparison import on_paper  # noqa: E402
from attnscope.analyses.timed_comparison import paired_ratio, race  # noqa: E402
from attnscope.profiling.fresh_processes import DEFAULT_PROCESSES, FEWEST_PROCESSES  # noqa: E402
from attnscope.profiling.normalization import WHOLE, at_same_speed, normalized  # noqa: E402
from attnscope.profiling.statistics import median_if_any, quartiles  # noqa: E402
from attnscope.reports.diff import Diff  # noqa: E402
from attnscope.reports.gate import CANNOT_TELL, FAIL, PASS  # noqa: E402
from attnscope.reports.loading import read_report  # noqa: E402
from attnscope.reports.report import Report, Time  # noqa: E402
from benchmarks.turns import PROCESSES, variation  # noqa: E402

CONTENDERS = ("vit", "vit:kernel=eager")
RACES, PAIRS, BUDGET_S = 50, 40, 0.3
GATED = {"cpu": ViTSpec(tokens=64), "cuda": ViTSpec(batch=8)}
TWICE = "output"
"""A step of it that takes a quarter of the time."""
LIMIT = Fraction("1.1")
LOOP = "while True: pass"
HOG = "block = bytearray(2**28)\nwhile True: bytes(block)"
LOADS = {"idle": [], "one busy loop": [LOOP], "two busy loops": [LOOP] * 2, "memory hog": [HOG]}
HEADINGS = (
    *("load", "second run", "judged", "PASS", "FAIL", "CANNOT TELL", "must be"),
    *("ratio: wall, normalized", "width", "seconds of a pair"),
)
VARIATION_AT_MOST = 0.03


def leader(races: int, budget_s: float, device: str = "cpu") -> None:
    """Print the rates of false leaders, and what the races looked like."""
    named, disjoint, rounds, widths, medians = 0, 0, [], [], []
    for seed in range(races):
        meeting = arrange(CONTENDERS, {"resolution": [14]}, {})
        comparison = on_paper(meeting)
        race(comparison, meeting, device=device, budget=budget_s, seed=seed)
        (point,) = comparison.points
        one, other = (point.times[label] for label in CONTENDERS)
        found = paired_ratio(point.times, *CONTENDERS)
        named += found is not None and not found.low <= 1 <= found.high
        disjoint += one.high_s < other.low_s or other.high_s < one.low_s
        rounds.append(len(one.samples_s))
        medians.append(one.median_s / other.median_s)
        if found is not None:
            widths.append(found.high - found.low)
    print("| figure | value | must be |")
    print("|---|---|---|")
    print(f"| races in which a leader is named | {named} of {races} ({named / races:.0%}) | at most 5% |")
    print(f"| disjoint interquartile ranges, the former rule | {disjoint} of {races} ({disjoint / races:.0%}) | |")
    print(f"| ratio of medians, quartiles | {' '.join(f'{each:.3f}' for each in quartiles(medians))} | |")
    print(f"| width of the interval, quartiles | {' '.join(f'{each:.3f}' for each in quartiles(widths))} | |")
    print(f"| rounds, quartiles | {' '.join(f'{each:.0f}' for each in quartiles(rounds))} | |\n")


def gates(pairs: int, budget_s: float, device: str, loads: Sequence[str], processes: Sequence[int]) -> None:
    """Print the verdicts of the gate under each of these loads: on identical runs, and with a step computed twice."""
    print(f"| {' | '.join(HEADINGS)} |\n{'|---' * len(HEADINGS)}|")
    variations = {}
    for load, of_each, twice in product(loads, processes, (False, True)):
        with running(LOADS[load]):
            start = time.perf_counter()
            found = [pair_of_runs(index, twice, of_each, budget_s, device) for index in range(pairs)]
            seconds = (time.perf_counter() - start) / pairs
        for pairs_together in (1, DEFAULT_PROCESSES) if of_each == 1 else (1,):
            print(gate_line(load, twice, found, pairs_together, of_each, seconds), flush=True)
        if not twice and of_each == 1:
            variations[load] = between_processes([run for each in found for run in each][:PROCESSES])
    if not variations:
        return
    print(f"\n| load | variation of the total between {PROCESSES} processes: wall | normalized | must be |")
    print("|---|---|---|---|")
    for load, (wall, at_one_speed) in variations.items():
        must = f"at most {VARIATION_AT_MOST}" if load == "one busy loop" or device != "cpu" else ""
        print(f"| {load} | {wall:.3f} | {at_one_speed:.3f} | {must} |")


@contextmanager
def running(programs: Sequence[str]) -> Iterator[None]:
    """Run Python programs beside the measurement within a `with` block."""
    started = [subprocess.Popen([sys.executable, "-c", program]) for program in programs]
    try:
        yield
    finally:
        for one in started:
            one.kill()
            one.wait()


def pair_of_runs(index: int, twice: bool, processes: int, budget_s: float, device: str) -> tuple[Report, Report]:
    """Measure two runs in fresh processes, right after each other, in an order that alternates from pair to pair.

    Args:
        index: the number of the pair.
        twice: whether the second run computes the step TWICE twice.
        processes: the number of processes of each run.
        budget_s: seconds to measure each run.
        device: "cpu" or "cuda".
    """
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}.json" for name in ("before", "after")]
        for place in (1, 0) if index % 2 else (0, 1):
            slow = json.dumps(bool(place) and twice)
            words = ["run", str(paths[place]), slow, str(processes), str(budget_s), device]
            subprocess.run([sys.executable, "-m", "benchmarks.verdicts", *words], check=True)
        return read_report(paths[0]), read_report(paths[1])


def save_run(path: Path, twice: bool, processes: int, budget_s: float, device: str) -> None:
    """Measure the forward in this process, and in fresh ones if there are several, and save the run."""
    if twice:
        compute_twice()
        blocks.PROGRAM = f"from benchmarks.verdicts import compute_twice; compute_twice(); {blocks.PROGRAM}"
    report = explore(GATED[device], device=device, budget=budget_s, processes=processes)
    path.write_text(report.to_json(), encoding="utf-8")


def compute_twice() -> None:
    """Make the module of this process compute the step TWICE twice."""
    from attnscope.attentions.vit.attention import ViTAttention

    once = getattr(ViTAttention, TWICE)

    def again(module: ViTAttention, *tensors: object) -> object:
        once(module, *tensors)
        return once(module, *tensors)

    again.__dict__.update(vars(once))
    setattr(ViTAttention, TWICE, again)


def gate_line(
    load: str,
    twice: bool,
    found: Sequence[tuple[Report, Report]],
    pairs_together: int,
    processes: int,
    seconds: float,
) -> str:
    """Return a row with the verdicts on pairs of runs, of which this number is judged together."""
    whole = len(found) - len(found) % pairs_together
    groups = [found[first : first + pairs_together] for first in range(0, whole, pairs_together)]
    diffs = [judged(group) for group in groups]
    limits = Limits({TIME: LIMIT}, across=True)
    results = [gate(diff, *group[0], limits) for diff, group in zip(diffs, groups, strict=True)]
    counts = Counter(result.verdict for result in results)
    ratios = [
        median_if_any([ratio for diff in diffs if (ratio := getattr(diff.whole, name)) is not None])
        for name in ("ratio", "normalized_ratio")
    ]
    width = median_if_any([diff.whole.interval.high - diff.whole.interval.low for diff in diffs if diff.whole.interval])
    if twice:
        second, must = f"`{TWICE}` twice", "PASS 0" + (", FAIL at least 80%" if load == "idle" else "")
    else:
        second, must = "identical", "FAIL 0" + (", CANNOT TELL at most 20%" if load == "idle" else "")
    how = "alone" if pairs_together == 1 else f"{pairs_together} together"
    how += f", {processes} processes each" if processes > 1 else ""
    verdicts = " | ".join(str(counts[verdict]) for verdict in (PASS, FAIL, CANNOT_TELL))
    middle = ", ".join("" if ratio is None else f"{ratio:.3f}" for ratio in ratios)
    spread = "" if width is None else f"{width:.2f}"
    return f"| {load} | {second} | {how} | {verdicts} | {must} | {middle} | {spread} | {seconds:.0f} |"


def judged(pairs: Sequence[tuple[Report, Report]]) -> Diff:
    """Return the comparison of two saved runs, or of pairs of runs that took turns."""
    return compare(*pairs[0]) if len(pairs) == 1 else compare_in_turn(pairs)


def between_processes(runs: Sequence[Report]) -> tuple[float, float]:
    """Return the coefficient of variation of the total between runs, in wall time and at one speed of the host."""
    times = [run.time for run in runs if run.time]
    wall = [time.whole_interquartile_mean_s for time in times]
    return variation(wall), variation([at_the_speed_of(times[0], time) for time in times])


def at_the_speed_of(first: Time, other: Time) -> float:
    """Return the median of the second total at the speed that the host had in the first run."""
    hosts = at_same_speed(first.yardsticks, other.yardsticks)
    assert hosts is not None
    return statistics.median(normalized(other.whole_samples_s, hosts[1][WHOLE]))


def main() -> None:
    if sys.argv[1:2] == ["run"]:
        path, twice, processes, budget_s, device = sys.argv[2:]
        save_run(Path(path), json.loads(twice), int(processes), float(budget_s), device)
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", default=["leader", "gate"], choices=["leader", "gate", []])
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--loads", nargs="+", choices=list(LOADS), help="all of them, or idle for a GPU")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, FEWEST_PROCESSES])
    parser.add_argument("--races", type=int, default=RACES)
    parser.add_argument("--budget", type=float, default=BUDGET_S)
    parser.add_argument("--device", choices=list(GATED), default="cpu")
    arguments = parser.parse_args()
    if "leader" in arguments.figures:
        leader(arguments.races, arguments.budget, arguments.device)
    if "gate" in arguments.figures:
        loads = arguments.loads or (list(LOADS) if arguments.device == "cpu" else ["idle"])
        gates(arguments.pairs, arguments.budget, arguments.device, loads, arguments.processes)


if __name__ == "__main__":
    main()
