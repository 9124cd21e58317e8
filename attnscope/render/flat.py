"""CSV and Markdown: a row a step, and the totals below."""

import csv
import io

from attnscope.render.columns import Column, Value, columns_of
from attnscope.render.screen import Screen
from attnscope.report import Report


def to_csv(report: Report, screen: Screen) -> str:
    """Every column in base units (seconds, bytes, counts), with a last row `total`. What is not known is empty."""
    columns = [column for column in columns_of(report) if column.key != "time_bar"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column.key for column in columns])
    writer.writerows([column.value(row, report) for column in columns] for row in report.steps)
    writer.writerow(["total", *(column.total_value(report) for column in columns[1:])])
    return out.getvalue()


def to_markdown(report: Report, screen: Screen) -> str:
    """A table with exact counts; times in words."""
    columns = [column for column in columns_of(report) if column.rank is not None and column.key != "time_bar"]
    rows = [[_cell(column, column.value(row, report)) for column in columns] for row in report.steps]
    totals = [column.total_value(report) for column in columns]
    rows.append(["" if total is None else _cell(column, total) for column, total in zip(columns, totals, strict=True)])
    heads = [
        [column.title for column in columns],
        ["---:" if column.right else "---" for column in columns],
    ]
    lines = "\n".join("| " + " | ".join(row) + " |" for row in [*heads, *rows])
    return f"**{report.title}**\n\n{lines}\n"


def _cell(column: Column, value: Value) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return column.show(value).replace("|", "\\|")
