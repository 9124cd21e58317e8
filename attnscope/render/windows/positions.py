"""The view --positions: the relative position index of a window as formula, example and tables."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from rich.console import RenderableType
from rich.text import Text

from attnscope.core.axes import spell
from attnscope.core.sizes import Pair
from attnscope.core.windows import position_row, spread
from attnscope.render.columns import Column
from attnscope.render.plane import GAP, Picture
from attnscope.render.screen import Screen
from attnscope.render.windows.parts import MOST_ROWS, indented, picture_rows, room, some
from attnscope.reports.windows import WindowsReport

MOST_FIELD = 64
"""The largest number of tokens in a window for which the field has a digit for each pair."""
HEAT = (
    "blue",
    "bright_blue",
    "cyan",
    "bright_cyan",
    "green",
    "bright_green",
    "yellow",
    "bright_yellow",
    "red",
    "magenta",
)


def positions_parts(report: WindowsReport, screen: Screen) -> list[RenderableType]:
    """Return the formula, an example, the rows by offset, the index by pair, and the index in tenths."""
    p, q = report.grid.window
    rows, pitch, tokens = (2 * p - 1) * (2 * q - 1), 2 * q - 1, range(p * q)

    def by_pair(query: int, key: int) -> int:
        (qy, qx), (ky, kx) = divmod(query, q), divmod(key, q)
        return position_row((p, q), qy - ky, qx - kx)

    (qy, qx), (ky, kx) = query, key = (min(1, p - 1), min(2, q - 1)), (p - 1, 0)
    lines = [
        ("formula", f"row = (dy + {p - 1})·{pitch} + (dx + {q - 1})", ""),
        ("", "dy, dx: query position minus key position", ""),
        ("", f"a window has {p} rows of q = {q} tokens; token y·q + x is in row y and column x", ""),
        ("table", f"{rows:,} rows, (2·{p}−1)·(2·{q}−1): one for each offset,", ""),
        ("", "with a bias for each head", ""),
        ("example", f"query {_place(query, q)},", ""),
        ("", f"key {_place(key, q)}: dy = {qy - ky}, dx = {qx - kx}", ""),
        (
            "",
            f"row ({qy - ky} + {p - 1})·{pitch} + ({qx - kx} + {q - 1}) = {position_row((p, q), qy - ky, qx - kx)}",
            "",
        ),
    ]
    lines = [(label, line.replace("-", "−"), style) for label, line, style in lines]
    return [
        screen.lines(lines),
        Text(""),
        *number_table(
            "row for each offset: dy down, dx across",
            range(1 - p, p),
            range(1 - q, q),
            partial(position_row, (p, q)),
            screen,
        ),
        Text(""),
        *number_table("index: query token down, key token across", tokens, tokens, by_pair, screen),
        # the field repeats a table that shows every pair
        *([Text(""), *level_field((p, q), rows, screen)] if p * q > MOST_ROWS else []),
        *resized_table(report, screen),
        *distance_table(report, screen),
        screen.aside(f"{'--json has all pairs, ' if report.writes_matrices else ''}--format csv has all offsets"),
    ]


def resized_table(report: WindowsReport, screen: Screen) -> list[RenderableType]:
    """Return the table of Swin in pre-training beside the resized one, if they were requested."""
    pretrained, window = report.pretrained_window, report.grid.window
    if pretrained is None:
        return []
    lines = [
        ("Swin", f"a table for {spell(pretrained)} tokens is resized to {spell(window)}, as in BEiT and timm:", ""),
        ("", "the old offsets spread geometrically from 0 over the new ones, and the rows", ""),
        ("", "of new offsets are interpolated linearly, down and across", ""),
    ]
    resized = report.resized(pretrained)
    axes = zip(("dy", "dx"), pretrained, window, resized, strict=True)
    for name, old, side, weights in [("dy, dx", *next(axes)[1:])] if resized[0] == resized[1] else axes:
        places = spread(2 * old - 1, 2 * side - 1)[old - 1 :] if pretrained != window else [*range(old)]
        at = [f"{offset} at {places[offset]:.2f}" for offset in some(old, MOST_ROWS) if offset is not None]
        new = [f"{each}: {_mixed(weights[each + side - 1])}" for each in some(side, MOST_ROWS) if each is not None]
        lines += [(f"old {name}", ", ".join(at), ""), (f"new {name}", ", ".join(new), "")]
    lines.append(("", "a negative offset has the negative places", ""))
    return [Text(""), screen.lines(lines), *_rings(pretrained, window, resized, screen)]


def _mixed(weights: Mapping[int, float]) -> str:
    """Return a sum of old offsets such as `0.25·1 + 0.75·2`, or the only one."""
    shown = {old: f"{weight:.2f}" for old, weight in weights.items() if weight >= 0.005}
    return " + ".join(f"{weight}·{old}" for old, weight in shown.items()) if len(shown) > 1 else str(*shown)


def _rings(
    pretrained: Pair, window: Pair, resized: Sequence[Sequence[Mapping[int, float]]], screen: Screen
) -> list[RenderableType]:
    """Draw a table whose values are the larger of |dy| and |dx|, in tenths, and the resized table beside it."""
    (p, q), largest = pretrained, max(*pretrained, 2) - 1
    if sum(2 * across - 1 for _, across in (pretrained, window)) + GAP > room(screen):
        return [screen.aside("the tables are too wide for a picture")]
    old = [[max(abs(dy), abs(dx)) for dx in range(1 - q, q)] for dy in range(1 - p, p)]
    new = [
        [sum(old[dy + p - 1][dx + q - 1] * y * x for dy, y in down.items() for dx, x in across.items())
         for across in resized[1]] for down in resized[0]
    ]  # fmt: skip
    pictures = [Picture([_levels(row, largest) for row in table]) for table in (old, new)]
    sizes = [f"{len(table)}×{len(table[0])}" for table in (old, new)]
    title = f"max(|dy|, |dx|) in tenths as a table of {sizes[0]} rows, and resized to {sizes[1]}"
    return [indented([Text(screen.text(title), style="bold")]), picture_rows(pictures, screen)]


def _levels(row: Sequence[float], largest: int) -> Text:
    levels = [min(int(10 * value / largest), 9) for value in row]
    return Text.assemble(*((str(level), f"black on {HEAT[level]}") for level in levels))


def distance_table(report: WindowsReport, screen: Screen) -> list[RenderableType]:
    """Return the offsets of the longer side of the window with their distances in Swin V2, if they were requested."""
    pretrained = report.log_window
    if pretrained is None:
        return []
    found = report.distances(pretrained)
    lines = [
        ("Swin V2", f"distance = {found['rule'].partition(', M')[0]}", ""),
        ("", "M: {}×{} tokens, the window in pre-training".format(*pretrained), ""),
        ("", "the bias MLP of each layer reads (distance of dy, distance of dx);", ""),
        ("", "the bias of a head is 16·sigmoid of its output", ""),
    ]
    for name, side, distances in zip(("dy", "dx"), report.grid.window, (found["down"], found["across"]), strict=True):
        shown = [
            f"{offset}: {distances[offset + side - 1]:.3f}" for offset in some(side, MOST_ROWS) if offset is not None
        ]
        lines.append((name, ", ".join(shown), ""))
    lines.append(("", "a negative offset has the negative distance", ""))
    return [Text(""), screen.lines(lines)]


def number_table(
    title: str, down: range, across: range, number: Callable[[int, int], int], screen: Screen
) -> list[RenderableType]:
    """Return a table with the number of each row and column; the first and last ones if not all fit."""
    largest = max(number(down[-1], across[-1]), number(down[-1], across[0]))  # rows of the table grow with dy before dx
    cell = max(len(str(n)) for n in (largest, *across[:1], *across[-1:]))
    head = max(len(str(n)) for n in (*down[:1], *down[-1:]))
    columns = some(len(across), max((room(screen) - head - 1) // (cell + 1), 2))
    rows = some(len(down), MOST_ROWS)

    def line(first: int | None, numbers: Iterable[int | None], style: str = "") -> Text:
        words = [screen.text("…") if n is None else str(n) for n in (first, *numbers)]
        return Text.assemble(
            (f"{words[0]:>{head}} ", "dim"), ("".join(f" {word:>{cell}}" for word in words[1:]), style)
        )

    heads = line(None, (None if c is None else across[c] for c in columns), "dim")
    heads.plain = " " * head + heads.plain[head:]
    lines = [Text(screen.text(title), style="bold"), heads]
    for r in rows:
        numbers = (None if r is None or c is None else number(down[r], across[c]) for c in columns)
        lines.append(line(None if r is None else down[r], numbers))
    shown = [sum(place is not None for place in places) for places in (rows, columns)]
    left_out = f"shown: {shown[0]} of {len(down):,} rows, {shown[1]} of {len(across):,} columns"
    return [indented(lines), *([screen.aside(left_out)] if shown != [len(down), len(across)] else [])]


def level_field(window: Pair, rows: int, screen: Screen) -> list[RenderableType]:
    """Draw the index as a digit for each pair: 0 for the first tenth of the table's rows, 9 for the last."""
    (p, q), step = window, 1
    while -(-p // step) * -(-q // step) > min(MOST_FIELD, room(screen)):
        step += 1
    places = [(y, x) for y in range(0, p, step) for x in range(0, q, step)]
    lines = [Text(screen.text("index in tenths of the table: query down, key across"), style="bold")]
    for qy, qx in places:
        line = Text()
        for ky, kx in places:
            level = 10 * position_row(window, qy - ky, qx - kx) // rows
            line.append(str(level), style=f"black on {HEAT[level]}")
        lines.append(line)
    shown = [screen.aside(f"shown: 1 of {step} tokens in each direction")] if step > 1 else []
    return [indented(lines), *shown]


def offset_columns(report: WindowsReport) -> list[Column[tuple[int, int]]]:
    """Return the columns: an offset, its row of the bias table, and its distances in Swin V2, if they were requested."""
    p, q = report.grid.window
    columns: list[Column[tuple[int, int]]] = [
        Column("dy", "dy", lambda offset: offset[0]),
        Column("dx", "dx", lambda offset: offset[1]),
        Column("row", "row", lambda offset: position_row((p, q), *offset)),
    ]
    if report.log_window is None:
        return columns
    found = report.distances(report.log_window)
    return [
        *columns,
        Column("distance_dy", "distance of dy", lambda offset: found["down"][offset[0] + p - 1], "{:.3f}".format),
        Column("distance_dx", "distance of dx", lambda offset: found["across"][offset[1] + q - 1], "{:.3f}".format),
    ]


def _place(place: tuple[int, int], q: int) -> str:
    return f"token {place[0] * q + place[1]} (row {place[0]}, column {place[1]})"
