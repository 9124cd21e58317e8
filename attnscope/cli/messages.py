"""Lines on stderr, each of one command's errors, warnings and notes."""

import sys

from attnscope.cli.help import encodable
from attnscope.core.text import visible


def say(message: str) -> None:
    """Write a message to stderr as one line, in characters that stderr can encode, and without hidden ones."""
    print(encodable(visible(" ".join(message.split())), sys.stderr), file=sys.stderr)
