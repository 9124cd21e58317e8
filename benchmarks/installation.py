"""Megabytes of a fresh environment with attnscope, seconds of the README's first command, and minutes of the tests.

python -m benchmarks.installation [ENVIRONMENT]

Without the folder of an environment, the README's two commands install into a new one, and run. With one, nothing is
installed and no test runs.
"""

import re
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from benchmarks.ratios import HEAD, Ratio

ROOT = Path(__file__).parents[1]
OF_TORCH = ("torch", "nvidia", "triton", "cuda", "functorch", "torchgen")
"""The folders of torch and of its CUDA libraries."""
MOST_MINUTES = 25
"""The limit of `.ci/run`. A figure that is measured once is given twice, since a Ratio has quartiles."""


def commands() -> list[str]:
    """Return the README's two commands: install and run, install and test."""
    return re.findall(
        r"^    (python -m pip install .*)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )[:2]


def seconds(environment: Path, command: str) -> float:
    """Return the seconds of a command of a shell in the environment, in the root of the repository."""
    began = time.perf_counter()
    line = f'. "{environment}/bin/activate" && {command}'
    subprocess.run(["bash", "-euo", "pipefail", "-c", line], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    return time.perf_counter() - began


def megabytes(*folders: Path) -> float:
    """Return the size of all files below the folders, in MB; a link to a file counts as none."""
    files = (file for folder in folders for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    return sum(file.stat().st_size for file in files) / 1e6


def rows(environment: Path) -> list[Ratio]:
    """Return the size of an environment over that of torch, and the first command over importing torch."""
    (packages,) = environment.glob("lib/python*/site-packages")
    torch = megabytes(*(packages / name for name in OF_TORCH))
    whole = megabytes(environment)
    first = commands()[0].partition("&& ")[2]
    pairs = [(seconds(environment, first), seconds(environment, "python -c 'import torch'")) for _ in range(3)]
    return [
        Ratio(f"fresh environment, {whole:,.0f} MB over torch and its libraries, {torch:,.0f} MB", [whole / torch] * 2),
        Ratio(
            f"the README's first command, {min(command for command, _ in pairs):.1f} s over importing torch",
            [command / alone for command, alone in pairs],
        ),
    ]


def main() -> None:
    """Print the figures."""
    print(HEAD)
    if sys.argv[1:]:
        for row in rows(Path(sys.argv[1])):
            print(row)
        return
    with tempfile.TemporaryDirectory() as name:
        environment = Path(name)
        venv.create(environment, with_pip=True)
        install, test = (command.split(" && ") for command in commands())
        minutes = seconds(environment, install[0]) / 60
        for row in rows(environment):
            print(row)
        print(Ratio(f"installing, {minutes:.1f} minutes over the limit of .ci/run", [minutes / MOST_MINUTES] * 2))
        seconds(environment, test[0])
        minutes = seconds(environment, test[1]) / 60
        print(Ratio(f"the tests, {minutes:.1f} minutes over the limit of .ci/run", [minutes / MOST_MINUTES] * 2, 1.0))


if __name__ == "__main__":
    main()
