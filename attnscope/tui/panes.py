"""The panes of the explorer, each a function of the session and the screen that returns lines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from attnscope.analyses.neighbourhood import check_grid, look_at_neighbourhood
from attnscope.analyses.scaling import scaling_of
from attnscope.core.errors import AttnscopeError
from attnscope.core.sizes import Pair
from attnscope.render.explorer import tables
from attnscope.render.explorer.kept import kept
from attnscope.render.explorer.lines import Line, folded
from attnscope.render.screen import Screen
from attnscope.tui.session import Session

KEPT = 16
"""Drafts whose growth is kept, for those that are undone."""


@dataclass(frozen=True)
class View:
    """The content of a pane: the session, the token of the neighbourhood, the screen, and its lines."""

    session: Session
    token: Pair | None
    screen: Screen
    height: int


_scaling_of = kept(KEPT)(scaling_of)


def _complexity(view: View) -> Sequence[Line]:
    from attnscope.render.explorer.pictures import HERE, PINNED, growth

    found = _scaling_of(view.session.draft)
    own = [(point.size, point.macs) for point in found.points]
    curves = {"global": [(point.size, point.global_macs) for point in found.points]}
    if [macs for _, macs in own] != [macs for _, macs in curves["global"]]:
        curves[view.session.draft.kind.name] = own
    marks = {HERE: (found.current.size, found.current.macs)}
    pinned = None if view.session.pinned is None else _scaling_of(view.session.pinned)
    if pinned is not None and pinned.field == found.field:
        curves["A"] = [(point.size, point.macs) for point in pinned.points]
        marks[PINNED] = (pinned.current.size, pinned.current.macs)
    return growth(view.session.report, curves, marks, found.field, view.screen)


def _neighbourhood(view: View) -> Sequence[Line]:
    from attnscope.render.explorer.pictures import neighbourhood, without_picture

    try:
        look = look_at_neighbourhood(view.session.attention, token=view.token)
    except AttnscopeError as error:
        return without_picture(view.session.report, error.in_flags(), view.screen)
    return neighbourhood(look, view.screen, view.height)


def _shard(view: View) -> Sequence[Line]:
    from attnscope.render.explorer.shards import shards

    session = view.session
    try:
        report = session.sharding_of(session.draft)
    except AttnscopeError as error:
        return folded(f"{error.in_flags()}; d types a plan", view.screen)
    try:
        pinned = None if session.pinned is None else session.sharding_of(session.pinned)
    except AttnscopeError:  # the plan is legal for B alone
        pinned = None
    own = session.attention.command().removeprefix("attnscope ")
    of = "" if session.attention is session.draft.spec else "the attention of a block"
    return shards(report, pinned, of, f"attnscope shard {own} --plan {report.plan}", view.screen)


MEMORY, SHARD = "memory", "shard"
"""The pane that needs the memory of the backward, and that of several ranks."""

PANES: dict[str, Callable[[View], Sequence[Line]]] = {
    "steps": lambda view: tables.steps(view.session.shown, view.screen),
    "complexity": _complexity,
    "neighbourhood": _neighbourhood,
    MEMORY: lambda view: tables.memory(view.session.shown, view.screen),
    "roofline": lambda view: tables.operands(view.session.shown, view.screen),
    "network": lambda view: tables.parts(view.session.shown, view.screen),
    SHARD: _shard,
}
"""The panes by name, in the order of their keys: 1 to 7."""


def moved(token: Pair | None, session: Session, down: int, across: int) -> Pair | None:
    """Return the token next to a token of the neighbourhood's picture; None without a picture."""
    try:
        sides = check_grid(session.attention)
    except AttnscopeError:
        return None
    row, column = token or (sides[0] // 2, sides[1] // 2)
    return min(max(row + down, 0), sides[0] - 1), min(max(column + across, 0), sides[1] - 1)
