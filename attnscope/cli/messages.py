"""Lines on stderr, each of one command's errors, warnings and notes."""

import sys
from collections.abc import Sequence

from attnscope.cli.help import encodable
from attnscope.core.text import visible


def say(message: str) -> None:
    """Write a message to stderr as one line, in characters that stderr can encode, and without hidden ones."""
    print(encodable(visible(" ".join(message.split())), sys.stderr), file=sys.stderr)


def say_findings(form: str, figure: Sequence[str], warnings: Sequence[str]) -> None:
    """Write what a table without lines below it leaves out: the conventions of a figure, and warnings."""
    if form in ("csv", "mermaid", "dot"):
        for line in figure:
            say(f"attnscope: {line}")
        for warning in warnings:
            say(f"attnscope: warning: {warning}")
