"""Ctrl-C, which a terminal sends to a command and to all processes that it starts."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore Ctrl-C within a `with` block; the processes that the block starts ignore it as long as they run."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread sets handlers
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
