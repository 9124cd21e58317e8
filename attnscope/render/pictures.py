"""A report of pictures in every format: text, JSON, CSV, Markdown, SVG."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from rich.cells import cell_len
from rich.console import RenderableType

from attnscope.core.text import in_markdown
from attnscope.render.columns import Column, to_csv, to_markdown
from attnscope.render.screen import MARGIN, Screen

SLIDE = 160
"""The largest width of an SVG in columns; an SVG is as wide as its content."""

Table = tuple[Sequence[Column[Any]], Sequence[Any]]


class Pictured(Protocol):
    """A report with pictures."""

    command: str | None
    title: str

    def to_json(self) -> str: ...


def render_pictures(
    report: Pictured,
    form: str,
    screen: Screen,
    parts: Callable[[Screen], list[RenderableType]],
    tables: Callable[[], Sequence[Table]],
) -> str:
    """Return a report as a table (its pictures), json, csv, md or svg.

    Args:
        report: the report.
        form: the format.
        screen: the screen.
        parts: a function that returns all parts of a screen.
        tables: a function that returns the tables; CSV has the first one.
    """
    if form == "json":
        return report.to_json() + "\n"
    if form == "csv":
        return to_csv(*tables()[0])
    if form == "md":
        return "\n".join([f"**{in_markdown(report.title)}**\n", *(to_markdown(*table) for table in tables())])
    if form == "svg":
        screen = replace(screen, width=screen.picture_width(SLIDE), color=True, ascii=False, quiet=True)
        drawn = parts(screen)
        widest = max(map(cell_len, replace(screen, color=False).draw(drawn).splitlines()))
        return replace(screen, width=widest + MARGIN).draw_svg(drawn, report.command or report.title)
    return screen.draw(parts(screen))
