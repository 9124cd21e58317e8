"""Sort the rows of a table by what they cost, and put those that are left out in one row."""

from collections.abc import Callable, Sequence

from attnscope.core.errors import UsageError
from attnscope.reports.report import CallRow
from attnscope.tracing.folding import ROWS, Row, rest_of

SORTS: dict[str, Callable[[CallRow], float]] = {
    "macs": lambda row: row.times * row.macs_at_least,
    "time": lambda row: row.times * row.time.interquartile_mean_s if row.time else 0.0,
    "params": lambda row: row.new_params,
    "bytes": lambda row: row.times * (row.bytes_read_at_least + row.bytes_written_at_least),
}
"""Keys for sorting rows, with the figure of all instances of a row; an unknown count is at least the known part."""


def check_sort(sort: str | None, time: bool) -> None:
    """Check the option of the order of rows.

    Raises:
        UsageError: the order is unknown, or by times that are not measured.
    """
    if sort is not None and sort not in SORTS:
        raise UsageError(f"{{sort}} {sort} is unknown; available: {', '.join(SORTS)}")
    if sort == "time" and not time:
        raise UsageError("{sort} time needs measured times; add {time} or sort by macs")


def selected(
    rows: Sequence[Row], spelled: Callable[[Row], CallRow], sort: str, top: int | None, everything: bool
) -> list[Row]:
    """Return the rows with the largest figures first, and one row at the end for all that are left out.

    Args:
        rows: all rows.
        spelled: returns the row of the report.
        sort: a key of SORTS.
        top: number of rows to keep; None keeps as many as fit in ROWS lines.
        everything: whether to keep all rows.
    """
    ordered = sorted(rows, key=lambda row: SORTS[sort](spelled(row)), reverse=True)  # equal rows keep their order
    fit = everything or (top is None and len(rows) <= ROWS)
    limit = len(rows) if fit else top or ROWS - 1
    rest = ordered[limit:]
    return ordered[:limit] + ([rest_of(rest)] if rest else [])
