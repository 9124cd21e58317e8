"""The view --token: the tokens that one token attends to, with and without the shift, and its receptive field."""

from dataclasses import replace

from rich.console import RenderableType
from rich.text import Text

from attnscope.core.sizes import plural
from attnscope.core.windows import Axis, Windows
from attnscope.render import words
from attnscope.render.columns import Column
from attnscope.render.plane import COLORS, Mark, Plane, Run, draw, runs
from attnscope.render.screen import Screen
from attnscope.render.windows.parts import from_to, picture_rows, room, scale_words, table_parts
from attnscope.reports.windows import Sight, WindowsReport

LAYER_SIGNS = "@123456789abcdefghijklmnopqrstuvwxyz"


def token_parts(report: WindowsReport, screen: Screen) -> list[RenderableType]:
    """Return the pictures of the tokens that one token attends to, their legend, and a table."""
    assert report.token is not None
    grid, (y, x) = report.grid, report.token
    planes = []
    for look in report.looks:
        cut = grid if look.shifted else replace(grid, shift=(0, 0))
        title = "with shift" if look.shifted else "without shift"
        planes.append(_reach_plane(title, cut, report.token, [look], "@o"))
    if report.layers:
        title = f"after {plural(report.layers, 'layer')}"
        planes.append(_reach_plane(title, replace(grid, shift=(0, 0)), report.token, report.fields, LAYER_SIGNS))
    drawing = draw(planes, room(screen), screen)
    legend = [f"@ is token {y},{x}: row {y}, column {x}, from 0", "o are tokens that it attends to, . all others"]
    if report.layers:
        order = "plain and shifted layers alternate" if grid.is_shifted else "all layers are plain, so it never grows"
        legend += ["1 2 3 …: number of layers until it depends on the token;", order]
    if grid.is_padded:
        legend.append("+ is padding: not masked, but it passes nothing on")
    legend += scale_words(drawing, grid)
    parts = [picture_rows(drawing.pictures, screen), *(screen.aside(line) for line in legend)]
    parts += [Text(""), *table_parts(sight_columns(grid), [*report.looks, *report.fields], screen)]
    return parts


def sight_columns(grid: Windows) -> list[Column[Sight]]:
    """Return the columns: the tokens that one token attends to in one layer, or depends on after several."""
    columns = [
        Column("layer", "layers", _layer_words, right=False),
        Column("rows", "rows", lambda sight: from_to(sight.rows), right=False),
        Column("columns", "columns", lambda sight: from_to(sight.columns), right=False),
        Column("tokens", "tokens", lambda sight: sight.tokens, lambda n: f"{n:,}"),
        Column("share", "% tokens", lambda sight: sight.share, _share, 1),
    ]
    if grid.is_padded:
        columns.append(Column("padding", "padding", lambda sight: None if sight.layer else sight.padding, _padding, 2))
    return columns


def _reach_plane(title: str, cut: Windows, token: tuple[int, int], sights: list[Sight], signs: str) -> Plane:
    """Return the grid with a sign for each token: signs[0] for the token itself, signs[n] for tokens that sight n adds."""
    never = len(sights) + 1

    def axis_runs(axis: Axis, own: int, spans: list[tuple[int, int]]) -> list[Run]:
        def seen(place: int) -> int:
            first = (n for n, (start, end) in enumerate(spans, start=1) if start <= place <= end)
            return 0 if place == own else next(first, never)

        return runs([((seen(place), place >= axis.side), axis.group(place)) for place in range(axis.padded)])

    def mark(y: int, x: int) -> Mark:
        latest = max(y, x)
        if latest == never:
            return ".", "dim"
        return signs[latest], "bold reverse" if not latest else COLORS[(latest - 1) % len(COLORS)]

    down, across = cut.axes
    return Plane(
        title,
        axis_runs(down, token[0], [sight.rows for sight in sights]),
        axis_runs(across, token[1], [sight.columns for sight in sights]),
        mark,
    )


def _layer_words(sight: Sight) -> str:
    kind = "shifted" if sight.shifted else "plain"
    return f"one {kind} layer" if sight.layer is None else f"after layer {sight.layer}, {kind}"


def _padding(tokens: int | None) -> str:
    return f"{tokens:,}" if tokens else words.NONE


def _share(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else "< 0.1%"
