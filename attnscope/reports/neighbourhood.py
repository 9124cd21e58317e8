"""The NeighbourhoodReport as plain data: the keys of one query, and its receptive field after several layers."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from attnscope.core.neighbourhood import Neighbourhood
from attnscope.core.shown import Shown
from attnscope.core.sizes import Pair
from attnscope.core.text import in_json

SCHEMA = 1


class Area(NamedTuple):
    """All tokens in some of the rows and some of the columns."""

    rows: list[int]
    columns: list[int]

    def includes(self, other: "Area") -> bool:
        """Return whether another area lies in this one."""
        return {*other.rows} <= {*self.rows} and {*other.columns} <= {*self.columns}


@dataclass
class Seen:
    """The tokens that a query depends on: those of one area, or of several, such as the two stripes of a cross.

    `layer` is None for the keys of a single layer, otherwise the number of layers so far. `rows` and `columns` are those
    of all areas, and `share` is the fraction of the tokens.
    """

    layer: int | None
    rows: list[int]
    columns: list[int]
    tokens: int
    share: float
    areas: list[Area]

    @classmethod
    def of(cls, layer: int | None, areas: list[Area], sides: Pair) -> "Seen":
        """Join areas of a grid with these sides."""
        columns_in: dict[int, set[int]] = {}
        for area in areas:
            for row in area.rows:
                columns_in.setdefault(row, set()).update(area.columns)
        tokens = sum(map(len, columns_in.values()))
        columns = sorted({column for area in areas for column in area.columns})
        return cls(layer, sorted(columns_in), columns, tokens, tokens / (sides[0] * sides[1]), areas)


@dataclass(repr=False)
class NeighbourhoodReport(Shown):
    """The tokens that one query of an attention attends to.

    `query` has the rows and the columns of its tokens: one of each, unless queries are pooled.
    """

    command: str | None
    title: str
    attention: str
    neighbourhood: Neighbourhood
    resolution: Pair
    token: Pair
    query: tuple[range, range]
    seen: list[Seen]
    notes: list[str]
    next: tuple[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return the data as plain dictionaries, lists and numbers."""
        return {
            "schema": SCHEMA,
            "command": self.command,
            "title": self.title,
            "attention": self.attention,
            "neighbourhood": {
                "kind": self.neighbourhood.kind,
                "description": self.neighbourhood.describe(),
                "keys": self.neighbourhood.keys,
            },
            "resolution": self.resolution,
            "token": self.token,
            "query": {"rows": list(self.query[0]), "columns": list(self.query[1])},
            "seen": [{**vars(one), "areas": [area._asdict() for area in one.areas]} for one in self.seen],
            "notes": self.notes,
            "next": self.next,
        }

    def to_json(self) -> str:
        """Return the data as JSON."""
        return in_json(self.to_dict())
