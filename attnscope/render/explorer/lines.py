"""Lines of a pane: styled text, each with what explains it."""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from textwrap import wrap
from typing import Any

from rich.cells import cell_len
from rich.console import RenderableType
from rich.text import Text

from attnscope.render.columns import Column, fit
from attnscope.render.screen import Labelled, Screen

GAP = 2
WIDE, LEAST = 80, 16
"""Columns of folded text: those of a screen without a width, and the fewest."""
LABELS = 11
"""Columns of the margin and of a label."""


class Line:
    """One line of a pane.

    Args:
        text: the styled text, or a function that makes it when the line is first on the screen.
        topic: a function that returns what explains the line; only a line with a topic can be focused.
        width: the columns of the text if it is not made yet.
    """

    def __init__(
        self, text: Text | Callable[[], Text], topic: Callable[[], str] | None = None, width: int | None = None
    ) -> None:
        self._make = text
        self.topic = topic
        self._width = width

    @cached_property
    def text(self) -> Text:
        """Return the styled text."""
        return self._make if isinstance(self._make, Text) else self._make()

    @property
    def width(self) -> int:
        """Return the columns of the text at most."""
        return self.text.cell_len if self._width is None else self._width


def plain(words: str, screen: Screen, style: str = "") -> Line:
    """Return a line of text."""
    return Line(Text(screen.text(words), style=style))


def folded(words: str, screen: Screen, style: str = "") -> list[Line]:
    """Return a text in lines that fit the screen."""
    return [plain(f" {line}", screen, style) for line in wrap(words, max((screen.width or WIDE) - 1, LEAST)) or [""]]


def from_parts(parts: Iterable[RenderableType], screen: Screen) -> list[Line]:
    """Return the lines of parts of a screen."""
    from rich.console import Console

    console = Console(
        width=screen.width, force_terminal=True, color_system="standard", highlight=False, markup=False, emoji=False
    )
    return [
        Line(Text.assemble(*[(segment.text, segment.style or "") for segment in segments]))
        for part in parts
        for segments in console.render_lines(part, pad=False)
    ]


def labelled_lines(lines: Iterable[Labelled], screen: Screen) -> list[Line]:
    """Return lines with their labels, folded to the width; rich's tables take longer than a key may."""
    found = []
    for label, words, style in lines:
        folded = wrap(screen.text(words), max((screen.width or WIDE) - LABELS, LEAST)) or [""]
        for place, part in enumerate(folded):
            text = Text(f" {'' if place else screen.text(label)}".ljust(LABELS), style="dim")
            found.append(Line(text.append(part, style=f"not dim {style}".strip())))
    return found


def table(
    columns: Sequence[Column[Any]],
    rows: Sequence[Any],
    screen: Screen,
    topic: Callable[[Any], str],
    style: Callable[[Any], str] = lambda row: "",
) -> list[Line]:
    """Return the heading, the rows and the totals of the columns that fit; each row explains itself by its topic."""
    kept, _ = fit(columns, rows, screen)
    cells = [column.cells(rows, screen) for column in kept]
    widths = [max(map(cell_len, texts)) for texts in cells]

    wide = sum(widths) + GAP * len(widths) + 1

    def line(index: int, style: str, tints: Sequence[str]) -> Text:
        text = Text(" ", style=style)
        for column, texts, width, tint in zip(kept, cells, widths, tints, strict=True):
            cell = texts[index]
            room = " " * (width - cell_len(cell))
            text.append(f"{room}{cell}" if column.right else f"{cell}{room}", style=tint or None)
            text.append(" " * GAP)
        text.rstrip()
        return text

    plainly = [""] * len(kept)
    rule = plain((screen.text("─")) * (sum(widths) + GAP * (len(widths) - 1) + 1), screen, "dim")
    body = [
        Line(
            partial(line, index, style(row), [column.tint(row) for column in kept]),
            partial(topic, row),
            wide,
        )
        for index, row in enumerate(rows, start=1)
    ]
    lines = [Line(line(0, "bold", plainly)), rule, *body]
    if any(column.total is not None for column in kept):
        lines += [rule, Line(line(len(rows) + 1, "bold", plainly))]
    return lines
