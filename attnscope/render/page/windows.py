"""The pages of pictures: windows with their shift and masks, and the neighbourhood of a query."""

from attnscope.core.sizes import plural
from attnscope.core.windows import Mask, Windows
from attnscope.render import words
from attnscope.render.neighbourhood import seen_columns
from attnscope.render.page.document import Page, Panel
from attnscope.render.page.neighbourhood import grid_panel
from attnscope.render.page.panels import Figure, conclusion_panel, evidence_panel
from attnscope.render.page.tables import table_of, table_panel
from attnscope.render.windows import tables
from attnscope.reports.neighbourhood import NeighbourhoodReport
from attnscope.reports.windows import WindowsReport

TITLES = {
    "partition": "Masks in numbers",
    "token": "What the token sees",
    "positions": "Relative positions",
    "order": "Rows of the window batch",
}
"""The title of the table of each view."""
LARGEST_MASK = 150
"""The largest number of tokens of a window whose mask is drawn."""


def windows_page(report: WindowsReport) -> Page:
    """Return the page of windows: the grid, the masks, and a table of each requested view."""
    grid = report.grid
    plain = {"plain": Windows(*grid.sides, grid.window)}
    panels = [
        _conclusion(report),
        grid_panel({"shifted": grid, **plain} if grid.is_shifted else plain, grid.sides, report.token),
        _masks(report) if grid.is_shifted and report.writes_matrices else None,
        *(
            table_panel(view, TITLES[view], "", table_of(TITLES[view], *table), brief=True)
            for view, table in zip(report.views, tables(report), strict=True)
        ),
        evidence_panel(report.command, {}),
    ]
    return Page(report.title, "windows", [panel for panel in panels if panel], report.to_json(), report.command)


def _conclusion(report: WindowsReport) -> Panel:
    grid = report.grid
    down, across = grid.counts
    blocked = sum(mask.windows * mask.blocked for mask in grid.masks)
    pairs = sum(mask.windows * mask.pairs for mask in grid.masks)
    figures = [
        Figure("windows", f"{down * across:,}", "", f"{down} down, {across} across"),
        Figure("tokens of a window", f"{grid.keys:,}", "", "keys of each query"),
        Figure("padding", words.percent(grid.waste), f"{grid.padding_tokens:,} tokens"),
        Figure("masked pairs", words.percent(blocked / pairs), f"{blocked:,} of {pairs:,}"),
    ]
    lines = [("note", note) for note in report.notes]
    shift = f", shifted by {grid.roll[0]}×{grid.roll[1]}" if grid.is_shifted else ""
    sentence = (
        f"{grid.height}×{grid.width} tokens in {down}×{across} windows of {grid.window[0]}×{grid.window[1]}{shift}."
    )
    return conclusion_panel(sentence, lines, figures)


def _masks(report: WindowsReport) -> Panel | None:
    """Return a picture of each distinct mask: a row for each query, a column for each key."""
    if report.grid.keys > LARGEST_MASK:
        return None
    masks = [
        {
            "name": mask.name,
            "windows": plural(mask.windows, "window"),
            "side": len(mask.down) * len(mask.across),
            "path": _blocked(mask),
            "share": words.percent(mask.blocked / mask.pairs) if mask.blocked else "0%",
        }
        for mask in report.grid.masks
    ]
    lead = "A row is a query of a window, a column a key; blocked pairs are in color."
    return Panel("masks", "Masks", lead, "masks", {"masks": masks}, brief=True)


def _blocked(mask: Mask) -> str:
    """Return the path of the blocked pairs, a rectangle for each run of keys."""
    path = []
    for y, row in enumerate(mask.matrix()):
        start = None
        for x, is_blocked in enumerate([*row, 0]):
            if is_blocked and start is None:
                start = x
            elif not is_blocked and start is not None:
                path.append(f"M{start} {y}h{x - start}v1h{start - x}z")
                start = None
    return "".join(path)


def neighbourhood_page(report: NeighbourhoodReport) -> Page:
    """Return the page of one query of any attention."""
    keys = report.seen[0]
    noun = "attends to" if report.neighbourhood.keys is not None else "depends on"
    row, column = report.token
    sentence = f"Token {row},{column} {noun} {keys.tokens:,} tokens, {words.percent(keys.share)} of all."
    lines = [("neighbourhood", report.neighbourhood.describe()), *(("note", note) for note in report.notes)]
    table = table_of("Rows and columns that a query sees", seen_columns(), report.seen)
    panels = [
        conclusion_panel(sentence, lines),
        grid_panel({"this layer": report.neighbourhood}, report.resolution, report.token),
        table_panel("table", "Rows and columns", "", table, brief=True),
        evidence_panel(report.command, {}),
    ]
    shown = [panel for panel in panels if panel is not None]
    return Page(report.title, "neighbourhood", shown, report.to_json(), report.command)
