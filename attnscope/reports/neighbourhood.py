"""The NeighbourhoodReport as plain data: the keys of one query, and its receptive field after several layers."""

import json
from dataclasses import dataclass
from typing import Any

from attnscope.core.neighbourhood import Neighbourhood
from attnscope.core.shown import Shown
from attnscope.core.sizes import Pair

SCHEMA = 1


@dataclass
class Seen:
    """The tokens that a query depends on: all tokens in some of the rows and some of the columns.

    `layer` is None for the keys of a single layer, otherwise the number of layers so far.
    """

    layer: int | None
    rows: list[int]
    columns: list[int]
    share: float

    @property
    def tokens(self) -> int:
        """Return the number of tokens."""
        return len(self.rows) * len(self.columns)


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
            "seen": [{**vars(one), "tokens": one.tokens} for one in self.seen],
            "notes": self.notes,
            "next": self.next,
        }

    def to_json(self) -> str:
        """Return the data as JSON."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)
