"""The view --order: the place of each row of the window batch in the images."""

from rich.console import RenderableType
from rich.text import Text

from attnscope.render.columns import Column
from attnscope.render.plane import Picture
from attnscope.render.screen import Screen
from attnscope.render.windows.parts import MOST_ROWS, from_to, picture_rows, some, table_parts
from attnscope.reports.windows import OrderRow, WindowsReport

MOST_WINDOWS = 8
"""The largest number of windows on an axis for which the places are drawn."""
MOST_IMAGES = 4


def order_parts(report: WindowsReport, screen: Screen) -> list[RenderableType]:
    """Return the formulas of the order, the places of the windows, and a table of the rows."""
    grid, rows = report.grid, report.order_rows
    (r, s), (p, q), (down, across), (height, width) = grid.counts, grid.window, grid.roll, grid.padded
    lines = [
        ("row", f"b·nW + w: the batch index varies slowest, nW = {r * s:,}", ""),
        ("window", f"w = i·{s} + j, row i and column j of the windows", ""),
        ("token", f"t = y·{q} + x in a window is in the image at", ""),
        ("", f"row (i·{p} + y + {down}) mod {height},", ""),
        ("", f"column (j·{q} + x + {across}) mod {width}", ""),
    ]
    places = place_pictures(report) if max(r, s) <= MOST_WINDOWS and report.batch <= MOST_IMAGES else []
    shown = some(rows, MOST_ROWS)
    parts = [screen.lines(lines), Text("")]
    parts += [picture_rows(places, screen), Text("")] if places else []
    parts += table_parts(order_columns(), [report.order_row(row) for row in shown if row is not None], screen)
    left = rows - sum(row is not None for row in shown)
    return [*parts, screen.aside(f"not shown: {left:,} rows in between")] if left else parts


def place_pictures(report: WindowsReport) -> list[Picture]:
    """Draw the windows of each image in the order of the rolled plane, each as its row of the batch."""
    r, s = report.grid.counts
    cell = len(str(report.order_rows - 1))
    return [
        Picture(
            [
                Text(f"image {image}", style="bold"),
                *(Text(" ".join(f"{(image * r + i) * s + j:>{cell}}" for j in range(s))) for i in range(r)),
            ]
        )
        for image in range(report.batch)
    ]


def order_columns() -> list[Column[OrderRow]]:
    """Return the columns: a row of the window batch, and its place in the image."""
    return [
        Column("row", "row", lambda line: line.row),
        Column("image", "image b", lambda line: line.image),
        Column("window", "window w", lambda line: line.window),
        Column("place", "i, j", lambda line: f"{line.place[0]}, {line.place[1]}", rank=1, right=False),
        Column("rows", "image rows", lambda line: _spans(line.rows), right=False),
        Column("columns", "image columns", lambda line: _spans(line.columns), right=False),
    ]


def _spans(tokens: list[int]) -> str:
    """Return the ranges of consecutive tokens: `10–13, 0–2`."""
    spans, start = [], tokens[0]
    for before, token in zip(tokens, [*tokens[1:], -1], strict=True):
        if token != before + 1:
            spans.append(from_to((start, before)))
            start = token
    return ", ".join(spans)
