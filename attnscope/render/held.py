"""Bytes that are held: a figure, or a lower bound where only the device knows the rest."""

from typing import Any

from attnscope.render import words
from attnscope.render.columns import Column
from attnscope.reports.report import Totals

LAST_TO_GO = {"bytes_live": 0.5, "bytes_saved": 0.6, "bytes_training": 0.7, "bytes_backward": 0.8}
"""Ranks of the columns of memory if memory is the focus, by key: they go after all others, and live last."""


def held_column(
    key: str, title: str, rank: float | None, totals: Totals, total: str, field: str | None = None
) -> Column[Any]:
    """Declare a column of bytes that rows know as `field`, or at least as its lower bound.

    Args:
        key, title, rank: of the column; `field` is the key unless it is given.
        totals: of the report.
        total: the field of `totals` that stands under it.
    """
    name = field or key
    return Column(
        key,
        title,
        lambda row: getattr(row, name),
        words.binary,
        rank,
        getattr(totals, total),
        at_least=lambda row: getattr(row, f"{name}_at_least"),
        total_at_least=getattr(totals, f"{total}_at_least"),
    )


def lower_bounds(columns: list[Column[Any]]) -> list[Column[Any]]:
    """Declare the lower bounds of columns, for CSV alone: a screen shows them where the figure is not known."""
    return [
        Column(f"{column.key}_at_least", "", column.at_least, rank=None, total=column.total_at_least)
        for column in columns
        if column.at_least is not None
    ]
