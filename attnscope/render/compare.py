"""A Comparison as text: a chart, a table, and the result."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from rich.console import RenderableType
from rich.text import Text

from attnscope.core.axes import spell
from attnscope.core.text import in_markdown
from attnscope.render import words
from attnscope.render.chart import Axis, Line, log_log
from attnscope.render.columns import Column, Row, fit, rows_table, to_csv, to_markdown
from attnscope.render.compare_columns import (
    UNCLEAR,
    entry_columns,
    heading,
    heads_of,
    point_columns,
    ratio_cell,
)
from attnscope.render.findings import (
    COUNTED_IN_MACS,
    MEASURED,
    MOST_FORMULAS,
    NOUNS,
    OVERLAP,
    crossing_of,
    finding,
    formulas,
    lines,
)
from attnscope.render.screen import Screen
from attnscope.reports.comparison import NETWORK, Comparison, Contender, Crossover, Entry, Fit, Point

PICTURE_WIDTH = 80
AXES = {
    "image": "image side (px)",
    "patch": "patch side (px)",
    "resolution": "grid side (tokens)",
    "window": "window side (tokens)",
    "dim": "embedding dimension (channels)",
    "heads": "attention heads",
    "kv_heads": "key/value heads",
    "batch": "batch size (images)",
    "keys": "key/value tokens",
    "frames": "frames",
    "ranks": "ranks",
}
"""Titles of fields on the axis of a chart, with their units; other fields have their own names."""
QUANTITY_TITLES = {
    "macs": "MACs of one {part}",
    "block": "MACs of one block, MLP included",
    "flops": "FLOPs of one {part}",
    "attention": "attention matrix (bytes)",
    "peak": "peak activation memory (bytes)",
    "params": "parameters of one {part}",
    "bytes": "bytes moved by one {part}",
    "training": "peak memory in training (bytes)",
    "latency": "latency of one {part} (s)",
    "throughput": "images per second",
    "latency-per-mac": "latency per MAC (s)",
    "sent": "bytes sent by one {part}",
    "link": "time of the collectives (s)",
    "bound": "lower bound of the steps (s)",
    "link-per-bound": "collectives / lower bound",
}
MOST_ROWS = 60
"""The largest number of points on a terminal."""


def render_comparison(comparison: Comparison, form: str, screen: Screen) -> str:
    """Return the comparison as a table, json, csv, md or svg; the picture is the chart and the result."""
    if form == "json":
        return comparison.to_json() + "\n"
    if form == "csv":
        if comparison.entries is not None:
            return to_csv(entry_columns(comparison, comparison.entries), comparison.entries)
        return to_csv(point_columns(comparison), comparison.points)
    if form == "md":
        warned = [f"warning: {each}" for each in comparison.warnings]
        items = "".join(f"* {in_markdown(line)}\n" for line in [finding(comparison), *formulas(comparison), *warned])
        if comparison.entries is not None:
            table = to_markdown(entry_columns(comparison, comparison.entries), comparison.entries)
        else:
            table = to_markdown(point_columns(comparison), comparison.points)
        if comparison.memory_limit is not None:
            fits = to_markdown(fit_columns(comparison), comparison.fits)
            notes = "".join(f"\n{in_markdown(note)}\n" for note in fit_notes(comparison))
            table += f"\n{in_markdown(fit_title(comparison))}\n\n{fits}{notes}"
        return f"**{in_markdown(comparison.title)}**\n\n{table}\n{items}"
    if form == "svg":
        screen = replace(screen, width=screen.picture_width(PICTURE_WIDTH), color=True, ascii=False)
        return screen.draw_svg(picture_parts(comparison, screen), comparison.command or comparison.title)
    return screen.draw(parts(comparison, screen))


def parts(comparison: Comparison, screen: Screen) -> list[RenderableType]:
    """Return the headline, the contenders, the chart, the table, and the lines below."""
    shown: list[RenderableType] = [screen.headline(comparison.title)]
    shown += [screen.aside(legend(each)) for each in comparison.contenders]
    chart = charts(comparison, screen)
    shown += [Text(""), *chart] if chart else []
    shown += [Text(""), *tables(comparison, screen)]
    for further in (break_even_table(comparison, screen), fit_table(comparison, screen)):
        shown += [Text(""), *further] if further else []
    return [*shown, Text(""), screen.lines(lines(comparison, screen))]


def legend(contender: Contender) -> str:
    """Return `swin: Swin attention, 7×7 windows`, or `global attention (vit)` if the words are the name."""
    is_named = contender.name == contender.words
    return f"{contender.words} ({contender.label})" if is_named else f"{contender.label}: {contender.words}"


def picture_parts(comparison: Comparison, screen: Screen) -> list[RenderableType]:
    """Return the parts of a slide: the chart, or without a chart the table, and the result."""
    shown = charts(comparison, screen) or tables(comparison, screen)
    return [
        screen.headline(comparison.title),
        Text(""),
        *shown,
        Text(""),
        screen.lines([("", finding(comparison), "")]),
    ]


def charts(comparison: Comparison, screen: Screen) -> list[RenderableType]:
    """Return a chart of the costs of each contender along the range, and one of the measured times, if any."""
    if len(comparison.axes) != 1 or comparison.axes[0].field == "stage":
        return []
    field = comparison.axes[0].field
    points, names = comparison.points, comparison.names
    costs = {name: [(p.at[field], p.costs[label]) for p in points] for label, name in names.items()}
    times = {
        name: [(p.at[field], p.times[label].median_s) for p in points if label in p.times]
        for label, name in names.items()
    }
    across = Axis(AXES.get(field, field.replace("_", " ")), lambda value: f"{value:.0f}", is_of_sizes=True)
    in_bytes = comparison.unit == "B"
    up = Axis(
        quantity_title(comparison),
        (lambda size: words.binary(round(size))) if in_bytes else words.rounded,
        base=2 if in_bytes else 10,
    )
    shown = _chart(costs, across, up, screen)
    seconds = Axis("median time of one forward (s)", lambda value: words.rounded(value, "s"))
    measured = _chart(times, across, seconds, screen) if comparison.quantity not in MEASURED else []
    return [*shown, *([Text("")] if shown and measured else []), *measured]


def quantity_title(comparison: Comparison) -> str:
    """Return the title of the quantity, `MACs of one layer`."""
    return QUANTITY_TITLES[comparison.quantity].format(part=comparison.part)


def _chart(
    series: Mapping[str, Sequence[tuple[int, float | None]]], across: Axis, up: Axis, screen: Screen
) -> list[RenderableType]:
    """Draw the series with at least two different points above 0, which have a logarithm."""
    drawn = [Line(label, sorted((x, float(y)) for x, y in points if y)) for label, points in series.items()]
    drawn = [line for line in drawn if line.points]
    if len({x for line in drawn for x, _ in line.points}) < 2:
        return []
    return [*log_log(drawn, across, up, screen)]


def tables(comparison: Comparison, screen: Screen) -> list[RenderableType]:
    """Return a table with a row for each point or, for two axes, a table of ratios for each contender.

    A sorted or filtered comparison, and one of modules, has a row for each contender at each point.
    """
    if comparison.entries is not None:
        return entries_table(comparison, comparison.entries, screen)
    if len(comparison.axes) == 2:
        return [part for other in comparison.labels[1:] for part in heat_table(comparison, other, screen)]
    points = comparison.points
    if screen.pages and screen.width is not None:
        points = thinned(points, comparison.reference)
    columns, dropped = fit(point_columns(comparison), points, screen)
    reference = comparison.points[comparison.reference]
    shown: list[RenderableType] = [
        rows_table(columns, points, screen, lambda point: "bold cyan" if point is reference else "")
    ]
    if len(points) < len(comparison.points):
        shown.append(screen.aside(f"{len(points)} of {len(comparison.points):,} points; --format csv has all"))
    shown += screen.hidden(dropped)
    return [*shown, *_sign(columns, points, screen)]


def entries_table(comparison: Comparison, entries: Sequence[Entry], screen: Screen) -> list[RenderableType]:
    """Return a table with a row for each contender at a point."""
    if not entries:
        return [screen.aside("no row satisfies --where")]
    rows = entries[:MOST_ROWS] if screen.pages and screen.width is not None else entries
    columns, dropped = fit(entry_columns(comparison, entries), rows, screen)
    shown: list[RenderableType] = [rows_table(columns, rows, screen)]
    if len(rows) < len(entries):
        shown.append(screen.aside(f"{len(rows)} of {len(entries):,} rows; --format csv has all"))
    return [*shown, *screen.hidden(dropped), *_sign(columns, rows, screen)]


def _sign(columns: Sequence[Column[Row]], rows: Sequence[Row], screen: Screen) -> list[RenderableType]:
    """Return a legend for the sign of an uncertain ratio if the table has one."""
    cells = (column.words(row) for column in columns for row in rows)
    return (
        [screen.aside(f"{UNCLEAR}: unclear which is faster, {OVERLAP}")]
        if any(UNCLEAR in cell for cell in cells)
        else []
    )


def thinned(points: Sequence[Point], reference: int) -> list[Point]:
    """Return as many points as fit on a terminal, evenly spaced, and always the last one and the reference."""
    stride = -(-len(points) // MOST_ROWS)
    return [p for index, p in enumerate(points) if index % stride == 0 or index in (reference, len(points) - 1)]


def break_even_table(comparison: Comparison, screen: Screen) -> list[RenderableType]:
    """Return a table of the break-evens of all pairs, if there are too many contenders for a formula of each.

    A row needs fewer MACs than a column above, or below, the number of tokens in the cell; `always` or `never` without a
    break-even. For networks the cell has the side of an image.
    """
    labels = comparison.labels
    if len(labels) <= MOST_FORMULAS or comparison.quantity not in COUNTED_IN_MACS or not comparison.crossovers:
        return []
    heads = heads_of(comparison)

    def cell(row: str, column: str) -> str:
        crossing = None if row == column else crossing_of(comparison, row, column)
        return "" if row == column else words.UNKNOWN if crossing is None else _met(crossing, row)

    columns = [Column[str]("fewer", "fewer", lambda row: heads[row], str, 0, right=False)]
    columns += [
        Column[str](label, heads[label], lambda row, label=label: cell(row, label), str, index + 1)  # type: ignore[misc]
        for index, label in enumerate(labels)
    ]
    kept, dropped = fit(columns, labels, screen)
    noun, unit = NOUNS[comparison.quantity], "px" if comparison.part == NETWORK else "tokens"
    title = f"break-even in {unit}: the row needs fewer {noun} than the column above (>) or below (<) it"
    if any(each.pads for each in comparison.crossovers):
        title += ", without padding"
    return [screen.aside(title), rows_table(kept, labels, screen), *screen.hidden(dropped)]


def _met(crossing: Crossover, row: str) -> str:
    """Return the break-even of a row with a column: `> 49`, `< 49`, `always`, `never` or `same`."""
    if crossing.fewer is None:
        return "same" if crossing.searched_to != 0 else words.UNKNOWN
    leads = crossing.fewer == row
    if crossing.sides is not None:
        low, high = crossing.sides
        at = high if leads else low
        shown = f"{at:,}" if crossing.scope == NETWORK else f"{at * at:,}"
        return f"≥ {shown}" if leads else f"≤ {shown}{' in part' if crossing.is_last_of_several else ''}"
    if crossing.tokens is None:
        return "always" if leads else "never"
    if isinstance(crossing.tokens, int):
        return f"{'>' if leads else '<'} {crossing.tokens:,}"
    return f"≥ {crossing.tokens[1]:,}" if leads else f"≤ {crossing.tokens[0]:,}"


def fit_table(comparison: Comparison, screen: Screen) -> list[RenderableType]:
    """Return a table of the largest sizes that fit in the memory of `--memory-limit`."""
    if comparison.memory_limit is None:
        return []
    notes = [screen.aside(note) for note in fit_notes(comparison)]
    if not any(each.fits for each in comparison.fits):
        return notes
    kept, dropped = fit(fit_columns(comparison), comparison.fits, screen)
    shown = [screen.aside(fit_title(comparison)), rows_table(kept, comparison.fits, screen), *screen.hidden(dropped)]
    return [*shown, *notes]


def fit_notes(comparison: Comparison) -> list[str]:
    """Return what one image needs of the contenders of which not even one fits, for inference or for training."""
    if comparison.memory_limit is None:
        return []
    limit, where = words.binary(comparison.memory_limit), _fit_place(comparison)
    large = [each for each in comparison.fits if each.batch is None or each.training_batch is None]
    if not large:
        return []
    nothing = "" if any(each.fits for each in comparison.fits) else f"nothing fits in {limit}; "
    heads = heads_of(comparison)
    needs = [
        f"{heads[each.contender]} needs {'' if each.is_exact else 'at least '}{words.binary(each.needs)}, "
        f"and {words.binary(each.training_needs)} in training"
        for each in large
    ]
    return [f"{nothing}at batch 1 and {where}, {'; '.join(needs)}"]


def fit_title(comparison: Comparison) -> str:
    """Return the title of the table of the largest sizes that fit."""
    assert comparison.memory_limit is not None
    point = comparison.points[comparison.reference]
    limit, batch = words.binary(comparison.memory_limit), point.at.get("batch", comparison.settings.get("batch", 1))
    size = "image" if comparison.part == NETWORK else "grid"
    title = f"largest that fits in {limit}: batch at {_fit_place(comparison)}, and {size} at batch {batch}"
    return f"{title}; training without an optimizer"


def _fit_place(comparison: Comparison) -> str:
    point = comparison.points[comparison.reference]
    return f"{spell(point.grid)} tokens" if point.grid else f"{point.at.get('image', 'the given')} px"


def fit_columns(comparison: Comparison) -> list[Column[Fit]]:
    """Return the columns of the largest sizes that fit."""
    heads, in_pixels = heads_of(comparison), comparison.part == NETWORK

    def size(key: str) -> Callable[[Fit], str]:
        def shown(fit: Fit) -> str:
            value = getattr(fit, key)
            if value is None:
                return words.NONE
            spelled = f"{value:,}" if "batch" in key or in_pixels else f"{value}×{value}"
            return spelled if fit.is_exact else f"≤ {spelled}"

        return shown

    titles = {"batch": "batch", "side": "image" if in_pixels else "tokens"}
    columns = [Column[Fit]("contender", "contender", lambda fit: heads[fit.contender], right=False, is_long=True)]
    return columns + [
        Column[Fit](f"{prefix}{key}", f"{word}{title}", size(f"{prefix}{key}"), rank=rank)
        for rank, (prefix, word) in enumerate((("", ""), ("training_", "training ")))
        for key, title in titles.items()
    ]


def heat_table(comparison: Comparison, other: str, screen: Screen) -> list[RenderableType]:
    """Return tables of the first contender's cost over the other's: rows are the first axis, columns the second."""
    down, across = (axis.field for axis in comparison.axes)
    cells = {(point.at[down], point.at[across]): point for point in comparison.points}
    rows = list(dict.fromkeys(point.at[down] for point in comparison.points))
    heads = sorted({point.at[across] for point in comparison.points})
    shown: list[RenderableType] = []
    first, called = comparison.labels[0], heads_of(comparison)
    measures: list[tuple[str, Callable[[Point], float | None], Callable[[Point], str | None]]] = [
        (
            quantity_title(comparison).split(" (")[0],
            lambda point: point.ratio[other],
            lambda point: words.NONE if {first, other} & point.refused.keys() else None,
        )
    ]
    if comparison.timed:
        measures.append(
            (
                "measured time",
                lambda point: point.measured_ratio.get(other),
                lambda point: ratio_cell(point, other),
            )
        )
    for title, measure, roughly in measures:
        columns = [Column[int](down, heading(down), lambda row: row, str, 0)]
        for index, head in enumerate(heads):

            def value(row: int, head: int = head, measure: Callable[[Point], float | None] = measure) -> float | None:
                return measure(cells[row, head]) if (row, head) in cells else None

            def text(row: int, head: int = head, roughly: Callable[[Point], str | None] = roughly) -> str | None:
                return roughly(cells[row, head]) if (row, head) in cells else None

            columns.append(
                Column[int](
                    f"{across}_{head}",
                    f"{head}",
                    value,
                    words.times,
                    index and index + 1,
                    text=text,
                    tint=lambda row, v=value, t=text: "dim" if (t(row) or "").startswith(UNCLEAR) else _heat(v(row)),  # type: ignore[misc]
                )
            )
        kept, dropped = fit(columns, rows, screen)
        shown.append(screen.aside(f"{called[first]}/{called[other]}: {title}, {across} across"))
        shown.append(rows_table(kept, rows, screen))
        shown += screen.hidden([f"{across} {value}" for value in dropped])
        shown += _sign(kept, rows, screen)
        shown.append(Text(""))
    return shown[:-1]


def _heat(ratio: float | None) -> str:
    """Return green if the other contender costs less, stronger for larger ratios, and red if it costs more."""
    if ratio is None or ratio == 1:
        return "dim"
    if ratio < 1:
        return "red"
    return "green" if ratio < 2 else "bold green" if ratio < 10 else "bold black on green"
