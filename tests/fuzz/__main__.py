"""The command: `python -m tests.fuzz [--lines N] [--files N] [--seed S]`."""

import argparse
import os
import random
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz import edits, places
from tests.fuzz.lines import command_line, environment
from tests.fuzz.runs import Fault, run

MOST_MEMORY = 16 * 2**30
"""Bytes of addresses of this process, so that a line that needs more fails and not the machine."""


def faults(lines: int, files: int, seed: int, folder: Path, verbose: bool = False) -> Iterator[Fault]:
    """Yield the faults of random lines, then of edited runs and config files. The current folder is changed."""
    place = places.place(folder)
    saved = (folder / "run.json").read_text(encoding="utf-8")  # lines may write to the file
    before = Path.cwd()
    os.chdir(folder)
    try:
        for index in range(lines):
            rng = random.Random(f"{seed} line {index}")
            words, variables = command_line(rng, place), environment(rng, place)
            if verbose:
                print(index, *map(ascii, words), variables or "", flush=True)
            if fault := run(words, variables):
                yield fault
        for index in range(files):
            rng = random.Random(f"{seed} file {index}")
            if index % 2:
                Path("edited.json").write_text(edits.edited_run(rng, saved), encoding="utf-8")
                words = ["diff", *rng.sample(["edited.json", "run.json"], 2)]
            else:
                Path("edited.toml").write_text(edits.config(rng), encoding="utf-8")
                words = [rng.choice(("vit", "swin", "pvt")), "--no-time", "--config", "edited.toml"]
            if fault := run(words, {}):
                yield Fault(fault.what, fault.words, {}, f"{Path(words[-1]).read_text()[:300]}\n{fault.details}")
    finally:
        os.chdir(before)


def main() -> None:
    """Print each fault, and exit with 1 if there is one."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=main.__doc__)
    parser.add_argument("--lines", type=int, default=20_000, metavar="N", help="Number of command lines.")
    parser.add_argument("--files", type=int, default=2_000, metavar="N", help="Number of edited runs and config files.")
    parser.add_argument("--verbose", action="store_true", help="Print each line before it runs.")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="Random seed.")
    chosen = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    found = 0
    with tempfile.TemporaryDirectory() as folder:
        for fault in faults(chosen.lines, chosen.files, chosen.seed, Path(folder), chosen.verbose):
            found += 1
            print(fault, flush=True)
    print(f"{chosen.lines} lines and {chosen.files} files: {found} faults")
    raise SystemExit(found > 0)


if __name__ == "__main__":
    main()
