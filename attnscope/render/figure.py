"""The lines of --explain-figure: the conventions that give a figure, or the nearest one."""

from itertools import groupby

from attnscope.render import words
from attnscope.reports.report import CountedFigure, ExplainedFigure

ON = " on "
"""The words between a tool and the library whose network it counts."""
HOW = {"exact": "", "rounded": ", rounded", "truncated": ", cut off", None: ""}
FAR = 1_000
"""Times by which a figure without a unit and the nearest count differ if the unit may have been left out."""
SHOWN = 5
"""Maximum number of different counts to list; JSON has all of them."""


def figure_lines(explained: ExplainedFigure | None) -> list[str]:
    """Return a line for each count that gives the figure, the usual conventions first."""
    if explained is None:
        return []
    if not explained.explained_by:
        return [_unexplained(explained)]
    counts: dict[tuple[int, str | None], list[CountedFigure]] = {}
    for each in explained.explained_by:
        counts.setdefault((each.figure, each.how), []).append(each)
    lines = [
        f"{explained.figure} is {_named(ways)}: {count:,}{HOW[how]} ({ways[0].says})"
        for (count, how), ways in list(counts.items())[:SHOWN]
    ]
    hidden = len(counts) - len(lines)
    return [*lines, f"and {hidden} more counts (see --json)"] if hidden > 0 else lines


def _named(ways: list[CountedFigure]) -> str:
    """Return the names of conventions; those of one tool are joined: `thop on timm or Microsoft`."""
    names = []
    for tool, group in groupby(ways, key=lambda each: each.name.partition(ON)[0]):
        libraries = [each.name.partition(ON)[2] for each in group]
        names.append(f"{tool}{ON}{' or '.join(libraries)}" if any(libraries) else tool)
    return ", or ".join(names)


def _unexplained(explained: ExplainedFigure) -> str:
    line = f"cannot tell: none of {explained.tried} known counts of {explained.of} is {explained.figure}"
    if explained.nearest is None or explained.off is None:
        return line
    nearest = f"{explained.nearest.name}, {explained.nearest.figure:,}"
    unit = f"; give its unit, such as {explained.figure}M" if explained.off > FAR and explained.figure.isdigit() else ""
    return f"{line}; the nearest is {nearest} ({_distance(explained.off)}){unit}"


def _distance(off: float) -> str:
    """Return how much larger a count is than a figure: `2.9% more`, `97.1% less`, or `21.8× the figure`."""
    if off > 1:
        return f"{words.times(1 + off)} the figure"
    return f"{words.percent(off)} more" if off > 0 else f"{words.percent(min(-off, 0.999))} less"
