"""Time of `attnscope windows` as a whole process, and how it grows with the resolution.

python -m benchmarks.windows
"""

import tempfile
from pathlib import Path

from benchmarks.ratios import HEAD, of_processes
from benchmarks.startup import HELLO


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        hello = Path(folder) / "hello.py"
        hello.write_text(HELLO)
        small, large = (f"-m attnscope windows --resolution {side} --window 7 --shift" for side in (14, 448))
        print(HEAD)
        print(of_processes("`attnscope windows` over a Typer program", small, str(hello), 2.0))
        print(of_processes("448x448 over 14x14 as JSON", f"{large} --json", f"{small} --json", 5.0))


if __name__ == "__main__":
    main()
