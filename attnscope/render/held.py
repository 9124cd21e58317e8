"""Columns of memory: a size, or a lower bound if the exact size depends on the device."""

from typing import Any

from attnscope.render import words
from attnscope.render.columns import Column
from attnscope.reports.report import Totals

LAST_TO_GO = {"bytes_live": 0.5, "bytes_saved": 0.6, "bytes_training": 0.7, "bytes_backward": 0.8}
"""Ranks of the memory columns with --memory, by key: they are dropped after all others, and live last."""


def held_column(
    key: str, title: str, rank: float | None, totals: Totals, total: str, field: str | None = None
) -> Column[Any]:
    """Declare a column of bytes with the values of `field` or, if these are unknown, its lower bounds.

    Args:
        key, title, rank: those of the column.
        totals: the totals of the report.
        total: the field of `totals` with the total.
        field: the field of a row with the value; by default `key`.
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
    """Declare columns of lower bounds for CSV; a screen shows a lower bound only if the value is unknown."""
    return [
        Column(f"{column.key}_at_least", "", column.at_least, rank=None, total=column.total_at_least)
        for column in columns
        if column.at_least is not None
    ]
