"""The JSON Schema of all JSON output, derived from the classes of the reports; `python -m tests.golden` writes its file."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from jsonschema import Draft202012Validator
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from typing_extensions import TypedDict

from attnscope.plan.peaks import Peaks
from attnscope.reports.comparison import Comparison
from attnscope.reports.diff import Diff
from attnscope.reports.report import SCHEMA, Report, TraceReport
from attnscope.reports.sharding import ShardingReport
from attnscope.reports.windows import Sight

FILE = Path(__file__).parents[1] / "docs" / "reference" / f"schema-{SCHEMA}.json"

Pair = tuple[int, int]


class Place(TypedDict):
    """The rows and the columns of tokens."""

    rows: list[int]
    columns: list[int]


class Keys(TypedDict):
    """What a query attends to; `keys` is the number of its keys, null if attention does not score token by token."""

    kind: str
    description: str
    keys: int | None


class Seen(Place):
    """The tokens that a query reaches after `layer` layers, null for one layer; `share` is the share of the image."""

    layer: int | None
    tokens: int
    share: float
    areas: list[Place]


class Neighbourhood(TypedDict):
    """The output of `attnscope windows NAME`: the tokens that one query of an attention attends to."""

    schema: int
    command: str | None
    title: str
    attention: str
    neighbourhood: Keys
    resolution: Pair
    token: Pair
    query: Place
    seen: list[Seen]
    notes: list[str]
    next: tuple[str, str]


class Grid(TypedDict):
    """The grid of tokens, (rows, columns) each; `waste` is the share of padding among the tokens."""

    resolution: Pair
    window: Pair
    shift: Pair
    roll: Pair
    windows: Pair
    padded: Pair
    padding: Pair
    waste: float


class Groups(TypedDict):
    """The group of a token by its row and its column; tokens of one group attend to each other."""

    rule: str
    count: int
    down: list[int]
    across: list[int]


class Mask(TypedDict):
    """A distinct mask, and the first and last row and column of the windows that have it; 1 in `mask` is blocked."""

    name: str
    windows: int
    window_rows: Pair
    window_columns: Pair
    pairs: int
    blocked: int
    share: float
    mask: list[list[int]] | None


class Index(TypedDict):
    """The row of the bias table for each pair of tokens in a window."""

    rule: str
    table_rows: int
    index: list[list[int]] | None


class Distances(TypedDict):
    """The distance of each offset on the log scale of Swin V2."""

    rule: str
    pretrained_window: Pair
    down: list[float]
    across: list[float]


class OldOffset(TypedDict):
    """An offset of the window in pre-training, and its weight for an offset of the new window."""

    offset: int
    weight: float


class Resized(TypedDict):
    """The offsets in pre-training from which a resized bias table of Swin is interpolated, for each offset."""

    rule: str
    pretrained_window: Pair
    down: list[list[OldOffset]]
    across: list[list[OldOffset]]


class Order(TypedDict):
    """The order of the windows in the batch, and the rows and columns of the tokens of each."""

    rule: str
    batch: int
    windows: int
    down: list[list[int]]
    across: list[list[int]]


class Token(TypedDict):
    """What one token sees in a layer, and after each of several layers."""

    place: Pair
    looks: list[Sight]
    layers: list[Sight]


class Windows(TypedDict):
    """The output of `attnscope windows`: the windows of a grid, their masks and positions."""

    schema: int
    command: str | None
    title: str
    grid: Grid
    groups: Groups
    masks: list[Mask]
    index: Index
    distances: Distances | None
    resized: Resized | None
    order: Order
    token: Token | None
    left_out: list[str]
    notes: list[str]
    next: tuple[str, str]


class Preset(TypedDict):
    """A published network: its command, its name in timm, and its exact counts for one image."""

    name: str
    command: str
    timm: str
    source: str
    params: int
    macs: int
    spec: dict[str, Any]
    published: list[dict[str, str]]


KINDS: Mapping[str, Any] = {
    "explore": Report,
    "trace": TraceReport,
    "compare": Comparison,
    "windows": Windows,
    "neighbourhood": Neighbourhood,
    "diff": Diff,
    "shard": ShardingReport,
    "peaks": Peaks,
    "presets": list[Preset],
}
"""The types of all outputs, by what they answer."""


SIGNS = {
    "points": "compare",
    "grid": "windows",
    "seen": "neighbourhood",
    "doubts": "diff",
    "matmul": "peaks",
    "calls": "trace",
    "audit": "explore",
    "others": "shard",
}
"""The first of these keys in an output is that of its kind."""


class _Generator(GenerateJsonSchema):
    """A generator for what `asdict` writes, without titles of fields, which only repeat their names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Leave out titles."""
        return False

    def dataclass_schema(self, schema: Any) -> dict[str, Any]:
        """Add the fields that a dataclass computes itself, which pydantic leaves out."""
        generated: dict[str, Any] = super().dataclass_schema(schema)
        types = get_type_hints(schema["cls"])
        computed = [each.name for each in dataclasses.fields(schema["cls"]) if not each.init]
        return generated | {
            "properties": generated["properties"] | {name: TypeAdapter(types[name]).json_schema() for name in computed}
        }


@cache
def json_schema() -> dict[str, Any]:
    """Return the JSON Schema: `#/$defs/explore` is the output of an attention's command, and so on."""
    adapters = [(kind, "serialization", TypeAdapter(of)) for kind, of in KINDS.items()]
    references, schema = TypeAdapter.json_schemas(adapters, schema_generator=_Generator)
    outputs = {kind: reference for (kind, _), reference in references.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"JSON output of attnscope, schema {SCHEMA}",
        "description": "Later versions add keys, and do not remove keys or change their meaning.",
        "anyOf": [{"$ref": f"#/$defs/{kind}"} for kind in outputs],
        "$defs": {**outputs, **schema["$defs"]},
    }


def text() -> str:
    """Return the content of the file."""
    return json.dumps(json_schema(), ensure_ascii=False, indent=1) + "\n"


@cache
def _validator(kind: str) -> Draft202012Validator:
    """Return a validator for one kind of output, which also refuses keys that the schema does not have."""
    schema = {**_closed(json_schema()), "$ref": f"#/$defs/{kind}"}
    del schema["anyOf"]
    return Draft202012Validator(schema)


def _closed(schema: Any) -> Any:
    """Return a schema whose objects have no other keys than the declared ones."""
    if isinstance(schema, Sequence) and not isinstance(schema, str):
        return [_closed(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    return closed | ({"additionalProperties": False} if "properties" in schema else {})


def kind_of(data: Any) -> str:
    """Return the kind of an output by the keys that only this kind has."""
    if isinstance(data, list):
        return "presets"
    return next(kind for key, kind in SIGNS.items() if key in data)


def check(output: str) -> None:
    """Raise a ValidationError if a JSON output does not follow the schema."""
    data = json.loads(output)
    _validator(kind_of(data)).validate(data)
