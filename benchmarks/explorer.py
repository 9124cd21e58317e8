"""Processor time of the explorer: of a key until the screen is updated, and of its start.

python -m benchmarks.explorer
"""

import asyncio
import random
import resource
import subprocess
import sys
import time

from attnscope import attentions
from attnscope.attentions.draft import Draft
from attnscope.networks.presets import presets
from attnscope.tui.explorer import Explorer
from attnscope.tui.panes import PANES

KEYS = ("left", "right", "right", "up", "down", "down", "p", "u", "r")
"""Keys that change a Spec a little, so that a network keeps about its size."""
SIZES = ((80, 24), (120, 40), (200, 60))
COUNT = 40
"""Keys in each pane."""
ROUNDS = 7
START = """
from attnscope.attentions import spec_class
from attnscope.attentions.draft import Draft
from attnscope.tui.explorer import Explorer
app = Explorer(Draft(spec_class("vit")))
app.call_later(app.call_after_refresh, app.exit)
app.run(headless=True)
"""


async def keys(draft: Draft, size: tuple[int, int]) -> list[float]:
    """Return the processor seconds of random keys in every pane, each until the screen is updated."""
    random.seed(0)
    app = Explorer(draft)
    found = []
    async with app.run_test(size=size) as pilot:
        for pane in range(1, len(PANES) + 1):
            await pilot.press(str(pane), "down", "down")
            for key in random.choices(KEYS, k=COUNT):
                while app.row is not None and not app.row.group:  # another attention would be another case
                    await pilot.press("down")
                await pilot.pause()
                before = time.process_time()
                await pilot.press(key)
                found.append(time.process_time() - before)
    return found


def p95(seconds: list[float]) -> float:
    """Return the 95th percentile in milliseconds."""
    return 1e3 * sorted(seconds)[int(0.95 * len(seconds))]


def cpu_s(*words: str) -> float:
    """Return the processor time of a Python process, in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def start_over(*others: tuple[str, ...]) -> float:
    """Return the processor time of the explorer's start over that of other processes together, the median of rounds."""
    return sorted(cpu_s("-c", START) / sum(cpu_s(*words) for words in others) for _ in range(ROUNDS))[ROUNDS // 2]


def main() -> None:
    """Print the figures, each with its limit."""
    largest = max(presets(), key=lambda preset: len(preset.spec.plan().steps) * preset.macs)
    cases = {"swin": (Draft(attentions.spec_class("swin")), 25), largest.name: (Draft.of(largest.spec), 50)}
    importing, vit = ("-c", "import textual.app"), ("-m", "attnscope", "vit", "--no-time")
    print(f"start over importing Textual: {start_over(importing):.2f} (limit 2.5)")
    print(f"start over importing Textual and `vit --no-time`: {start_over(importing, vit):.2f} (limit 1.3)")
    for name, (draft, limit) in cases.items():
        for size in SIZES:
            found = p95(asyncio.run(keys(draft, size)))
            print(f"{name} at {size[0]}×{size[1]}: p95 of a key {found:.1f} ms of processor time (limit {limit})")


if __name__ == "__main__":
    main()
