"""The screen: its width, its colors, its characters."""

import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from attnscope.core.sizes import plural
from attnscope.core.terminal import fold, shows_color
from attnscope.core.text import visible

MARGIN = 1
UNBOUNDED = 10_000
PIPE = 120
"""Columns of a table that goes into a pipe or a file, unless all columns are requested."""

LABELS = 12
"""Columns of the margin and of the labels below a table."""

Labelled = tuple[str, str, str]
"""Label, text and style of a line below a table."""

TIMES = re.compile(r"(?<=\S)·(?=\S)")
"""The multiplication dot, as in `2·3`; with spaces around it, the dot is a separator."""

SUBSCRIPT = re.compile("[₀-₉]+")
"""The number of a stage: `C₄` is `C_4` in ASCII."""
DIGITS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")

ASCII = str.maketrans(
    {
        "×": "x",
        "±": "+/-",
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
        "Δ": "diff",
        "³": "^3",
        "⌈": "ceil(",
        "⌉": ")",
        "τ": "t",
        "Φ": "Phi",
        "²": "^2",
        "ᵀ": "^T",
        "√": "sqrt ",
        "′": "'",
        "∞": "inf",
        "│": "|",
        "┼": "+",
        "┊": ":",
        "┈": ".",
        "−": "-",
        "≤": "<=",
        "→": "->",
        "←": "<-",
        "↑": "up",
        "↓": "down",
        "‹": "<",
        "›": ">",
    }
)


@dataclass(frozen=True)
class Screen:
    """The terminal, pipe or file that a result goes to.

    Args:
        width: the width in columns; None for as many as the result has.
        color: whether it shows colors.
        ascii: whether it can only show ASCII.
        quiet: whether the suggested next command is hidden.
        pages: whether the output is a terminal; long tables are then thinned to a screenful.
    """

    width: int | None = None
    color: bool = False
    ascii: bool = False
    quiet: bool = False
    pages: bool = True

    @classmethod
    def of(
        cls,
        stream: TextIO,
        color: str = "auto",
        quiet: bool = False,
        wide: bool = False,
        env: Mapping[str, str] = os.environ,
    ) -> "Screen":
        """Return the screen behind a stream, by COLUMNS, NO_COLOR and FORCE_COLOR.

        Args:
            stream: the stream that receives the text.
            color: "auto", "always" or "never"; the last two override the environment.
            quiet: hide the suggested next command.
            wide: show all columns, regardless of the width.
            env: the environment variables.
        """
        columns = env.get("COLUMNS", "")
        width = min(int(columns), UNBOUNDED) if columns.isdigit() and int(columns) > 0 else None
        pages = width is not None or stream.isatty()
        if width is None:
            width = os.get_terminal_size(stream.fileno()).columns or 80 if stream.isatty() else PIPE
        wants = color == "always" or (color == "auto" and shows_color(stream, env))
        return cls(None if wide else width, wants, not _speaks_unicode(stream), quiet, pages)

    @classmethod
    def of_file(cls, color: str = "auto", quiet: bool = False, wide: bool = False) -> "Screen":
        """Return the screen of a text file."""
        return cls(None if wide else PIPE, color == "always", quiet=quiet, pages=False)

    def picture_width(self, usual: int) -> int:
        """Return the width of an SVG in columns: that of the terminal, or the usual width."""
        return self.width if self.width is not None and self.pages else usual

    def text(self, words: str) -> str:
        """Return the text in characters that this screen can show."""
        words = visible(words)
        return in_ascii(words) if self.ascii else words

    def headline(self, words: str) -> RenderableType:
        """Return the first line of a screen."""
        return Padding(Text(self.text(words), style="bold"), (0, 0, 0, MARGIN))

    def aside(self, words: str) -> RenderableType:
        """Return a line of secondary text."""
        return Padding(Text(self.text(words), style="dim"), (0, 0, 0, MARGIN))

    def hidden(self, columns: Sequence[str]) -> list[RenderableType]:
        """Return a line with the number of hidden columns and as many of their titles as fit; nothing if none is hidden."""
        if not columns:
            return []
        assert self.width is not None
        all_of_them, hint = "", f"{plural(len(columns), 'column')} hidden (--wide shows all): "
        for count in range(len(columns), 0, -1):
            all_of_them = hint + ", ".join(columns[:count]) + (", …" if count < len(columns) else "")
            if MARGIN + len(all_of_them) <= self.width:
                break
        return [self.aside(all_of_them)]

    def lines(self, lines: Iterable[Labelled]) -> RenderableType:
        """Return the lines with their labels; long text wraps within its column, below its first word."""
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for label, text, style in lines:
            begun = self.text(text)
            body = Text(begun.lstrip(" "), style=style)
            grid.add_row(" " * MARGIN + self.text(label), Padding(body, (0, 0, 0, len(begun) - len(body.plain))))
        return grid

    def suggestion(self, command: str, why: str) -> list[Labelled]:
        """Return the lines with the suggested next command, and its reason if both fit on one line.

        A long command has line breaks that a shell accepts.
        """
        if self.quiet:
            return []
        room = UNBOUNDED if self.width is None else max(self.width - LABELS, 1)
        both = f"{command}   {why}"
        return labelled("next", [both] if len(both) <= room else fold(command, room), "cyan")

    def draw(self, parts: Iterable[RenderableType]) -> str:
        """Return the parts of a screen as text, in color if the screen has colors."""
        console = self._console(record=False)
        for part in parts:
            console.print(part)
        assert isinstance(console.file, io.StringIO)
        return "".join(line.rstrip() + "\n" for line in console.file.getvalue().splitlines())

    def draw_svg(self, parts: Iterable[RenderableType], title: str) -> str:
        """Return the parts of a screen as an SVG that loads nothing from another host."""
        from html import escape

        console = self._console(record=True)
        for part in parts:
            console.print(part)
        return console.export_svg(title=escape(visible(title)), code_format=SVG)

    def draw_html(self, parts: Iterable[RenderableType]) -> str:
        """Return the parts of a screen as preformatted HTML with inline colors."""
        console = self._console(record=True)
        for part in parts:
            console.print(part)
        return console.export_html(theme=PAGE, inline_styles=True, code_format=HTML)

    def _console(self, record: bool) -> Console:
        return Console(
            file=io.StringIO(),
            width=self.width or UNBOUNDED,
            record=record,
            force_terminal=self.color,
            force_jupyter=False,  # in a notebook rich displays each part itself, above the result
            color_system="standard" if self.color else None,
            highlight=False,
            markup=False,
            emoji=False,
            legacy_windows=False,
        )


def in_ascii(words: str) -> str:
    """Return a text in ASCII, `q*k^T` for `q·kᵀ`; `?` is a character without a spelling."""
    words = SUBSCRIPT.sub(lambda found: f"_{found[0].translate(DIGITS)}", TIMES.sub("*", words))
    return words.translate(ASCII).encode("ascii", "replace").decode("ascii")


def labelled(label: str, lines: Sequence[str], style: str = "") -> list[Labelled]:
    """Return lines, the first of them with a label."""
    return [("" if index else label, line, style) for index, line in enumerate(lines)]


def _speaks_unicode(stream: TextIO) -> bool:
    try:
        "Ω─█✓ᵀ".encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


PAGE = TerminalTheme(
    (255, 255, 255),
    (0, 0, 0),
    [
        (90, 90, 90),
        (200, 50, 50),
        (40, 140, 60),
        (165, 120, 0),
        (50, 100, 210),
        (165, 60, 165),
        (0, 140, 150),
        (125, 125, 125),
    ],
)
"""Colors that are readable on the light and on the dark page of a notebook."""

HTML = '<pre style="line-height:1.2;white-space:pre;overflow-x:auto">{code}</pre>'
"""Preformatted text in the font and the colors of the page."""

# rich's SVG frame without fonts from another host
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
