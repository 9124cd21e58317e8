"""The fields of a Spec as lines, in their groups, and the quality of a timing in one line."""

from collections.abc import Sequence
from functools import partial
from typing import Protocol, TypeVar

from rich.text import Text

from attnscope.render.explorer.lines import Line, plain
from attnscope.render.screen import Screen
from attnscope.render.summary import quality_lines
from attnscope.reports.report import Report

NAMES = 18
"""Largest width of the names."""


class Editable(Protocol):
    """A row of the fields."""

    @property
    def name(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def value(self) -> str: ...
    @property
    def is_given(self) -> bool: ...
    @property
    def help(self) -> str: ...


Row = TypeVar("Row", bound=Editable)


def field_lines(rows: Sequence[Row], screen: Screen) -> tuple[list[Line], dict[int, Row]]:
    """Return the lines of the rows below the headings of their groups, and the row of each line by its number."""
    widest = min(max(len(row.name) for row in rows), NAMES)
    lines: list[Line] = []
    places: dict[int, Row] = {}
    group = ""
    for row in rows:
        if row.group != group:
            group = row.group
            lines.append(plain(f" {group}", screen, "dim"))
        places[len(lines)] = row
        text = Text(f" {row.name[:widest].ljust(widest)} ")
        text.append(screen.text(f"‹ {row.value} ›"), style="bold" if row.is_given else "")
        lines.append(Line(text, partial(getattr, row, "help")))
    return lines, places


def quality(report: Report) -> str:
    """Return the lines on the quality of the timing, in one line."""
    return "; ".join(text for _, text, _ in quality_lines(report))
