"""A result as one HTML file that works offline: its sections as panels, with the JSON of the run inside.

A panel is data and the name of a template. Templates, styles and scripts are files in `templates/`. They load nothing.
"""

from collections.abc import Callable, Sequence
from pkgutil import resolve_name
from typing import Any

from attnscope.networks.presets import Preset
from attnscope.plan.peaks import Peaks
from attnscope.render.page.document import Page, draw, draw_fragment
from attnscope.reports.comparison import Comparison
from attnscope.reports.diff import Diff
from attnscope.reports.neighbourhood import NeighbourhoodReport
from attnscope.reports.report import Report, TraceReport
from attnscope.reports.sharding import ShardingReport
from attnscope.reports.windows import WindowsReport

BUILDERS: dict[type, str] = {
    TraceReport: "trace:trace_page",
    Report: "report:report_page",
    Comparison: "comparison:comparison_page",
    WindowsReport: "windows:windows_page",
    NeighbourhoodReport: "windows:neighbourhood_page",
    Diff: "diff:diff_page",
    ShardingReport: "sharding:sharding_page",
    Peaks: "peaks:peaks_page",
    Preset: "presets:presets_page",
}
"""The file and the function that build the page of each class of results; that of presets takes a list of them."""


def page_of(result: Any, **options: Any) -> Page:
    """Return the page of a result.

    Args:
        result: a result, or the presets as a list.
        options: further arguments of the function that builds it, such as the names of the runs of a Diff.
    """
    one = result[0] if isinstance(result, Sequence) else result
    builder = next(name for of, name in BUILDERS.items() if isinstance(one, of))
    build: Callable[..., Page] = resolve_name(f"{__name__}.{builder}")
    return build(result, **options)


def render_page(result: Any, **options: Any) -> str:
    """Return the page of a result as HTML.

    Raises:
        AttnscopeError: if Jinja2 is not installed.
    """
    return draw(page_of(result, **options))


def render_fragment(result: Any, **options: Any) -> str:
    """Return the brief panels of a result's page as HTML for a notebook, without scripts.

    Raises:
        AttnscopeError: if Jinja2 is not installed.
    """
    return draw_fragment(page_of(result, **options))
