"""A line on stderr that tells how far a long run has come, where stderr is a terminal."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

AFTER_S, EVERY_S = 1.0, 0.2
CLEAR = "\r\x1b[K"


@contextmanager
def progress_line() -> Iterator[Callable[[str, float], None] | None]:
    """For the length of a with block: what is to be told what is measured, and which share of it is done.

    None where nobody would see it.
    """
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":  # which cannot clear a line
        yield None
        return
    drawn = time.perf_counter() + AFTER_S - EVERY_S
    shown = False

    def tell(words: str, share: float) -> None:
        nonlocal drawn, shown
        now = time.perf_counter()
        if now - drawn >= EVERY_S:
            drawn, shown = now, True
            sys.stderr.write(f"{CLEAR}measuring {words} {share:.0%}")
            sys.stderr.flush()

    try:
        yield tell
    finally:
        if shown:
            sys.stderr.write(CLEAR)
            sys.stderr.flush()
