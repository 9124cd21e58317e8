"""What the output can show: its width, its colours, its letters."""

import io
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from attnscope.core.terminal import shows_color

MARGIN = 1
UNBOUNDED = 10_000

TIMES = re.compile(r"(?<=\S)·(?=\S)")
"""The dot that multiplies, `2·3`; with spaces around it, it keeps things apart."""

SUBSCRIPT = re.compile("[₀-₉]+")
"""The number of a stage: `C₄` is `C_4` in ASCII."""
DIGITS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")

ASCII = str.maketrans(
    {
        "×": "x",
        "≥": ">=",
        "≈": "~",
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
        "Σ": "sum ",
        "³": "^3",
        "⌈": "ceil(",
        "⌉": ")",
        "τ": "t",
        "Φ": "Phi",
        "²": "^2",
        "ᵀ": "^T",
        "√": "sqrt ",
        "∞": "inf",
        "│": "|",
        "┼": "+",
        "┊": ":",
        "┈": ".",
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
    def of(
        cls, stream: TextIO, color: str = "auto", quiet: bool = False, env: Mapping[str, str] = os.environ
    ) -> "Screen":
        """The screen behind a stream: COLUMNS, NO_COLOR and FORCE_COLOR are obeyed, and a pipe has no width.

        `color` is auto, always or never; the last two win over the environment.
        """
        terminal = stream.isatty()
        columns = env.get("COLUMNS", "")
        width = min(int(columns), UNBOUNDED) if columns.isdigit() and int(columns) > 0 else None
        if width is None and terminal:
            width = os.get_terminal_size(stream.fileno()).columns or 80
        wants = color == "always" or (color == "auto" and shows_color(stream, env))
        return cls(width, wants, not _speaks_unicode(stream), quiet)

    def text(self, words: str) -> str:
        """The words in the letters that this screen has."""
        if not self.ascii:
            return words
        words = SUBSCRIPT.sub(lambda found: f"_{found[0].translate(DIGITS)}", TIMES.sub("*", words))
        return words.translate(ASCII).encode("ascii", "replace").decode("ascii")

    def headline(self, words: str) -> RenderableType:
        """The first line of a screen."""
        return Padding(Text(self.text(words), style="bold"), (0, MARGIN))

    def aside(self, words: str) -> RenderableType:
        """Something secondary."""
        return Padding(Text(self.text(words), style="dim"), (0, MARGIN))

    def lines(self, told: Iterable[tuple[str, str, str]]) -> RenderableType:
        """Label, words and style of each line; long words fold under themselves."""
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for label, text, style in told:
            grid.add_row(" " * MARGIN + self.text(label), Text(self.text(text), style=style))
        return grid

    def draw(self, parts: Iterable[RenderableType]) -> str:
        """Parts of a screen as text, with colours where the screen has them."""
        console = self._console(record=False)
        for part in parts:
            console.print(part)
        assert isinstance(console.file, io.StringIO)
        return "".join(line.rstrip() + "\n" for line in console.file.getvalue().splitlines())

    def draw_svg(self, parts: Iterable[RenderableType], title: str) -> str:
        """Parts of a screen as a picture that needs nothing from another host."""
        from html import escape

        console = self._console(record=True)
        for part in parts:
            console.print(part)
        return console.export_svg(title=escape(title), code_format=SVG)

    def _console(self, record: bool) -> Console:
        return Console(
            file=io.StringIO(),
            width=self.width or UNBOUNDED,
            record=record,
            force_terminal=self.color,
            color_system="standard" if self.color else None,
            highlight=False,
            markup=False,
            emoji=False,
            legacy_windows=False,
        )


def _speaks_unicode(stream: TextIO) -> bool:
    try:
        "Ω─█✓ᵀ".encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


# rich's own SVG frame without its fonts from another host
SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
  <style>
    .{unique_id}-matrix {{
      font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
      font-size: {char_height}px;
      line-height: {line_height}px;
    }}
    .{unique_id}-title {{ font-size: 18px; font-family: sans-serif; }}
    {styles}
  </style>
  <defs>
    <clipPath id="{unique_id}-clip-terminal">
      <rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
    </clipPath>
    {lines}
  </defs>
  {chrome}
  <g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
    {backgrounds}
    <g class="{unique_id}-matrix">
    {matrix}
    </g>
  </g>
</svg>
"""
