"""Ctrl-C and SIGTERM: the command leaves its `with` blocks in order and ends with a line and an exit code of its own."""

import atexit
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
"""The word for a command that a signal stopped, by the signal."""


class Interruption:
    """The first signal that stopped a command; None if none did."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Stop the command. A second signal ends the process at once."""
        self.signal = self.signal or number
        signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt

    def exit(self) -> None:
        """Write what stopped the command, and exit with 128 and the number of the signal, as shells do."""
        assert self.signal is not None
        print(f"attnscope: {WORDS[signal.Signals(self.signal)]}", file=sys.stderr)
        sys.exit(128 + self.signal)


@contextmanager
def interruptible() -> Iterator[None]:
    """Stop the `with` block on Ctrl-C and on SIGTERM, then exit. The block may have caught the exception.

    A signal that the caller ignores, as a shell does for Ctrl-C in the background, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread receives signals
        return
    interruption = Interruption()
    before = {number: signal.getsignal(number) for number in WORDS}
    caught = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in caught:
        signal.signal(number, interruption.stop)
    try:
        yield
    except KeyboardInterrupt:
        interruption.signal = interruption.signal or signal.SIGINT
    finally:
        for number in caught:
            signal.signal(number, before[number])
        atexit.register(ignore)
        if interruption.signal is not None:
            interruption.exit()


def ignore() -> None:
    """Ignore both signals, since Python would show a traceback if one arrives while it ends."""
    for number in WORDS:
        signal.signal(number, signal.SIG_IGN)
