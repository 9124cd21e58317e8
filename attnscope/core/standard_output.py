"""Standard output, which is for the result of a command alone.

Modules print when they are deleted and at exit, C libraries and subprocesses write to file descriptor 1 at any time. A
result in JSON or CSV must remain parseable beside them.
"""

import os
import sys
from contextlib import suppress
from typing import TextIO

_results: TextIO | None = None
"""The stream of results, if it is another one than `sys.stdout`."""


def results() -> TextIO:
    """Return the stream to which a command writes its result."""
    return sys.stdout if _results is None else _results


def reserve_stdout() -> None:
    """Show on stderr what this process and its subprocesses write to stdout from now on; stdout is for `results` alone.

    A stream that somebody has put in place of that of the process, as tests do, stays.
    """
    global _results
    stream = sys.stdout
    if _results is not None or not _is_of_process(stream):
        return
    stream.flush()
    with suppress(OSError):  # stderr is closed
        own = os.dup(1)
        os.dup2(2, 1)
        _results = os.fdopen(own, "w", encoding=stream.encoding, errors=stream.errors)
        sys.stdout = sys.stderr


def _is_of_process(stream: TextIO) -> bool:
    """Return whether a stream is that of the process, which writes to file descriptor 1."""
    try:
        return stream is sys.__stdout__ and stream.fileno() == 1
    except (OSError, ValueError):
        return False
