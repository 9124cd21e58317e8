"""Lines of a pane: styled text, each with what explains it."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import cached_property, partial
from textwrap import wrap
from typing import Any

from rich.cells import cell_len
from rich.text import Span, Text

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
        content: a function that returns what the text is made of; lines with equal contents look the same.
    """

    def __init__(
        self,
        text: Text | Callable[[], Text],
        topic: Callable[[], str] | None = None,
        width: int | None = None,
        content: Callable[[], Hashable] | None = None,
    ) -> None:
        self._make = text
        self.topic = topic
        self._width = width
        self._content = content

    @cached_property
    def text(self) -> Text:
        """Return the styled text."""
        return self._make if isinstance(self._make, Text) else self._make()

    @property
    def width(self) -> int:
        """Return the columns of the text at most."""
        return self.text.cell_len if self._width is None else self._width

    def looks_like(self, other: "Line") -> bool:
        """Return whether another line looks the same; without making the texts if the contents are known."""
        if self._content is not None and other._content is not None:
            return self._content() == other._content()
        return self.text == other.text and self.text.spans == other.text.spans and self.text.style == other.text.style


def plain(words: str, screen: Screen, style: str = "") -> Line:
    """Return a line of text."""
    return Line(Text(screen.text(words), style=style))


def folded(words: str, screen: Screen, style: str = "") -> list[Line]:
    """Return a text in lines that fit the screen."""
    return [plain(f" {line}", screen, style) for line in wrap(words, max((screen.width or WIDE) - 1, LEAST)) or [""]]


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
    topic: Callable[[Any], str] | None,
    style: Callable[[Any], str] = lambda row: "",
) -> list[Line]:
    """Return the heading, the rows and the totals of the columns that fit.

    Args:
        columns: the columns.
        rows: the rows.
        screen: the screen.
        topic: a function that explains a row; None if rows need no explanation.
        style: a function that returns the style of a row.
    """
    kept, _ = fit(columns, rows, screen)
    cells = [column.cells(rows, screen) for column in kept]
    widths = [column.width(rows, screen) for column in kept]
    rights = tuple([column.right for column in kept])
    wide = sum(widths) + GAP * (len(widths) - 1) + 1

    def content(index: int) -> _Content:
        row = rows[index - 1] if 0 < index <= len(rows) else None
        tints = ("",) * len(kept) if row is None else tuple([column.tint(row) for column in kept])
        look = "bold" if row is None else style(row)
        return tuple([texts[index] for texts in cells]), tuple(widths), rights, tints, look

    def line(index: int, explained: Callable[[], str] | None = None) -> Line:
        # most lines are never on the screen
        return Line(lambda: _aligned(*content(index)), explained, wide, lambda: content(index))

    rule = plain(screen.text("─") * wide, screen, "dim")
    body = [line(index, topic and partial(topic, row)) for index, row in enumerate(rows, start=1)]
    lines = [line(0), rule, *body]
    if any(column.total is not None for column in kept):
        lines += [rule, line(len(rows) + 1)]
    return lines


_Content = tuple[tuple[str, ...], tuple[int, ...], tuple[bool, ...], tuple[str, ...], str]
"""The texts, widths, alignments and styles of the cells of a line, and the style of the line."""


def _aligned(
    texts: Sequence[str], widths: Sequence[int], rights: Sequence[bool], tints: Sequence[str], style: str
) -> Text:
    """Return the cells of a row as one text, each padded to the width of its column."""
    parts, spans, at = [" "], [], 1
    for text, width, right, tint in zip(texts, widths, rights, tints, strict=True):
        room = " " * (width - cell_len(text))
        cell = f"{room}{text}" if right else f"{text}{room}"
        if tint:
            spans.append(Span(at, at + len(cell), tint))
        parts.append(cell + " " * GAP)
        at += len(cell) + GAP
    words = "".join(parts).rstrip()
    return Text(words, style=style, spans=[span.right_crop(len(words)) for span in spans if span.start < len(words)])
