"""A Comparison as text: one chart, one table, one sentence, and the formulas behind them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from rich.console import RenderableType
from rich.text import Text

from attnscope.axes import spell
from attnscope.comparison import Comparison, Crossover, LeftOut, Point, TimeCrossover
from attnscope.render import words
from attnscope.render.columns import Column, Value, fit, rows_table, to_csv, to_markdown
from attnscope.render.screen import Screen

PICTURE_WIDTH = 80
FEW = 3
"""How many of the points that were left out are named."""
MOST_ROWS = 60
"""How many points a terminal shows."""
NOUNS = {
    "macs": "MACs",
    "block": "MACs",
    "flops": "FLOPs",
    "attention": "bytes of attention matrix",
    "peak": "peak bytes",
    "params": "parameters",
}
COUNTED_IN_MACS = ("macs", "block", "flops")


def render_comparison(comparison: Comparison, form: str, screen: Screen) -> str:
    """The comparison as a table, json, csv, md or svg; the picture is the chart and what it says."""
    if form == "json":
        return comparison.to_json() + "\n"
    if form == "csv":
        return to_csv(point_columns(comparison), comparison.points)
    if form == "md":
        told = "".join(f"* {line}\n" for line in [finding(comparison), *formulas(comparison)])
        return f"**{comparison.title}**\n\n{to_markdown(point_columns(comparison), comparison.points)}\n{told}"
    if form == "svg":
        screen = replace(screen, width=screen.width or PICTURE_WIDTH, color=True, ascii=False)
        return screen.draw_svg(picture_parts(comparison, screen), comparison.command or comparison.title)
    return screen.draw(parts(comparison, screen))


def parts(comparison: Comparison, screen: Screen) -> list[RenderableType]:
    """Headline, who is who, chart, table, and the lines below."""
    shown: list[RenderableType] = [screen.headline(comparison.title)]
    shown += [screen.aside(f"{each.label}: {each.words}") for each in comparison.contenders]
    chart = charts(comparison, screen)
    shown += [Text(""), *chart] if chart else []
    shown += [Text(""), *tables(comparison, screen), Text(""), screen.lines(lines(comparison, screen))]
    return shown


def picture_parts(comparison: Comparison, screen: Screen) -> list[RenderableType]:
    """What goes on a slide: the chart, or the table where there is none, and the sentence."""
    shown = charts(comparison, screen) or tables(comparison, screen)
    return [
        screen.headline(comparison.title),
        Text(""),
        *shown,
        Text(""),
        screen.lines([("", finding(comparison), "")]),
    ]


def charts(comparison: Comparison, screen: Screen) -> list[RenderableType]:
    """What each contender costs along the range, and how long it took, where there is something to draw."""
    if len(comparison.axes) != 1 or comparison.axes[0].field == "stage":
        return []
    field = comparison.axes[0].field
    costs = {label: [(p.at[field], p.costs[label]) for p in comparison.points] for label in _labels(comparison)}
    times = {
        label: [(p.at[field], p.times[label].median_s) for p in comparison.points if label in p.times]
        for label in _labels(comparison)
    }
    in_bytes = comparison.unit == "B"
    shown = _chart(costs, field, lambda size: _amount(comparison, size), screen, 32 if in_bytes else 10)
    if any(times.values()):
        shown += [Text(""), screen.aside("seconds of one forward"), *_chart(times, field, words.seconds, screen)]
    return shown


def _chart(
    series: Mapping[str, Sequence[tuple[int, float | None]]],
    field: str,
    up: Callable[[float], str],
    screen: Screen,
    base: int = 10,
) -> list[RenderableType]:
    """Only what is above 0 has a logarithm."""
    from attnscope.render.chart import Line, log_log

    drawn = [Line(label, sorted((x, float(y)) for x, y in points if y)) for label, points in series.items()]
    drawn = [line for line in drawn if line.points]
    if len({x for line in drawn for x, _ in line.points}) < 2:
        return []
    return [*log_log(drawn, lambda x: f"{x:.0f}", up, _unit(field) or field, screen, base)]


def tables(comparison: Comparison, screen: Screen) -> list[RenderableType]:
    """A row for each point; or, over two axes, how many times fewer in a field of rows and columns."""
    if len(comparison.axes) == 2:
        return [part for other in _labels(comparison)[1:] for part in heat_table(comparison, other, screen)]
    points = comparison.points if screen.width is None else thinned(comparison.points, comparison.reference)
    columns, dropped = fit(point_columns(comparison), points, screen)
    known = comparison.points[comparison.reference]
    shown: list[RenderableType] = [
        rows_table(columns, points, screen, lambda point: "bold cyan" if point is known else "")
    ]
    if len(points) < len(comparison.points):
        shown.append(screen.aside(f"{len(points)} of {len(comparison.points):,} points; --format csv has all"))
    if dropped:
        shown.append(screen.aside(f"not shown at {screen.width} columns: {', '.join(dropped)}"))
    return shown


def thinned(points: Sequence[Point], kept: int) -> list[Point]:
    """As many points as fit on a terminal, at even distances, the last one and the one at `kept` among them."""
    stride = -(-len(points) // MOST_ROWS)
    return [p for index, p in enumerate(points) if index % stride == 0 or index in (kept, len(points) - 1)]


def point_columns(comparison: Comparison) -> list[Column[Point]]:
    """The columns that this comparison can fill."""
    first, *others = _labels(comparison)
    points, timed = comparison.points, comparison.timed
    names = list(dict.fromkeys(name for point in points for name in point.at))
    columns = [
        Column[Point](name, _heading(name), lambda p, name=name: p.at.get(name), str, rank=0 if index < 2 else 20)  # type: ignore[misc]
        for index, name in enumerate(names)
    ]
    if len({point.grid for point in points}) > 1 and names != ["resolution"]:
        columns.append(Column("grid", "tokens", lambda point: spell(point.grid), rank=11))
    for index, label in enumerate([first, *others]):
        columns.append(
            Column(
                f"{label}_{comparison.quantity}",
                label,
                lambda p, label=label: p.costs[label],  # type: ignore[misc]
                lambda size: _amount(comparison, size),
                12 + index if timed else index and 5 + index,
            )
        )
    for index, label in enumerate(others):
        columns.append(
            Column(
                f"{first}_over_{label}",
                f"{first}/{label}",
                lambda p, label=label: p.ratio[label],  # type: ignore[misc]
                words.times,
                index and 7 + index,
            )
        )
    columns += _padding_columns(comparison)
    return columns + (_time_columns(comparison) if timed else [])


def _padding_columns(comparison: Comparison) -> list[Column[Point]]:
    """The waste of each contender that pads anywhere; those that pad alike share a column."""
    alike: dict[tuple[float, ...], list[str]] = {}
    for label in _labels(comparison):
        alike.setdefault(tuple(point.padding.get(label, 0.0) for point in comparison.points), []).append(label)
    padded = [labels for shares, labels in alike.items() if any(shares)]
    return [
        Column(
            "padding" if len(padded) == 1 else f"{labels[0]}_padding",
            "padding" if len(padded) == 1 else f"padding {', '.join(labels)}",
            lambda p, label=labels[0]: p.padding.get(label, 0.0),  # type: ignore[misc]
            words.percent,
            9,
        )
        for labels in padded
    ]


def _time_columns(comparison: Comparison) -> list[Column[Point]]:
    first, *others = _labels(comparison)

    def time(label: str, key: str) -> Callable[[Point], Value]:
        return lambda point: getattr(point.times[label], key) if label in point.times else None

    columns = [
        Column(f"{label}_median_s", f"{label} here", time(label, "median_s"), words.seconds, 1 + index)
        for index, label in enumerate([first, *others])
    ]
    for label in [first, *others]:
        columns.append(Column(f"{label}_low_s", "", time(label, "low_s"), words.seconds, None))
        columns.append(Column(f"{label}_high_s", "", time(label, "high_s"), words.seconds, None))
    for index, label in enumerate(others):
        columns.append(
            Column(
                f"measured_{first}_over_{label}",
                f"{first}/{label} here",
                lambda p, label=label: p.measured_ratio.get(label),  # type: ignore[misc]
                words.times,
                index and 7 + index,
            )
        )
    return columns


def heat_table(comparison: Comparison, other: str, screen: Screen) -> list[RenderableType]:
    """How many times the other one the first one costs: rows are the first axis, columns the second."""
    down, across = (axis.field for axis in comparison.axes)
    cells = {(point.at[down], point.at[across]): point for point in comparison.points}
    rows = list(dict.fromkeys(point.at[down] for point in comparison.points))
    heads = sorted({point.at[across] for point in comparison.points})
    shown: list[RenderableType] = []
    measures: list[tuple[str, Callable[[Point], float | None]]] = [("on paper", lambda point: point.ratio[other])]
    if comparison.timed:
        measures.append(("here", lambda point: point.measured_ratio.get(other)))
    for where, measure in measures:
        columns = [Column[int](down, _heading(down), lambda row: row, str, 0)]
        for index, head in enumerate(heads):

            def value(row: int, head: int = head, measure: Callable[[Point], float | None] = measure) -> float | None:
                return measure(cells[row, head]) if (row, head) in cells else None

            columns.append(
                Column[int](
                    f"{across}_{head}",
                    f"{head}",
                    value,
                    words.times,
                    index and index + 1,
                    tint=lambda row, v=value: _heat(v(row)),  # type: ignore[misc]
                )
            )
        kept, dropped = fit(columns, rows, screen)
        shown.append(screen.aside(f"{_labels(comparison)[0]}/{other} {where}, {across} across"))
        shown.append(rows_table(kept, rows, screen))
        if dropped:
            shown.append(screen.aside(f"not shown at {screen.width} columns: {across} {', '.join(dropped)}"))
        shown.append(Text(""))
    return shown[:-1]


def _heat(ratio: float | None) -> str:
    """Green where the other one wins, the more the stronger; red where it loses."""
    if ratio is None or ratio == 1:
        return "dim"
    if ratio < 1:
        return "red"
    return "green" if ratio < 2 else "bold green" if ratio < 10 else "bold black on green"


def lines(comparison: Comparison, screen: Screen) -> list[tuple[str, str, str]]:
    """Label, words and style of each line below the table."""
    told = [("found", finding(comparison), "bold")]
    told += _labelled("paper", formulas(comparison))
    told += _labelled("here", [time_finding(comparison, each) for each in comparison.time_crossovers])
    told += [("timing", timing_line(comparison), "")] if comparison.timed else []
    told += _labelled("left out", _told(comparison.left_out), "yellow")
    told += _labelled("not timed", _told(comparison.not_timed), "yellow")
    told += [("audit", "a closed form is not the sum of its steps ✗", "yellow")] if not comparison.agree else []
    told += _labelled("warning", comparison.warnings, "yellow")
    told += (
        [("stopped", "by Ctrl-C; what was measured until then is above", "yellow")] if comparison.interrupted else []
    )
    if not screen.quiet:
        told += [("", "", ""), ("next", "   ".join(next_command(comparison)), "cyan")]
    return told


def finding(comparison: Comparison) -> str:
    """What was found, in one sentence: a ratio that the reader would know, the break-even, and what outgrows what."""
    first, other = _labels(comparison)[:2]
    point = comparison.points[comparison.reference]
    ratio = point.ratio[other]
    noun = NOUNS[comparison.quantity]
    where = _where(comparison, point)
    if ratio is None:
        told = f"{where}what {other} needs beside {first} is not known"
    elif ratio == 1:
        told = f"{where}{other} needs as many {noun} as {first}"
    else:
        told = f"{where}{other} needs {_factor(ratio, 'fewer', 'more', '')} {noun} than {first}"
    measured = point.measured_ratio.get(other)
    if measured is not None:
        apart = point.times[first].apart(point.times[other])
        ran = f"ran {_factor(measured, 'faster', 'slower', 'as fast')}" if apart else "cannot be told apart in time"
        told += f" and {ran} here"
    scope = "block" if comparison.quantity == "block" else "layer"
    crossing = next((c for c in comparison.crossovers if (c.other, c.scope) == (other, scope)), None)
    if crossing and crossing.tokens and comparison.quantity in COUNTED_IN_MACS:
        named = " (hw = M²)" if crossing.formula else ""
        told += f"; they break even at {_tokens(crossing.tokens)} tokens{named}"
    if crossing and crossing.balance and comparison.quantity in COUNTED_IN_MACS:
        named = f" (hw = {'6C' if scope == 'block' else '2C'})" if crossing.formula else ""
        told += (
            f", and from {crossing.balance:g} tokens{named} on, {first}'s quadratic term outweighs its {_rest(scope)}"
        )
    return f"{told[0].upper()}{told[1:]}." if where else f"{told}."


def _rest(scope: str) -> str:
    return "projections" if scope == "layer" else "projections and MLP"


def _where(comparison: Comparison, point: Point) -> str:
    if not point.at:
        return ""
    told = ", ".join(f"{value} px" if name == "image" else f"{name} {value}" for name, value in point.at.items())
    return f"At {told} ({spell(point.grid)} tokens) "


def _factor(ratio: float, over: str, under: str, even: str) -> str:
    if ratio == 1:
        return even
    return f"{words.times(ratio)} {over}" if ratio > 1 else f"{words.times(1 / ratio)} {under}"


def formulas(comparison: Comparison) -> list[str]:
    """The exact ratio of each contender's MACs to the first one's, in letters and in numbers, and the break-even.

    None where something else is compared.
    """
    if comparison.quantity not in COUNTED_IN_MACS:
        return []
    alike: dict[tuple[object, ...], list[Crossover]] = {}
    for each in comparison.crossovers:
        alike.setdefault(
            (each.scope, each.formula, each.values, each.tokens, each.always, each.padded_from), []
        ).append(each)
    return [_formula(of_all[0], ", ".join(each.other for each in of_all)) for of_all in alike.values()]


def _formula(crossing: Crossover, others: str) -> str:
    ratio = [part for part in (crossing.formula, crossing.values) if part]
    if crossing.always is not None:
        even = "the same at any size" if crossing.always == 1 else f"{words.times(crossing.always)} at any size"
    else:
        even = "never even" if crossing.tokens is None else f"even at {_tokens(crossing.tokens)} tokens"
    if crossing.padded_from is not None:
        even += f"; fewer from {crossing.padded_from}×{crossing.padded_from} on, whatever is padded"
    return f"{crossing.scope}: {' = '.join([f'{others} / {crossing.first}', *ratio])}, {even}"


def _tokens(tokens: int | tuple[int, ...]) -> str:
    if isinstance(tokens, int):
        return f"{tokens:,}"
    return f"between {tokens[0]:,} and {tokens[1]:,}"


def time_finding(comparison: Comparison, each: TimeCrossover) -> str:
    """Where the lead changes in measured time, and how surely that is known."""
    if each.leader is None:
        return f"{each.other} and {each.first}: not separable, the spreads overlap everywhere"
    unclear = f"; not separable at {', '.join(map(str, each.unclear))}: the spreads overlap" if each.unclear else ""
    if each.low is None or each.high is None:
        other = each.first if each.leader == each.other else each.other
        return f"{each.leader} is faster than {other} wherever they can be told apart{unclear}"
    grids = {point.at[each.axis]: point.grid for point in [*comparison.points, *comparison.bisected]}
    low, high = (math.prod(grids[value]) for value in (each.low, each.high))
    tokens = f" ({low:,} and {high:,} tokens)" if low != high else ""
    return (
        f"{each.leader} takes the lead between {each.axis} {each.low} and {each.high}{tokens}, "
        f"two measured points{unclear}"
    )


def timing_line(comparison: Comparison) -> str:
    """What the times were taken on."""
    env = comparison.environment
    device = f"cpu {env['cpu_capability']}" if env["device"] == "cpu" else f"{env['device']} {env['device_name']}"
    return " · ".join(
        [
            "medians of runs in turn",
            f"{env['threads']} thread{'s' if env['threads'] > 1 else ''} of {env['cores']}",
            device,
            f"torch {env['torch']}",
            f"allocator {env['allocator']}",
        ]
    )


def next_command(comparison: Comparison) -> tuple[str, str]:
    """The command worth typing next, and why."""
    if not comparison.timed and len(comparison.axes) == 1 and comparison.axes[0].field != "stage":
        return "attnscope compare --over resolution=7:56:7 --time", "where windows pay on this machine"
    if comparison.timed:
        return "attnscope compare --stages", "what windows save at each stage of Swin-T"
    return "attnscope swin --window 7 --shift", "the steps behind these figures"


def _told(left_out: Sequence[LeftOut]) -> list[str]:
    told = []
    for each in left_out[:FEW]:
        at = ", ".join(f"{name} {value}" for name, value in each.at.items())
        told.append(f"{at}: {each.reason}" + (f"; and {each.count - 1:,} more like it" if each.count > 1 else ""))
    return [*told, f"and {len(left_out) - FEW} more"] if len(left_out) > FEW else told


def _labelled(label: str, told: Sequence[str], style: str = "") -> list[tuple[str, str, str]]:
    return [("" if index else label, line, style) for index, line in enumerate(told)]


def _labels(comparison: Comparison) -> list[str]:
    return [each.label for each in comparison.contenders]


def _unit(field: str) -> str:
    return "px" if field in ("image", "patch") else ""


def _heading(field: str) -> str:
    return _unit(field) or field if field == "image" else field


def _amount(comparison: Comparison, size: float | None) -> str:
    if comparison.unit == "B":
        return words.binary(None if size is None else int(size))
    return words.metric(size)
