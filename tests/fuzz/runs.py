"""A command line in this process: how it ended, how long it took, and how much memory it kept."""

import contextlib
import io
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from unittest import mock

import psutil

from attnscope.cli.program import main
from attnscope.core.text import HIDDEN

LONGEST_S, MOST_GROWTH = 10, 2**30
"""Seconds of the processor for a line that measures no times, and bytes that a line may keep.

A line that waits takes none; it has WAIT times as many seconds, as other programs may keep a processor busy.
"""
WAIT = 12
MEASURES = {"peaks", "--time", "--kernels", "--rerun", "--against", "--processes", "--until", "--backward"}
CODES = {0, 1, 2, 3, 4}


@dataclass(frozen=True)
class Fault:
    """A line that did not end as it should: what happened, and the line with its variables."""

    what: str
    words: tuple[str, ...]
    variables: Mapping[str, str]
    details: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {' '.join(map(ascii, self.words))} {dict(self.variables) or ''}\n{self.details}"


class TooLong(BaseException):
    """A line takes longer than LONGEST_S."""


def run(words: Sequence[str], variables: Mapping[str, str]) -> Fault | None:
    """Run a line in the current folder; return its fault, if it has one."""
    longest_s = LONGEST_S * (6 if MEASURES & {*words} else 1)
    before, out, err = psutil.Process().memory_info().rss, _stream(), _stream()
    began, found, code = time.process_time(), "", None
    with mock.patch.dict(os.environ, variables), mock.patch.object(sys, "argv", ["attnscope", "--debug", *words]):
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _limited(longest_s):
                main()
        except SystemExit as ended:
            code = ended.code
        except TooLong:
            return Fault("hang", tuple(words), variables, traceback.format_exc(limit=-6))
        except BaseException:
            return Fault("traceback", tuple(words), variables, traceback.format_exc(limit=-6))
    said = _text(err)
    grown = psutil.Process().memory_info().rss - before
    if code not in CODES:
        found = f"exit code {code}"
    elif code in (2, 3) and not said.rpartition("\nattnscope: ")[2] and not said.startswith("attnscope: "):
        found = "no line"
    elif code in (2, 3) and HIDDEN.search(said.replace("\n", "")):
        found = "hidden characters"
    elif grown > MOST_GROWTH:
        found = f"growth of {grown / 2**20:.0f} MiB"
    elif time.process_time() - began > longest_s:
        found = "hang"
    return Fault(found, tuple(words), variables, said[-500:]) if found else None


def _stream() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8")


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    return stream.buffer.getvalue().decode("utf-8", "replace")  # type: ignore[attr-defined]


@contextlib.contextmanager
def _limited(longest_s: float) -> Iterator[None]:
    """Raise TooLong at twice the limit of processor time, or at the limit of waiting."""

    def stop(*_: object) -> None:
        raise TooLong

    timers = {
        signal.SIGPROF: (signal.ITIMER_PROF, 2 * longest_s),
        signal.SIGALRM: (signal.ITIMER_REAL, WAIT * longest_s),
    }
    before = {number: signal.signal(number, stop) for number in timers}
    for timer, limit_s in timers.values():
        signal.setitimer(timer, limit_s)
    try:
        yield
    finally:
        for number, (timer, _) in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])
