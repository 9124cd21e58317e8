"""Start-up time of `attnscope compare`, cost of a long range and of many contenders, and accuracy of the break-evens.

python -m benchmarks.compare
"""

import tempfile
from pathlib import Path

from attnscope.analyses.comparison import compare
from benchmarks.ratios import HEAD, Ratio, of_processes
from benchmarks.startup import HELLO

TEN = "vit swin swin:shift swinv2 nat pvt:reduction=4 maxvit xca cross cswin"
"""Contenders of ten kinds, one of which cannot take a shared setting."""


def break_evens() -> Ratio:
    """Return the computed break-even over the exact one, M² tokens, for several widths and windows; it must be 1."""
    ratios = []
    for heads in (1, 3, 8):
        for window in (2, 7, 8, 12):
            found = compare(
                ("vit", "swin"), {"resolution": [window * 5]}, dim=32 * heads, heads=heads, window=(window, window)
            )
            assert {crossing.tokens for crossing in found.crossovers} == {window**2}
            ratios += [crossing.tokens / window**2 for crossing in found.crossovers]
    return Ratio("break-even over the exact solution", ratios, 1.0, 1.0)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        hello = Path(folder) / "hello.py"
        hello.write_text(HELLO)
        print(HEAD)
        print(of_processes("`attnscope compare` over a Typer program", "-m attnscope compare", str(hello), 2.2))
    few, many = (f"-m attnscope compare --over resolution=7:{stop}:7 --json" for stop in (70, 70_000))
    print(of_processes("10,000 points (JSON) over 10 points", many, few, 4, pairs=9))
    few, many = (f"-m attnscope compare {TEN} --over resolution=7:{stop}:7 --json" for stop in (70, 7_000))
    print(of_processes("10 contenders over 1,000 sizes, over 10 sizes", many, few, 6, pairs=9))
    print(break_evens())


if __name__ == "__main__":
    main()
