"""Lines on stderr, each of one command's errors, warnings and notes."""

import sys
from collections.abc import Sequence

from attnscope.cli.help import encodable
from attnscope.core.text import shortened, visible

LONGEST, LONGEST_WORD = 10_000, 500
"""Characters of a line and of a word in it: a value that a program generated may have megabytes."""


def say(message: str) -> None:
    """Write a message to stderr as one line, in characters that it can encode, without hidden ones, long values cut."""
    line = " ".join(shortened(word, LONGEST_WORD) for word in message.split())
    print(encodable(visible(shortened(line, LONGEST)), sys.stderr), file=sys.stderr)


def say_findings(form: str, figure: Sequence[str], warnings: Sequence[str]) -> None:
    """Write what a table without lines below it leaves out: the conventions of a figure, and warnings."""
    if form in ("csv", "mermaid", "dot"):
        for line in figure:
            say(f"attnscope: {line}")
        for warning in warnings:
            say(f"attnscope: warning: {warning}")
