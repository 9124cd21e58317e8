"""The page of figures, docs/figures.md: `python -m benchmarks.figures [SCRIPT...]` measures all scripts, or the named ones.

Each script runs in a process of its own, and prints its figures as rows. The others keep what the page has.
"""

import os
import platform
import re
import subprocess
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path

from attnscope.profiling.host import processor_name

PAGE = Path(__file__).parents[1] / "docs" / "figures.md"
SCRIPTS = {
    "installation": "How large is a fresh environment, and how long do the README's commands take?",
    "startup": "How long does a command take that runs nothing?",
    "memory": "How much memory do commands take?",
    "counting": "How long does counting take, and are the MACs equal?",
    "forward": "Are the modules as fast as timm's, and do the steps add up?",
    "networks": "Are the networks as fast as timm's?",
    "windows": "How long do pictures take?",
    "compare": "How long does a comparison take, and is the break-even exact?",
}
"""The scripts with the question that each answers."""
HEAD = """\
# Figures

This page answers: how fast and how exact is attnscope, beside the tools that people use?

Each figure is a ratio of two measurements that took turns on one machine. The second one is the anchor: a tool, a library
or a program without attnscope. A median outside the bar is MISSED. Ratios scatter if other programs keep the cores busy
(a load above the number of cores), as the quartiles show.

`python -m benchmarks.figures` measures all again and writes this page; `benchmarks/README.md` explains the figures.
"""
COLUMNS = "| figure | anchor | median | quartiles | bar | |\n|---|---|---|---|---|---|\n"


def machine() -> str:
    """Return the machine, the versions and the date of this run."""
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "timm", "fvcore"))
    return (
        f"{date.today()}: {processor_name()}, {os.cpu_count()} cores{load}, {platform.system()}, "
        f"Python {platform.python_version()}, {versions}"
    )


def measured(script: str) -> str:
    """Run a script, and return its section: the question, the machine, and a row for each figure."""
    before = machine()
    done = subprocess.run([sys.executable, "-m", f"benchmarks.{script}"], capture_output=True, text=True, check=True)
    rows = [
        [cell.strip() for cell in line.strip("| ").split(" | ")]
        for line in done.stdout.splitlines()
        if line[:2] == "| "
    ]
    return section(script, before, [row for row in rows if row[0] != "figure"])


def section(script: str, where: str, rows: list[list[str]]) -> str:
    """Return the section of a script; the anchor is the last part of a figure's name, after "over"."""
    lines = []
    for name, *cells in rows:
        figure, over, anchor = name.rpartition(" over ")
        figure, anchor = (figure, anchor) if over else (name, "")
        lines.append(f"| {figure} | {anchor} | {' | '.join([*cells, '', '', '', ''][:4])} |\n")
    return f"\n## {SCRIPTS[script]}\n\n`python -m benchmarks.{script}`, {where}.\n\n{COLUMNS}{''.join(lines)}"


def written() -> dict[str, str]:
    """Return the sections of the page by their scripts."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    sections = re.split(r"(?=^\n## )", text, flags=re.MULTILINE)[1:]
    return {found[1]: each for each in sections if (found := re.search(r"`python -m benchmarks\.(\w+)`", each))}


def main(names: list[str]) -> None:
    """Measure the named scripts, or all, and write the page."""
    sections = written()
    for script in names or SCRIPTS:
        print(f"{script} ...", file=sys.stderr)
        sections[script] = measured(script)
        ordered = [sections[each] for each in SCRIPTS if each in sections]
        PAGE.write_text(HEAD + "".join(ordered), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
