"""A NeighbourhoodReport on a screen: the grid with the keys of one query, and a table of its rows and columns."""

from itertools import pairwise

from rich.console import RenderableType
from rich.text import Text

from attnscope.core.sizes import plural
from attnscope.render import words
from attnscope.render.columns import Column
from attnscope.render.pictures import render_pictures
from attnscope.render.plane import COLORS, Drawing, Mark, Plane, Run, draw, runs
from attnscope.render.screen import Screen
from attnscope.render.windows.parts import picture_rows, room, table_parts
from attnscope.render.windows.token import LAYER_SIGNS
from attnscope.reports.neighbourhood import NeighbourhoodReport, Seen

OWN = 0
"""The label of the query's row or column."""


def render_neighbourhood(report: NeighbourhoodReport, form: str, screen: Screen) -> str:
    """Return the report as a table (its pictures), json, csv, md or svg."""
    return render_pictures(
        report,
        form,
        screen,
        lambda screen: neighbourhood_parts(report, screen),
        lambda: [(seen_columns(), report.seen)],
    )


def neighbourhood_parts(report: NeighbourhoodReport, screen: Screen) -> list[RenderableType]:
    """Return the headline, the pictures, the table, notes, and the suggested next command."""
    keys, *fields = report.seen
    scored = report.neighbourhood.keys is not None
    planes = [_plane(report, "keys of one query" if scored else "tokens of one output", [keys], "@o")]
    if fields:
        planes.append(_plane(report, f"after {plural(len(fields), 'layer')}", fields, LAYER_SIGNS))
    drawing = draw(planes, room(screen), screen)
    parts: list[RenderableType] = [screen.headline(report.title), Text(""), picture_rows(drawing.pictures, screen)]
    parts += [screen.aside(line) for line in _legend(report, drawing)]
    parts += [Text(""), *table_parts(seen_columns(), report.seen, screen)]
    lines = [("note", note, "") for note in report.notes] + screen.suggestion(*report.next)
    return [*parts, Text(""), screen.lines(lines)] if lines else parts


def seen_columns() -> list[Column[Seen]]:
    """Return the columns: the rows and columns of the tokens that a query depends on, and their number."""
    return [
        Column("layer", "layers", lambda seen: f"after layer {seen.layer}" if seen.layer else "one layer", right=False),
        Column("rows", "rows", lambda seen: _places(seen.rows), right=False),
        Column("columns", "columns", lambda seen: _places(seen.columns), right=False),
        Column("tokens", "tokens", lambda seen: seen.tokens, lambda n: f"{n:,}"),
        Column("share", "% tokens", lambda seen: seen.share, words.percent, 1),
    ]


def _legend(report: NeighbourhoodReport, drawing: Drawing) -> list[str]:
    (y, x), (rows, columns) = report.token, report.query
    pooled = len(rows) * len(columns) > 1
    query = f"the query of {len(rows)}×{len(columns)} tokens" if pooled else "the query"
    keys = "its keys" if report.neighbourhood.keys is not None else "tokens that its output depends on"
    legend = [f"@ is {query} at row {y}, column {x}, from 0; o are {keys}, . all other tokens"]
    if report.neighbourhood.cells:
        legend.append(f"lines separate {report.neighbourhood.cells}")
    if len(report.seen) > 1:
        legend.append("1 2 3 …: number of layers until the query depends on the token")
    down, across = drawing.letter
    if down * across > 1:
        legend.append(f"scaled: each letter represents up to {down}×{across} tokens")
    return legend


def _plane(report: NeighbourhoodReport, title: str, sights: list[Seen], signs: str) -> Plane:
    """Return the grid with a sign for each token: signs[0] for the query, signs[n] for tokens that sight n adds."""
    never = len(sights) + 1
    alone = never + 1  # the query's own row or column, if it has no key there

    def axis_runs(axis: int, side: int, spans: list[set[int]]) -> list[Run]:
        def label(place: int) -> int:
            first = next((number for number, span in enumerate(spans, start=1) if place in span), never)
            if place in report.query[axis]:
                return OWN if first < never else alone
            return first

        return runs([((label(place), False), report.neighbourhood.cell(axis, place)) for place in range(side)])

    def mark(y: int, x: int) -> Mark:
        if {y, x} <= {OWN, alone}:
            return signs[0], "bold reverse"
        latest = max(y, x)
        return (".", "dim") if latest >= never else (signs[latest], COLORS[(latest - 1) % len(COLORS)])

    height, width = report.resolution
    down = axis_runs(0, height, [set(sight.rows) for sight in sights])
    across = axis_runs(1, width, [set(sight.columns) for sight in sights])
    return Plane(title, down, across, mark)


def _places(places: list[int]) -> str:
    """Return `3–9`, `0–48, step 8`, or `12 of 0–48` for places without a fixed distance."""
    if not places:
        return words.NONE
    steps = {later - earlier for earlier, later in pairwise(places)}
    if not steps:
        return str(places[0])
    if steps == {1}:
        return f"{places[0]}–{places[-1]}"
    if len(steps) == 1:
        return f"{places[0]}–{places[-1]}, step {steps.pop()}"
    return f"{len(places)} of {places[0]}–{places[-1]}"
