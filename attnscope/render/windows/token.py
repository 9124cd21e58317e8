"""What one token sees: without and with the shift, and layer by layer."""

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
    """What one token sees: without and with the shift, and layer by layer."""
    assert report.token is not None
    grid, (y, x) = report.grid, report.token
    planes = []
    for look in report.looks:
        cut = grid if look.shifted else replace(grid, shift=(0, 0))
        title = "with the shift" if look.shifted else "without a shift"
        planes.append(_reach_plane(title, cut, report.token, [look], "@o"))
    if report.layers:
        title = f"after {plural(report.layers, 'layer')}"
        planes.append(_reach_plane(title, replace(grid, shift=(0, 0)), report.token, report.fields, LAYER_SIGNS))
    drawing = draw(planes, room(screen), screen)
    told = [f"@ is token {y},{x}: row {y}, column {x}, from 0", "o is what it looks at, . what it does not"]
    if report.layers:
        turns = "plain and shifted in turn" if grid.is_shifted else "all plain, so that it never grows"
        told += ["1 2 3 …: after how many layers it is seen,", f"layers {turns}"]
    if grid.is_padded:
        told.append("+ is padding: no mask hides it; it passes nothing on")
    told += scale_words(drawing, grid)
    parts = [picture_rows(drawing.pictures, screen), *(screen.aside(line) for line in told)]
    parts += [Text(""), *table_parts(sight_columns(grid), [*report.looks, *report.fields], screen)]
    return parts


def sight_columns(grid: Windows) -> list[Column[Sight]]:
    """What a token sees, in one layer and after several."""
    columns = [
        Column("layer", "sees", _layer_words, right=False),
        Column("rows", "rows", lambda sight: from_to(sight.rows), right=False),
        Column("columns", "columns", lambda sight: from_to(sight.columns), right=False),
        Column("tokens", "tokens", lambda sight: sight.tokens, lambda n: f"{n:,}"),
        Column("share", "share", lambda sight: sight.share, _share, 1),
    ]
    if grid.is_padded:
        columns.append(
            Column("padding", "and padding", lambda sight: None if sight.layer else sight.padding, _padding, 2)
        )
    return columns


def _reach_plane(title: str, cut: Windows, token: tuple[int, int], sights: list[Sight], signs: str) -> Plane:
    """The grid with a sign for when each token is seen: signs[0] is the token itself, signs[n] what the n-th sight adds."""
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
