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

KEYS = ("left", "right", "left", "right", "up", "down", "shift+right", "shift+left", "tab", "p", "u", "r")
SIZES = ((80, 24), (120, 40), (200, 60))
COUNT = 150
ROUNDS = 7
START = """
from attnscope.attentions import spec_class
from attnscope.attentions.draft import Draft
from attnscope.tui.explorer import Explorer
app = Explorer(Draft(spec_class("vit")))
app.call_later(app.call_after_refresh, app.exit)
app.run(headless=True)
"""


async def keys(draft: Draft, size: tuple[int, int], pane: int) -> list[float]:
    """Return the processor seconds of random keys, each until the screen is updated."""
    random.seed(0)
    app = Explorer(draft)
    found = []
    async with app.run_test(size=size) as pilot:
        await pilot.press(str(pane))
        for key in random.choices(KEYS, k=COUNT):
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


def start_over(*words: str) -> list[float]:
    """Return the processor time of the explorer's start over that of another process, one value for each round."""
    return sorted(cpu_s("-c", START) / cpu_s(*words) for _ in range(ROUNDS))


def main() -> None:
    largest = max(presets(), key=lambda preset: len(preset.spec.plan().steps) * preset.macs)
    cases = {"swin": (Draft(attentions.spec_class("swin")), 25), largest.name: (Draft.of(largest.spec), 50)}
    for name, (draft, limit) in cases.items():
        for size in SIZES:
            for place, pane in enumerate(PANES, start=1):
                found = asyncio.run(keys(draft, size, place))
                print(f"{name} {size[0]}×{size[1]} {pane}: p95 {p95(found):.1f} ms of processor time (limit {limit})")
    importing = start_over("-c", "import textual.app")
    print(f"start over importing textual.app: {importing[ROUNDS // 2]:.2f} (limit 2.5)")


if __name__ == "__main__":
    main()
