"""Peak memory of ten commands, over that of a program that only imports torch.

python -m benchmarks.memory
"""

import os
import shlex
import statistics
import subprocess
import sys

from benchmarks.ratios import HEAD, Ratio

RUNS = 3
TORCH = "-c 'import torch'"
COMMANDS = (
    "--help",
    "presets",
    "swin --window 7 --shift --no-time",
    "swin --preset swin-b-224 --scope model --no-time",
    "windows --resolution 56 --shift",
    "compare --over resolution=14:112:2x",
    "compare --over batch=1:10000 --format csv",
    "vit --preset vit-b-16-224",
    "swin --preset swin-t-224 --scope model --backward",
    "trace torchvision:swin_t --device meta --no-time",
)
UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes of the unit of ru_maxrss."""


def peak_bytes(words: str) -> int:
    """Return the largest resident memory of a Python process with these arguments, in bytes."""
    process = subprocess.Popen(
        [sys.executable, *shlex.split(words)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, words
    return used.ru_maxrss * UNIT


def main() -> None:
    """Measure the commands and torch in turn."""
    print(HEAD)
    for words in COMMANDS:
        pairs = [(peak_bytes(f"-m attnscope {words}"), peak_bytes(TORCH)) for _ in range(RUNS)]
        own, torch = (statistics.median(sizes) / 2**20 for sizes in zip(*pairs, strict=True))
        name = f"peak memory of `attnscope {words}`, {own:,.0f} MiB over importing torch, {torch:,.0f} MiB"
        print(Ratio(name, [command / anchor for command, anchor in pairs]))


if __name__ == "__main__":
    main()
