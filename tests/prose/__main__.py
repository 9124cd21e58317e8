"""The prose linter: `python -m tests.prose [FILE...]` checks every sentence against `vocabulary.yml`; needs Node.js."""

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.prose.source import prose

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PACKAGES = HERE / "node_modules"
CHECKED = (
    "*.md",
    "attnscope/**/*.py",
    "benchmarks/*.py",
    "benchmarks/*.md",
    "docs/**/*.md",
    "examples/**/*.py",
    "tests/**/*.py",
)


def main(names: list[str]) -> int:
    """Check the named files, or all; print `FILE:LINE:COLUMN: message`; return 1 if there is a finding, else 0."""
    if not PACKAGES.exists():
        install = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent"]
        subprocess.run(install, cwd=HERE, check=True)
    paths = [Path(name).resolve() for name in names] or [
        path for pattern in CHECKED for path in sorted(ROOT.glob(pattern)) if PACKAGES not in path.parents
    ]
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            copy = Path(folder, f"{path.relative_to(ROOT)}.md")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(prose(path), encoding="utf-8")
        command = ["npx", "--no-install", "textlint", "--config", HERE / "textlint.json", "--format", "unix", folder]
        run = subprocess.run(command, cwd=HERE, text=True, capture_output=True, check=False)
    print(run.stdout.replace(f"{Path(folder).resolve()}/", "").replace(".md:", ":") + run.stderr, end="")
    return run.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
