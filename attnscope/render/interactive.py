"""Formats of a result in Python: text for `print`, HTML for a notebook, a pandas DataFrame."""

import shutil
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType

from attnscope.render.columns import Column, fit, to_html
from attnscope.render.screen import PIPE, Screen
from attnscope.reports.comparison import Comparison
from attnscope.reports.diff import Diff
from attnscope.reports.report import Report
from attnscope.reports.shown import Shown
from attnscope.reports.windows import WindowsReport

if TYPE_CHECKING:
    import pandas

    from attnscope.core.windows import Windows

Table = tuple[Sequence[Column[Any]], Sequence[Any], Callable[[Any], str]]
"""Columns, rows, and a function that returns the style of a row."""
NAMES = ("first run", "second run")
"""Names of the two runs of a Diff in Python, which have no file names."""


def plain_text(result: Shown) -> str:
    """Return the screen of a result, as wide as the terminal, without a suggested command."""
    width = shutil.get_terminal_size((PIPE, 24)).columns
    return Screen(width=width, quiet=True, pages=False).draw(_screen_parts(result, width)).rstrip("\n")


def html(result: Shown) -> str:
    """Return the headline, the table with bars, and the pictures and lines of the screen."""
    columns, rows, style = _table(result)
    columns, _ = fit(columns, rows, Screen(width=PIPE))
    table = "" if isinstance(result, WindowsReport) else to_html(columns, rows, style)  # the parts below include it
    below = Screen(width=PIPE, color=True, quiet=True).draw_html(_parts_below(result))
    return f"<div><strong>{escape(_title(result))}</strong>{table}{below}</div>"


def data_frame(result: Shown) -> "pandas.DataFrame":
    """Return the columns and rows of the CSV without the total.

    Raises:
        ImportError: if pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise ImportError("to_dataframe needs pandas; install it with: python -m pip install pandas") from None
    columns, rows, _ = _rows(result)
    columns = [column for column in columns if not column.drawn]
    return pandas.DataFrame({column.key: [column.value(row) for row in rows] for column in columns})


def _title(result: Shown) -> str:
    return " → ".join(NAMES) if isinstance(result, Diff) else str(result.title)  # type: ignore[attr-defined]


def _rows(result: Shown) -> Table:
    """Return the table of the CSV: each step, call, point or time."""
    from attnscope.render import columns_of

    if isinstance(result, Report):
        return columns_of(result), result.steps, lambda row: ""
    return _table(result)


def _table(result: Shown) -> Table:
    """Return the table of a screen."""
    if isinstance(result, Report):
        from attnscope.render import table_of

        return table_of(result)
    if isinstance(result, Comparison):
        from attnscope.render.compare import point_columns

        return point_columns(result), result.points, lambda row: ""
    if isinstance(result, WindowsReport):
        from attnscope.render.windows import tables

        return *tables(result)[0], lambda row: ""
    assert isinstance(result, Diff)
    from attnscope.render.diff import diff_columns

    return diff_columns(), result.timed, lambda row: "bold" if row.is_whole else ""


def _screen_parts(result: Shown, width: int) -> list[RenderableType]:
    """Return all parts of a screen."""
    screen = Screen(width=width, quiet=True, pages=False)
    if isinstance(result, Report):
        from attnscope.render import parts_of

        return parts_of(result, screen)
    if isinstance(result, Comparison):
        from attnscope.render.compare import parts

        return parts(result, screen)
    if isinstance(result, WindowsReport):
        from attnscope.render.windows import windows_parts

        return windows_parts(result, screen)
    assert isinstance(result, Diff)
    from attnscope.render.diff import diff_parts

    return diff_parts(result, NAMES, screen)


def _parts_below(result: Shown) -> list[RenderableType]:
    """Return the pictures and lines that a notebook shows below the table."""
    screen = Screen(width=PIPE, color=True, quiet=True, pages=False)
    if isinstance(result, Comparison):
        from attnscope.render.compare import charts
        from attnscope.render.findings import lines

        return [*charts(result, screen), screen.lines(lines(result, screen))]
    if isinstance(result, Report):
        from attnscope.render import parts_below

        return parts_below(result, screen, _grid(result))
    if isinstance(result, WindowsReport):
        return _screen_parts(result, PIPE)[1:]
    assert isinstance(result, Diff)
    from attnscope.render.diff import change_lines, warning_lines

    return [screen.lines([*change_lines(result), *warning_lines(result)])]


def _grid(report: Report) -> "Windows | None":
    """Return the windows of an attention for its picture; None for an attention without windows."""
    from attnscope import attentions
    from attnscope.core.errors import AttnscopeError
    from attnscope.core.windows import Windows

    fields = dict(report.spec)
    try:
        neighbourhood = attentions.spec_class(fields.pop("attention"))(**fields).neighbourhood
    except (AttnscopeError, KeyError, TypeError):  # not an attention of this version
        return None
    return neighbourhood if isinstance(neighbourhood, Windows) else None
