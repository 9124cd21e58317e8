"""The page of a Comparison: the result, the chart along the range, the points."""

from collections.abc import Callable

from attnscope.render import words
from attnscope.render.compare import AXES, fit_columns, fit_notes, fit_title, legend, quantity_title
from attnscope.render.compare_columns import entry_columns, point_columns
from attnscope.render.findings import MEASURED, finding, lines
from attnscope.render.page.charts import Chart, log_chart
from attnscope.render.page.document import Page, Panel
from attnscope.render.page.panels import conclusion_panel, evidence_panel
from attnscope.render.page.tables import table_of, table_panel
from attnscope.render.screen import Screen
from attnscope.reports.comparison import Comparison, Point

QUIET = Screen(quiet=True)


def comparison_page(comparison: Comparison) -> Page:
    """Return the page of a comparison."""
    panels = [
        _conclusion(comparison),
        _charts(comparison),
        _table(comparison),
        _fits(comparison),
        evidence_panel(comparison.command, {"settings": comparison.settings, "environment": comparison.environment}),
    ]
    shown = [panel for panel in panels if panel is not None]
    title = f"{comparison.title[:1].upper()}{comparison.title[1:]}"
    return Page(title, "comparison", shown, comparison.to_json(), comparison.command)


def _conclusion(comparison: Comparison) -> Panel:
    below = [(label, text) for label, text, _ in lines(comparison, QUIET) if label != "result"]
    names = [(each.name, legend(each).removeprefix(f"{each.name}: ")) for each in comparison.contenders]
    return conclusion_panel(finding(comparison), [*names, *below])


def _table(comparison: Comparison) -> Panel:
    """Return a table with a row for each point; of modules and of sorted points, with a row for each contender."""
    if comparison.entries is not None:
        rows = table_of("Costs of each contender", entry_columns(comparison, comparison.entries), comparison.entries)
        return table_panel("table", "Each contender in numbers", "Sort by a heading.", rows, brief=True)
    reference = comparison.points[comparison.reference]
    columns = point_columns(comparison)
    points = table_of("Costs at each point", columns, comparison.points, lambda p: "bold" if p is reference else "")
    return table_panel("table", "Each point in numbers", "The point of the conclusion is in bold.", points, brief=True)


def _fits(comparison: Comparison) -> Panel | None:
    """Return the largest sizes that fit in the memory of `--memory-limit`."""
    if comparison.memory_limit is None:
        return None
    title = fit_title(comparison)
    table = table_of(title, fit_columns(comparison), comparison.fits)
    return table_panel("fits", "What fits in memory", "; ".join([title, *fit_notes(comparison)]), table)


def _charts(comparison: Comparison) -> Panel | None:
    """Return the charts of costs and of times along a range of one axis; none for stages and for two axes."""
    if len(comparison.axes) != 1 or comparison.axes[0].field == "stage":
        return None
    field = comparison.axes[0].field
    spell = {"B": lambda size: words.binary(round(size)), "s": words.seconds}.get(comparison.unit, words.rounded)
    costs = _chart(
        comparison,
        field,
        quantity_title(comparison),
        lambda point, label: point.costs[label],
        spell,
        base=2 if comparison.unit == "B" else 10,
    )
    times = _chart(
        comparison,
        field,
        "median time of one forward",
        lambda point, label: point.times[label].median_s if label in point.times else None,
        words.seconds,
    )
    measured = times if comparison.quantity not in MEASURED else None
    charts = [chart for chart in (costs, measured) if chart is not None]
    if not charts:
        return None
    content = {"charts": charts, "lines": _zeros(comparison, field)}
    return Panel("chart", "Along the range", "Both axes are logarithmic.", "chart_panel", content, brief=True)


def _chart(
    comparison: Comparison,
    field: str,
    title: str,
    value: Callable[[Point, str], float | None],
    spell: Callable[[float], str],
    base: int = 10,
) -> Chart | None:
    """Return a chart with a line for each contender; None without two different points above 0.

    Args:
        comparison: the comparison.
        field: the field that varies.
        title: the title of the vertical axis.
        value: a function of a point and the label of a contender; None if it is unknown.
        spell: a function that formats a value.
        base: 10, or 2 for ticks at simple multiples of powers of two.
    """
    points = sorted(comparison.points, key=lambda point: point.at[field])
    series = []
    for label, name in comparison.names.items():
        found = [(point.at[field], value(point, label)) for point in points]
        dots = [(float(x), float(y), f"{name}, {field} {x}: {spell(y)}", "", "") for x, y in found if y]
        if dots:
            series.append((name, dots))
    xs = [float(point.at[field]) for point in points]
    if len(set(xs)) < 2:
        return None
    return log_chart(title, AXES.get(field, field), title, series, lambda x: f"{x:g}", spell, x_values=xs, base=base)


def _zeros(comparison: Comparison, field: str) -> list[str]:
    """Return which costs are 0, and have no place on a logarithmic axis."""
    found = []
    for label, name in comparison.names.items():
        known = [point for point in comparison.points if point.costs.get(label) is not None]
        zeros = sorted([point.at[field] for point in known if not point.costs[label]])
        if zeros:
            found.append(f"{name} for each" if len(zeros) == len(known) else f"{name} for {', '.join(map(str, zeros))}")
    return [f"Not in the chart, since it is 0: {'; '.join(found)} ({AXES.get(field, field)})."] if found else []
