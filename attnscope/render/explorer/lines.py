"""Lines of a pane: styled text, each with what explains it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import RenderableType
from rich.text import Text

from attnscope.render.columns import Column, fit
from attnscope.render.screen import Labelled, Screen

GAP = 2


@dataclass(frozen=True)
class Line:
    """One line of a pane.

    Args:
        text: the styled text.
        topic: what explains the line; a line with a topic can be focused.
    """

    text: Text
    topic: str = ""


def plain(words: str, screen: Screen, style: str = "") -> Line:
    """Return a line of text."""
    return Line(Text(screen.text(words), style=style))


def folded(words: str, screen: Screen, style: str = "") -> list[Line]:
    """Return a text in lines that fit the screen."""
    from textwrap import wrap

    return [plain(line, screen, style) for line in wrap(words, max(screen.width or 80, 8)) or [""]]


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
    """Return lines with their labels."""
    return from_parts([screen.lines(lines)], screen)


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
        Line(line(index + 1, style(row), [column.tint(row) for column in kept]), topic(row))
        for index, row in enumerate(rows)
    ]
    lines = [Line(line(0, "bold", plainly)), rule, *body]
    if any(column.total is not None for column in kept):
        lines += [rule, Line(line(len(rows) + 1, "bold", plainly))]
    return lines
