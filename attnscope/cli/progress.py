"""A line with the progress of a long run, on stderr if it is a terminal."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attnscope.core.text import visible

AFTER_S, EVERY_S = 1.0, 0.2
CLEAR = "\r\x1b[K"


@contextmanager
def progress_line(doing: str = "measuring", quiet: bool = False) -> Iterator[Callable[[str, float], None] | None]:
    """Show a progress line during a with block.

    Args:
        doing: the first word of the line.
        quiet: show none.

    Yields:
        A function of the name of the measurement and its completed fraction, or None if stderr is not a terminal.
    """
    if quiet or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":  # a dumb terminal cannot clear a line
        yield None
        return
    drawn = time.perf_counter() + AFTER_S - EVERY_S
    shown = False

    def show(words: str, share: float) -> None:
        nonlocal drawn, shown
        now = time.perf_counter()
        if now - drawn >= EVERY_S:
            drawn, shown = now, True
            sys.stderr.write(f"{CLEAR}{doing} {visible(words)} {share:.0%}")
            sys.stderr.flush()

    try:
        yield show
    finally:
        if shown:
            sys.stderr.write(CLEAR)
            sys.stderr.flush()
