"""The terminal: whether it shows colors, and how a long command is broken into lines."""

import os
import re
from collections.abc import Mapping
from typing import TextIO

WORDS = re.compile(r"(?:[^\s'\"]|'[^']*'|\"[^\"]*\")+")
"""The words of a command line; quotes keep spaces in a word."""


def shows_color(stream: TextIO, env: Mapping[str, str] = os.environ) -> bool:
    """Return whether to write colours to a stream: to a terminal, or if FORCE_COLOR is set, but never with NO_COLOR."""
    if env.get("NO_COLOR") or env.get("TERM") == "dumb":
        return False
    return stream.isatty() or bool(env.get("FORCE_COLOR"))


def fold(command: str, width: int) -> list[str]:
    """Break a command into lines of at most `width` columns that a shell reads as one; a longer word has its own."""
    lines: list[str] = []
    line = ""
    for word in WORDS.findall(command):
        if line and len(line) + len(word) + len("  \\") > width:
            lines.append(f"{line} \\")
            line = f"    {word}"
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]
