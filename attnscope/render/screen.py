"""What the output can show: its width, its colours, its letters."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

ASCII = str.maketrans(
    {
        "×": "x",
        "·": "-",
        "–": "-",
        "─": "-",
        "━": "-",
        "…": "~",
        "µ": "u",  # the micro sign
        "μ": "u",  # the Greek letter
        "█": "#",
        "▉": "#",
        "▊": "#",
        "▋": "#",
        "▌": "#",
        "▍": "+",
        "▎": "+",
        "▏": "+",
        "✓": "(ok)",
        "✗": "(NOT)",
        "Ω": "O",
        "²": "^2",
        "ᵀ": "^T",
        "√": "sqrt ",
        "∞": "inf",
        "−": "-",
        "≤": "<=",
        "→": "->",
    }
)


@dataclass(frozen=True)
class Screen:
    """Width in columns (None: as wide as it takes), whether there are colours, and whether only ASCII can be shown."""

    width: int | None = None
    color: bool = False
    ascii: bool = False
    quiet: bool = False

    @classmethod
    def of(cls, stream: TextIO, color: str = "auto", quiet: bool = False, env: Mapping[str, str] = os.environ) -> "Screen":
        """The screen behind a stream: COLUMNS, NO_COLOR and FORCE_COLOR are obeyed, and a pipe has no width.

        `color` is auto, always or never; the last two win over the environment.
        """
        terminal = stream.isatty()
        columns = env.get("COLUMNS", "")
        width = int(columns) if columns.isdigit() and int(columns) > 0 else None
        if width is None and terminal:
            width = os.get_terminal_size(stream.fileno()).columns or 80
        wants = color == "always" or (color == "auto" and (terminal or bool(env.get("FORCE_COLOR"))))
        if color == "auto" and (env.get("NO_COLOR") or env.get("TERM") == "dumb"):
            wants = False
        return cls(width, wants, not _speaks_unicode(stream), quiet)

    def text(self, words: str) -> str:
        """The words in the letters that this screen has."""
        if not self.ascii:
            return words
        return words.translate(ASCII).encode("ascii", "replace").decode("ascii")


def _speaks_unicode(stream: TextIO) -> bool:
    try:
        "Ω─█✓ᵀ".encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
