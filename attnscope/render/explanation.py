"""The explanation of --explain: the attention, the meaning and reason of each step, the meaning of each column."""

from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from attnscope.render.columns import Column, fit
from attnscope.render.meanings import MEANINGS
from attnscope.render.parts import part_columns
from attnscope.render.screen import Labelled, Screen
from attnscope.render.steps import step_columns
from attnscope.reports.report import Report


def explanation(report: Report, screen: Screen) -> list[RenderableType]:
    """Return the explanation of the attention, then of the steps, then of the columns that the table shows."""
    columns: Sequence[Column[Any]] = step_columns(report)
    rows: Sequence[Any] = report.steps
    if report.parts:
        columns, rows = part_columns(report), report.parts
    shown, _ = fit(columns, rows, screen)
    steps = screen.lines(step_lines(report))
    about: list[RenderableType] = []
    if report.about:
        lines = [(name, _sentence(words), "") for name, words in report.about.items()]
        about = [screen.headline("Attention"), screen.lines(lines), Text("")]
    return [
        *about,
        screen.headline("Steps"),
        steps,
        Text(""),
        screen.headline("Columns"),
        screen.lines(column_lines(shown)),
    ]


def step_lines(report: Report) -> list[Labelled]:
    """Return the meaning and the reason of each step; identical steps of several blocks appear once."""
    meanings = {(row.name, row.doc): f"{_sentence(row.doc)} {_sentence(row.why)}".strip() for row in report.steps}
    return [(name, words, "") for (name, _), words in meanings.items()]


def column_lines(columns: Sequence[Column[Any]]) -> list[Labelled]:
    """Return the title and the meaning of each column that has a title."""
    return [(column.title, MEANINGS[column.key], "") for column in columns if column.title]


def _sentence(words: str) -> str:
    """Return a sentence with a capital letter, unless it begins with a formula, and a period."""
    if not words:
        return ""
    first = words.split()[0]
    capital = (
        words[0].upper() + words[1:]
        if first == "a" or (first.isalpha() and first.islower() and len(first) > 1)
        else words
    )
    return capital if capital.endswith((".", "!", "?")) else f"{capital}."
