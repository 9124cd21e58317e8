"""The keys of a query, interactive: the ranges along each axis, from which the script draws any query and any layer."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from attnscope.attentions.spec import Spec, own_fields
from attnscope.core.neighbourhood import Neighbourhood
from attnscope.networks import NetworkSpec
from attnscope.render.page.document import Panel

LARGEST = 112
"""The largest side of a grid that is drawn token by token."""
MOST_LAYERS = 12
AXES = {1: ("token",), 3: ("frame", "row", "column")}
"""The names of the axes of a sequence and of a volume, by their number."""
SHIFT = "shift"
"""The field of attentions whose layers alternate between plain and shifted windows."""


def neighbourhood_panel(spec: Spec) -> Panel | None:
    """Return the panel of an attention: a picture if its tokens are a grid, else words; None for a whole network."""
    if isinstance(spec, NetworkSpec) and spec.is_whole:
        return None
    sides = getattr(spec, spec.SIZE_FIELD, None)
    if isinstance(sides, tuple) and len(sides) == 2:
        return grid_panel(_views(spec), (sides[0], sides[1]))
    return _worded_panel(spec.neighbourhood, sides if isinstance(sides, tuple) else (spec.neighbourhood.tokens,))


def _worded_panel(look: Neighbourhood, sides: tuple[int, ...]) -> Panel:
    """Return the panel of a sequence or a volume: the keys of the query in the middle, along each axis."""
    names = AXES[len(sides)]
    middle = [side // 2 for side in sides]
    lines = [("neighbourhood", look.describe())]
    if look.keys is not None:
        lines.append(("keys", f"{look.keys:,} for each of {look.tokens:,} queries"))
    query = ", ".join(f"{name} {place}" for name, place in zip(names, middle, strict=True))
    for part in look.parts:
        reach = [part.reach(axis, side)[middle[axis]] for axis, side in enumerate(sides)]
        ranges = ", ".join(f"{name}s {keys.start}–{keys[-1]}" for name, keys in zip(names, reach, strict=True))
        lines.append((f"query at {query}", f"attends to {ranges}"))
    lead = "Numbers start at 0, and include padding."
    return Panel("neighbourhood", "What a query looks at", lead, "sections", {"lines": lines})


def grid_panel(
    looks: Mapping[str, Neighbourhood], sides: tuple[int, int], token: tuple[int, int] | None = None
) -> Panel | None:
    """Return the panel of a grid of tokens; None if it is too large to draw.

    Args:
        looks: the neighbourhoods that the layers alternate between, by name, that of the run first.
        sides: height and width of the grid.
        token: the query that is shown first; by default that in the middle.
    """
    if max(sides) > LARGEST:
        return None
    look = next(iter(looks.values()))
    views = {name: _view(each, sides) for name, each in looks.items()}
    queries = look.queries(sides)
    data = {
        "sides": sides,
        "queries": queries,
        "views": views,
        "token": token or (sides[0] // 2, sides[1] // 2),
        "layers": MOST_LAYERS if queries == sides else 0,
        "cells": {
            name: [[each.cell(axis, place) for place in range(sides[axis])] for axis in (0, 1)]
            for name, each in looks.items()
        },
        "scored": look.keys is not None,
    }
    lead = "Click a token, or move with the arrow keys, to see the tokens that its query attends to."
    content = {"words": look.describe(), "views": list(views), "layers": data["layers"], "cells": look.cells}
    return Panel("neighbourhood", "What a query looks at", lead, "neighbourhood", content, data)


def _views(spec: Spec) -> dict[str, Neighbourhood]:
    """Return the neighbourhood of a Spec, and for shifted windows also the plain ones, or the other way round."""
    if SHIFT not in own_fields(type(spec)):
        return {"this layer": spec.neighbourhood}
    own: dict[str, Any] = {name: {SHIFT: is_shifted} for name, is_shifted in (("plain", False), ("shifted", True))}
    found = {name: replace(spec, **fields).neighbourhood for name, fields in own.items()}
    first, *others = sorted(found, key=lambda name: found[name] != spec.neighbourhood)
    return {name: found[name] for name in (first, *others)}


def _view(look: Neighbourhood, sides: tuple[int, int]) -> list[list[dict[str, Any]]]:
    """Return, for each part and axis, the distinct ranges of keys and the number of the range of each query."""
    queries = look.queries(sides)
    return [[_axis(part.reach(axis, queries[axis]), sides[axis]) for axis in (0, 1)] for part in look.parts]


def _axis(reach: Sequence[range], side: int) -> dict[str, Any]:
    ranges = [range(keys.start, min(keys.stop, side), keys.step) for keys in reach]
    distinct = list(dict.fromkeys(ranges))
    number = {keys: index for index, keys in enumerate(distinct)}
    return {
        "ranges": [[each.start, each.stop, each.step] for each in distinct],
        "of": [number[each] for each in ranges],
    }
