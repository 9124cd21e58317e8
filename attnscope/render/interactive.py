"""Formats of a result in Python: text for `print`, HTML for a notebook, a pandas DataFrame."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType

from attnscope.core.shown import Shown
from attnscope.core.windows import Windows
from attnscope.plan.peaks import Peaks
from attnscope.render import columns_of, compare, diff, neighbourhood, parts_of, peaks, sharding, windows
from attnscope.render.columns import Column
from attnscope.render.compare_columns import entry_columns, point_columns
from attnscope.render.page import render_fragment
from attnscope.render.page.spec import spec_of
from attnscope.render.screen import PIPE, Screen
from attnscope.render.windows.partition import small_picture
from attnscope.reports.comparison import Comparison
from attnscope.reports.diff import Diff
from attnscope.reports.neighbourhood import NeighbourhoodReport
from attnscope.reports.report import Report
from attnscope.reports.sharding import ShardingReport
from attnscope.reports.windows import WindowsReport

if TYPE_CHECKING:
    import pandas

Table = tuple[Sequence[Column[Any]], Sequence[Any], Callable[[Any], str]]
"""Columns, rows, and a function that returns the style of a row."""
NAMES = ("first run", "second run")
"""Names of the two runs of a Diff in Python, which have no file names."""


@dataclass(frozen=True)
class View:
    """The parts of a class of results, each as a function of the result.

    Args:
        table: the table of the CSV.
        parts: all parts of a screen.
        pictures: the pictures in characters that a notebook shows below the panels of the page.
    """

    table: Callable[[Any], Table]
    parts: Callable[[Any, Screen], list[RenderableType]]
    pictures: Callable[[Any, Screen], list[RenderableType]] = lambda result, screen: []


def plain_text(result: Shown) -> str:
    """Return the screen of a result, as wide as the terminal, without a suggested command."""
    screen = Screen(width=shutil.get_terminal_size((PIPE, 24)).columns, quiet=True, pages=False)
    return screen.draw(_view(result).parts(result, screen)).rstrip("\n")


def html(result: Shown) -> str:
    """Return the brief panels of the result's page, and the pictures of the screen."""
    view = _view(result)
    screen = Screen(width=PIPE, color=True, quiet=True, pages=False)
    pictures = view.pictures(result, screen)
    drawn = screen.draw_html(pictures) if pictures else ""
    options = {"names": NAMES} if isinstance(result, Diff) else {}
    return f"<div>{render_fragment(result, **options)}{drawn}</div>"


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


def _unstyled(columns: Sequence[Column[Any]], rows: Sequence[Any]) -> Table:
    return columns, rows, lambda row: ""


def _points(result: Comparison) -> Table:
    if result.entries is not None:
        return _unstyled(entry_columns(result, result.entries), result.entries)
    return _unstyled(point_columns(result), result.points)


def _windows(report: Report, screen: Screen) -> list[RenderableType]:
    """Return the picture of an attention's windows; nothing for a network or an attention without windows."""
    spec = spec_of(report) if "attention" in report.spec else None
    grid = spec.neighbourhood if spec is not None else None
    return small_picture(grid, screen) if isinstance(grid, Windows) else []


VIEWS: dict[type[Shown], View] = {
    Report: View(
        lambda result: _unstyled(columns_of(result), result.steps),
        parts_of,
        lambda result, screen: _windows(result, screen),
    ),
    Comparison: View(_points, compare.parts),
    WindowsReport: View(
        lambda result: _unstyled(*windows.tables(result)[0]),
        windows.windows_parts,
        lambda result, screen: windows.windows_parts(result, screen)[1:],
    ),
    NeighbourhoodReport: View(
        lambda result: _unstyled(neighbourhood.seen_columns(), result.seen),
        neighbourhood.neighbourhood_parts,
        lambda result, screen: neighbourhood.neighbourhood_parts(result, screen)[1:],
    ),
    ShardingReport: View(
        lambda result: _unstyled(sharding.sharding_columns(result), result.steps),
        sharding.sharding_parts,
    ),
    Diff: View(diff.diff_table, lambda result, screen: diff.diff_parts(result, NAMES, screen)),
    Peaks: View(
        lambda result: _unstyled(peaks.peak_columns(), peaks.peak_rows(result)),
        lambda result, screen: peaks.peak_parts(result, peaks.peak_lines(result), screen),
    ),
}
