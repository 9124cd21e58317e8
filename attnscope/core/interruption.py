"""Ctrl-C and SIGTERM, where they may not arrive: a terminal sends Ctrl-C to a command and to all that it starts."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


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


@contextmanager
def postponed() -> Iterator[None]:
    """Handle Ctrl-C and SIGTERM at the end of a `with` block that an exception of a handler would break.

    A second signal ends the process at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        signal.signal(number, signal.SIG_DFL)

    handled = [number for number, handler in handlers.items() if callable(handler)]  # others do not run Python
    for number in handled:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, handlers[number])
        if came:
            signal.raise_signal(came[0])
