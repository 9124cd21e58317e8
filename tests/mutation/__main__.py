"""The command: `python -m tests.mutation [FILES…] [--sample N] [--seed S]`."""

import argparse
import os
import random
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from tests.mutation.forks import TREE, copies
from tests.mutation.mutants import Mutant, mutants
from tests.mutation.runs import Outcome, record, try_mutants

ROOMS = ("ops", "plan", "profiling", "tracing")


def main() -> None:
    """Run the mutants of some files; print each file's score and the mutants that no test killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=main.__doc__)
    parser.add_argument("files", nargs="*", help=f"Files or folders of attnscope (default: {', '.join(ROOMS)}).")
    parser.add_argument(
        "--sample", type=int, metavar="N", help="Number of mutants to run for each file (default: all)."
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="Random seed of the sample (default: 0).")
    parser.add_argument("--tests", nargs="+", metavar="FILE", help="Test files to run (default: all).")
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="Seconds of tests to run for each mutant (default: 10)."
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count(),
        help="Number of mutants to run in parallel (default: one for each CPU).",
    )
    options = parser.parse_args()

    names = [*_sources(options.files or [f"attnscope/{room}" for room in ROOMS])]
    tests = [Path(path).resolve() for path in options.tests or sorted((TREE / "tests").glob("test_*.py"))]
    began = time.monotonic()
    outcomes: list[Outcome] = []
    with copies(options.jobs) as trees:
        sources = {name: (trees[0] / name).read_text(encoding="utf-8") for name in names}
        chosen = [
            (name, mutant) for name in names for mutant in _sample(mutants(sources[name]), options.sample, options.seed)
        ]
        recorded = record(tests, trees)
        print(f"{len(chosen)} mutants, {len(recorded)} tests", file=sys.stderr)
        with suppress(KeyboardInterrupt):  # the mutants that were run so far are reported
            for outcome in try_mutants(chosen, recorded, trees, options.seconds):
                outcomes.append(outcome)
                print(f"\r{len(outcomes)}/{len(chosen)} {outcome.end:<8}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(_report(outcomes, sources))
    print(f"{len(outcomes)} mutants in {time.monotonic() - began:.0f} s")


def _sources(paths: list[str]) -> list[str]:
    files = [
        file for path in paths for file in sorted(Path(path).rglob("*.py") if Path(path).is_dir() else [Path(path)])
    ]
    return [str(file.resolve().relative_to(TREE)) for file in files]


def _sample(every: list[Mutant], number: int | None, seed: int) -> list[Mutant]:
    if number is None or number >= len(every):
        return every
    return sorted(random.Random(seed).sample(every, number), key=lambda mutant: mutant.start)


def _report(outcomes: list[Outcome], sources: dict[str, str]) -> str:
    lines = [f"{'file':<48} {'mutants':>7} {'killed':>6} {'survived':>8} {'not run':>7} {'score':>6}"]
    total: Counter[str] = Counter()
    for name in sources:
        ends = Counter(outcome.end for outcome in outcomes if outcome.path == name)
        total += ends
        if ends:
            lines.append(_row(name, ends))
    lines.append(_row("all", total))
    for outcome in sorted(outcomes, key=lambda outcome: (outcome.path, outcome.mutant.start)):
        if outcome.end in ("survived", "not run"):
            verdict = "no test runs it" if outcome.end == "not run" else f"survives {outcome.tests} tests"
            lines += [
                "",
                f"{outcome.path}:{outcome.mutant.line}: {verdict}",
                outcome.mutant.diff(sources[outcome.path]),
            ]
    return "\n".join(lines)


def _row(name: str, ends: Counter[str]) -> str:
    tried, killed = ends.total(), ends["killed"] + ends["timeout"]
    score = f"{killed / tried:.0%}" if tried else ""
    return f"{name:<48} {tried:>7} {killed:>6} {ends['survived']:>8} {ends['not run']:>7} {score:>6}"


if __name__ == "__main__":
    main()
