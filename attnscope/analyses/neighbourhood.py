"""Spec -> NeighbourhoodReport: the tokens that a query of any attention attends to. No torch."""

from attnscope.attentions.spec import Spec
from attnscope.core.axes import spell
from attnscope.core.errors import UsageError
from attnscope.core.neighbourhood import Neighbourhood
from attnscope.core.sizes import Pair, spell_pair
from attnscope.core.windows import LARGEST_DRAWN
from attnscope.reports.neighbourhood import NeighbourhoodReport, Seen

MOST_LAYERS = 35
"""Each layer is one character in a picture: 1 to 9, then a to z."""


def look_at_neighbourhood(
    spec: Spec, *, token: Pair | None = None, layers: int | None = None, command: str | None = None
) -> NeighbourhoodReport:
    """Return the keys of one query as data, and the receptive field of its token.

    Args:
        spec: the attention; its tokens must be a grid.
        token: the query's place (row, column) in the grid; by default the token in the middle.
        layers: also the tokens that it depends on after up to this number of layers.
        command: the command line, for the record.

    Raises:
        UsageError: the tokens do not form a grid, the token is outside of it, or a value is too large for a picture.
    """
    sides = getattr(spec, spec.SIZE_FIELD)
    neighbourhood = spec.neighbourhood
    if not isinstance(sides, tuple) or len(sides) != 2:
        raise UsageError(f"{spec.name} has a sequence of tokens and not a grid, so that it has no picture")
    if max(sides) > LARGEST_DRAWN:
        raise UsageError(f"{{{spec.SIZE_FIELD}}} must be at most {LARGEST_DRAWN} in a picture (got {max(sides)})")
    token = (sides[0] // 2, sides[1] // 2) if token is None else token
    check_token(token, sides)
    queries = neighbourhood.queries(sides)
    if layers is not None:
        check_layers(layers)
        if queries != sides:
            raise UsageError(
                "{layers} needs as many queries as tokens; pooled queries reduce the grid of the next layer"
            )
    query = tuple(_own(place, side // count) for place, side, count in zip(token, sides, queries, strict=True))
    return NeighbourhoodReport(
        command=command,
        title=f"{spec.title} · {spell(sides)} tokens · {neighbourhood.describe()}",
        attention=spec.name,
        neighbourhood=neighbourhood,
        resolution=sides,
        token=token,
        query=(query[0], query[1]),
        seen=_seen(neighbourhood, sides, queries, token, layers or 0),
        notes=spec.cautions(),
        next=_next(spec, sides, token, layers),
    )


def check_token(token: Pair, sides: Pair) -> None:
    """Check that a token is in the grid.

    Raises:
        UsageError: it is not.
    """
    for name, place, side in zip(("row", "column"), token, sides, strict=True):
        if not 0 <= place < side:
            raise UsageError(
                f"{{token}} {token[0]},{token[1]} is outside of the grid; {name} must be between 0 and {side - 1}"
            )


def check_layers(layers: int) -> None:
    """Check that a picture has a sign for each layer.

    Raises:
        UsageError: it does not.
    """
    if not 1 <= layers <= MOST_LAYERS:
        raise UsageError(f"{{layers}} must be between 1 and {MOST_LAYERS} (got {layers})")


def _own(place: int, stride: int) -> range:
    """Return the tokens along an axis whose query is that of the token at this place."""
    first = place // stride * stride
    return range(first, first + stride)


def _seen(neighbourhood: Neighbourhood, sides: Pair, queries: tuple[int, ...], token: Pair, layers: int) -> list[Seen]:
    """Return the tokens that a query attends to, and those that it depends on after each layer."""
    reached = [neighbourhood.reach(axis, queries[axis]) for axis in (0, 1)]
    places = [token[axis] * queries[axis] // sides[axis] for axis in (0, 1)]
    keys = [_inside(reached[axis][places[axis]], sides[axis]) for axis in (0, 1)]
    found = [_of(None, keys, sides)]
    fields: list[set[int]] = [{token[0]}, {token[1]}]
    for layer in range(1, layers + 1):
        fields = [
            {key for place in field for key in _inside(reached[axis][place], sides[axis])}
            for axis, field in enumerate(fields)
        ]
        found.append(_of(layer, [sorted(field) for field in fields], sides))
    return found


def _inside(keys: range, side: int) -> list[int]:
    """Return the keys that are tokens of the image, without padding."""
    return [key for key in keys if key < side]


def _of(layer: int | None, places: list[list[int]], sides: Pair) -> Seen:
    rows, columns = places
    return Seen(layer, rows, columns, len(rows) * len(columns) / (sides[0] * sides[1]))


def _next(spec: Spec, sides: Pair, token: Pair, layers: int | None) -> tuple[str, str]:
    """Return the suggested next command and its reason."""
    flags = " ".join([f"--resolution {spell_pair(sides, 'x')}", *_flags(spec)])
    if layers is None and spec.neighbourhood.queries(sides) == sides:
        place = f"{token[0]},{token[1]}"
        return f"attnscope windows {spec.name} {flags} --token {place} --layers 3", "its receptive field layer by layer"
    return f"attnscope {spec.name} {flags}", "the cost of each step"


def _flags(spec: Spec) -> list[str]:
    """Return the flags of the fields on which the neighbourhood depends."""
    flags = []
    for name in spec.PICTURED:
        value, flag = getattr(spec, name), f"--{name.replace('_', '-')}"
        if value is True:
            flags.append(flag)
        elif value not in (None, False):
            flags.append(f"{flag} {spell_pair(value, 'x') if isinstance(value, tuple) else value}")
    return flags
