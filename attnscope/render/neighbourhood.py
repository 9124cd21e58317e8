"""A NeighbourhoodReport on a screen: the grid with the keys of one query, and a table of its rows and columns."""

from itertools import pairwise
from operator import and_

from rich.console import RenderableType
from rich.text import Text

from attnscope.core.sizes import plural
from attnscope.render import words
from attnscope.render.columns import Column
from attnscope.render.pictures import render_pictures
from attnscope.render.plane import COLORS, MOST_LINES, Drawing, Mark, Plane, Run, draw, runs
from attnscope.render.screen import Screen
from attnscope.render.windows.parts import picture_rows, room, table_parts
from attnscope.render.windows.token import LAYER_SIGNS
from attnscope.reports.neighbourhood import NeighbourhoodReport, Seen

Label = tuple[bool, tuple[tuple[bool, ...], ...]]
"""A row or column of a picture: a flag for the query, and flags for each area of each sight."""


def render_neighbourhood(report: NeighbourhoodReport, form: str, screen: Screen) -> str:
    """Return the report as a table (its pictures), json, csv, md or svg."""
    return render_pictures(
        report,
        form,
        screen,
        lambda screen: neighbourhood_parts(report, screen),
        lambda: [(seen_columns(), report.seen)],
    )


def neighbourhood_parts(report: NeighbourhoodReport, screen: Screen, most: int = MOST_LINES) -> list[RenderableType]:
    """Return the headline, the pictures, the table, notes, and the suggested next command.

    Args:
        report: the report.
        screen: the screen.
        most: the largest number of lines of a picture.
    """
    drawing, legend = drawing_of(report, screen, most)
    parts: list[RenderableType] = [screen.headline(report.title), Text(""), picture_rows(drawing.pictures, screen)]
    parts += [screen.aside(line) for line in legend]
    parts += [Text(""), *table_parts(seen_columns(), report.seen, screen)]
    lines = [("note", note, "") for note in report.notes] + screen.suggestion(*report.next)
    return [*parts, Text(""), screen.lines(lines)] if lines else parts


def drawing_of(report: NeighbourhoodReport, screen: Screen, most: int = MOST_LINES) -> tuple[Drawing, list[str]]:
    """Return the pictures and the lines that explain them."""
    keys, *fields = report.seen
    scored = report.neighbourhood.keys is not None
    planes = [_plane(report, "keys of one query" if scored else "tokens of one output", [keys], "@o")]
    if fields:
        planes.append(_plane(report, f"after {plural(len(fields), 'layer')}", fields, LAYER_SIGNS))
    drawing = draw(planes, room(screen), screen, most)
    return drawing, _legend(report, drawing)


def seen_columns() -> list[Column[Seen]]:
    """Return the columns: the rows and columns of the tokens that a query depends on, and their number."""
    return [
        Column("layer", "layers", lambda seen: f"after layer {seen.layer}" if seen.layer else "one layer", right=False),
        Column("rows", "rows", lambda seen: _of_areas(seen, 0), right=False),
        Column("columns", "columns", lambda seen: _of_areas(seen, 1), right=False),
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
        all_lines = f"lines separate {report.neighbourhood.cells}"
        legend.append(
            all_lines if drawing.complete else f"not all lines fit that separate {report.neighbourhood.cells}"
        )
    if len(report.seen) > 1:
        legend.append("1 2 3 …: number of layers until the query depends on the token")
    down, across = drawing.letter
    if down * across > 1:
        legend.append(f"scaled: each letter represents up to {down}×{across} tokens")
    return legend


def _plane(report: NeighbourhoodReport, title: str, sights: list[Seen], signs: str) -> Plane:
    """Return the grid with a sign for each token: signs[0] for the query, signs[n] for tokens that sight n adds."""

    def axis_runs(axis: int, side: int) -> list[Run]:
        areas = [[{*area[axis]} for area in sight.areas] for sight in sights]

        def label(place: int) -> Label:
            return place in report.query[axis], tuple([tuple([place in area for area in of]) for of in areas])

        return runs([((label(place), False), report.neighbourhood.cell(axis, place)) for place in range(side)])

    def mark(y: Label, x: Label) -> Mark:
        """Return the sign of the tokens in rows and columns of these labels."""
        if y[0] and x[0]:
            return signs[0], "bold reverse"
        for number, (down, across) in enumerate(zip(y[1], x[1], strict=True), start=1):
            if any(map(and_, down, across)):
                return signs[number], COLORS[(number - 1) % len(COLORS)]
        return ".", "dim"

    height, width = report.resolution
    return Plane(title, axis_runs(0, height), axis_runs(1, width), mark)


def _of_areas(seen: Seen, axis: int) -> str:
    """Return the rows or columns of each area: `0–13 / 7` for the two stripes of a cross."""
    return " / ".join([_places(area[axis]) for area in seen.areas])


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
