"""Functions that the views of windows share."""

from typing import Any

from rich.console import RenderableType
from rich.text import Text

from attnscope.core.windows import Windows
from attnscope.render.columns import Column, fit, rows_table
from attnscope.render.plane import Drawing, Picture, side_by_side
from attnscope.render.screen import MARGIN, Screen

ROOM = 100
"""Columns for pictures if the width of the output is unlimited."""
MOST_ROWS = 16
"""The largest number of rows of a table; longer ones are shortened."""


def room(screen: Screen) -> int:
    """Return the columns available for pictures."""
    return (screen.width or ROOM) - 2 * MARGIN


def table_parts(columns: list[Column[Any]], rows: list[Any], screen: Screen) -> list[RenderableType]:
    """Return a table of the columns that fit, and a line with the hidden ones."""
    kept, dropped = fit(columns, rows, screen)
    parts: list[RenderableType] = [rows_table(kept, rows, screen)]
    parts += screen.hidden(dropped)
    return parts


def scale_words(drawing: Drawing, grid: Windows) -> list[str]:
    """Return the scale if a letter represents several tokens, and a line if not all borders are drawn."""
    down, across = drawing.letter
    legend = [f"scaled: each letter represents up to {down}×{across} tokens"] if down * across > 1 else []
    if not drawing.complete:
        r, s = grid.counts
        legend.append(f"drawn coarser than the windows: not all borders of {r:,}×{s:,} windows fit")
    return legend


def some(size: int, most: int) -> list[int | None]:
    """Return the places of a list that are shown: all, or the first, None for those in between, and the last."""
    if size <= most:
        return list(range(size))
    first = max(1, (most - 1) * 2 // 3)
    return [*range(first), None, *range(size - max(1, most - 1 - first), size)]


def picture_rows(pictures: list[Picture], screen: Screen) -> RenderableType:
    return indented(list(side_by_side(pictures, room(screen))))


def indented(lines: list[Text]) -> RenderableType:
    margin = " " * MARGIN
    return Text("\n", no_wrap=True, overflow="ignore").join(Text(margin).append_text(line) for line in lines)


def from_to(ends: tuple[int, int]) -> str:
    return f"{ends[0]}–{ends[1]}" if ends[0] < ends[1] else str(ends[0])
