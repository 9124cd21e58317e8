"""Failures that no rule foresees: of the system, such as a file name that is too long, and of a library below a run."""

import os
import shlex
import sys

import typer

from attnscope.core.errors import in_a_line

shows_traceback = False
"""The value of --debug; if it is set, an unexpected error keeps its traceback."""


def show_traceback(context: typer.Context, wanted: bool) -> None:
    """Set whether an unexpected error keeps its traceback."""
    global shows_traceback
    if not context.resilient_parsing:
        shows_traceback = wanted


def of_system(error: OSError) -> str:
    """Return the message for a file that the system refuses: its path and the reason."""
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    reason = error.strerror or str(error)
    return f"{' → '.join(names)} cannot be used: {reason}" if names else f"the system refused: {reason}"


def of_library(error: BaseException) -> str:
    """Return the message for an error that nothing foresees: what was run, and how to report it."""
    words = sys.argv[1:]
    return (
        f"{in_a_line(error)} (unexpected, in attnscope {shlex.join(words)}); "
        f"run attnscope --debug {shlex.join(words)} for the traceback, and report it"
    )
