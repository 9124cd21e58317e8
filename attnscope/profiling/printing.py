"""Show on stderr what the code of a user prints, of a measurement the beginning alone."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO, cast

MOST_LINES = 60
"""Lines that are shown. A timed forward runs a thousand times, and so does each `print` in it."""
HIDDEN = f"attnscope: hides what the module prints after {MOST_LINES} lines\n"


@contextmanager
def prints_on_stderr(repeats: bool = False) -> Iterator[None]:
    """Show on stderr what is printed within a `with` block, so that stdout has the result alone.

    Args:
        repeats: whether the code runs again and again, as in a measurement; then only the first lines are shown.
    """
    with redirect_stdout(cast(TextIO, _Beginning(sys.stderr)) if repeats else sys.stderr):
        yield


class _Beginning:
    """A text stream that drops what is written after its first lines. It has the other attributes of the stream below.

    Args:
        stream: the stream that receives the first lines.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._left = MOST_LINES

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write the lines of a text that are left, and a line that says so where they end."""
        if self._left > 0:
            lines = text.splitlines(keepends=True)
            self._stream.write("".join(lines[: self._left]))
            self._left -= sum(line.endswith("\n") for line in lines)
            if self._left <= 0:
                self._stream.write(HIDDEN)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write each of the lines, up to the last one that is shown."""
        for line in lines:
            self.write(line)
