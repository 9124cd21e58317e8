"""Formats of a result in Python: text for `print`, HTML for a notebook, a pandas DataFrame."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType

from attnscope.core.shown import Shown
from attnscope.core.text import visible
from attnscope.plan.peaks import Peaks
from attnscope.render import (
    columns_of,
    compare,
    diff,
    findings,
    neighbourhood,
    parts_below,
    parts_of,
    peaks,
    table_of,
    windows,
)
from attnscope.render.columns import Column, fit, to_html
from attnscope.render.screen import PIPE, Screen
from attnscope.reports.comparison import Comparison
from attnscope.reports.diff import Diff
from attnscope.reports.neighbourhood import NeighbourhoodReport
from attnscope.reports.report import Report
from attnscope.reports.windows import WindowsReport

if TYPE_CHECKING:
    import pandas

    from attnscope.core.windows import Windows

Table = tuple[Sequence[Column[Any]], Sequence[Any], Callable[[Any], str]]
"""Columns, rows, and a function that returns the style of a row."""
NAMES = ("first run", "second run")
"""Names of the two runs of a Diff in Python, which have no file names."""


@dataclass(frozen=True)
class View:
    """The parts of a class of results, each as a function of the result.

    Args:
        title: the headline.
        table: the table of the CSV.
        drawn: the table of a notebook; None if the pictures contain it.
        parts: all parts of a screen.
        below: the pictures and lines that a notebook shows below the table.
    """

    title: Callable[[Any], str]
    table: Callable[[Any], Table]
    drawn: Callable[[Any], Table] | None
    parts: Callable[[Any, Screen], list[RenderableType]]
    below: Callable[[Any, Screen], list[RenderableType]]


def plain_text(result: Shown) -> str:
    """Return the screen of a result, as wide as the terminal, without a suggested command."""
    screen = Screen(width=shutil.get_terminal_size((PIPE, 24)).columns, quiet=True, pages=False)
    return screen.draw(_view(result).parts(result, screen)).rstrip("\n")


def html(result: Shown) -> str:
    """Return the headline, the table with bars, and the pictures and lines of the screen."""
    view = _view(result)
    table = ""
    if view.drawn is not None:
        columns, rows, style = view.drawn(result)
        table = to_html(fit(columns, rows, Screen(width=PIPE))[0], rows, style) if rows else ""
    screen = Screen(width=PIPE, color=True, quiet=True, pages=False)
    below = screen.draw_html(view.below(result, screen))
    return f"<div><strong>{escape(visible(view.title(result)))}</strong>{table}{below}</div>"


def data_frame(result: Shown) -> "pandas.DataFrame":
    """Return the columns and rows of the CSV without the total.

    Raises:
        ImportError: if pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise ImportError("to_dataframe needs pandas; install it with: python -m pip install pandas") from None
    columns, rows, _ = _view(result).table(result)
    columns = [column for column in columns if not column.drawn]
    return pandas.DataFrame({column.key: [column.value(row) for row in rows] for column in columns})


def _view(result: Shown) -> View:
    return next(view for of, view in VIEWS.items() if isinstance(result, of))


def _title(result: Any) -> str:
    return str(result.title)


def _unstyled(columns: Sequence[Column[Any]], rows: Sequence[Any]) -> Table:
    return columns, rows, lambda row: ""


def _points(result: Comparison) -> Table:
    return _unstyled(compare.point_columns(result), result.points)


def _charts(result: Comparison, screen: Screen) -> list[RenderableType]:
    return [*compare.charts(result, screen), screen.lines(findings.lines(result, screen))]


def _changes(result: Diff, screen: Screen) -> list[RenderableType]:
    return [screen.lines([*diff.change_lines(result), *diff.warning_lines(result)])]


VIEWS: dict[type[Shown], View] = {
    Report: View(
        _title,
        lambda result: _unstyled(columns_of(result), result.steps),
        table_of,
        parts_of,
        lambda result, screen: parts_below(result, screen, _grid(result)),
    ),
    Comparison: View(_title, _points, _points, compare.parts, _charts),
    WindowsReport: View(
        _title,
        lambda result: _unstyled(*windows.tables(result)[0]),
        None,
        windows.windows_parts,
        lambda result, screen: windows.windows_parts(result, screen)[1:],
    ),
    NeighbourhoodReport: View(
        _title,
        lambda result: _unstyled(neighbourhood.seen_columns(), result.seen),
        None,
        lambda result, screen: neighbourhood.neighbourhood_parts(result, screen),
        lambda result, screen: neighbourhood.neighbourhood_parts(result, screen)[1:],
    ),
    Diff: View(
        lambda result: " → ".join(NAMES),
        diff.diff_table,
        diff.diff_table,
        lambda result, screen: diff.diff_parts(result, NAMES, screen),
        _changes,
    ),
    Peaks: View(
        _title,
        lambda result: _unstyled(peaks.peak_columns(), peaks.peak_rows(result)),
        lambda result: _unstyled(peaks.peak_columns(), peaks.peak_rows(result)),
        lambda result, screen: peaks.peak_parts(result, peaks.peak_lines(result), screen),
        lambda result, screen: [screen.lines(peaks.peak_lines(result))],
    ),
}


def _grid(report: Report) -> "Windows | None":
    """Return the windows of an attention for its picture; None for an attention without windows."""
    from attnscope import attentions
    from attnscope.core.errors import AttnscopeError
    from attnscope.core.windows import Windows

    fields = dict(report.spec)
    try:
        found = attentions.spec_class(fields.pop("attention"))(**fields).neighbourhood
    except (AttnscopeError, KeyError, TypeError):  # not an attention of this version
        return None
    return found if isinstance(found, Windows) else None
