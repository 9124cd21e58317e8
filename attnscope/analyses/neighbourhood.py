"""Spec -> NeighbourhoodReport: the tokens that a query of any attention attends to. No torch."""

from collections.abc import Sequence

from attnscope.attentions.spec import Spec
from attnscope.core.axes import spell
from attnscope.core.errors import UsageError
from attnscope.core.neighbourhood import Neighbourhood
from attnscope.core.sizes import Pair, spell_pair, spell_sides
from attnscope.core.windows import LARGEST_DRAWN
from attnscope.reports.neighbourhood import Area, NeighbourhoodReport, Seen

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

    Example:
        >>> import attnscope
        >>> spec = attnscope.attentions.spec_class("nat")(resolution=14, neighborhood=7)
        >>> attnscope.look_at_neighbourhood(spec, token=(0, 0)).seen[0].tokens
        49
    """
    sides = check_grid(spec)
    neighbourhood = spec.neighbourhood
    if max(sides) > LARGEST_DRAWN:
        raise UsageError(f"{{{spec.SIZE_FIELD}}} must be at most {LARGEST_DRAWN} in a picture (got {max(sides)})")
    token = (sides[0] // 2, sides[1] // 2) if token is None else token
    check_token(token, sides)
    queries = neighbourhood.queries(sides)
    if layers is not None:
        check_layers(layers)
        if queries != sides:
            fix = "; use {q_stride} 1" if "q_stride" in spec.PICTURED else ""
            raise UsageError(
                f"{{layers}} needs as many queries as tokens; pooled queries reduce the grid of the next layer{fix}"
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


def check_grid(spec: Spec) -> Pair:
    """Return the sides of the grid of tokens.

    Raises:
        UsageError: the tokens are a sequence, or a volume.
    """
    sides = getattr(spec, spec.SIZE_FIELD)
    if not isinstance(sides, tuple):
        raise UsageError(
            f"{spec.name} has a sequence of tokens and not a grid, so that it has no picture; "
            "choose another, as in attnscope windows swin"
        )
    if len(sides) != 2:
        frame = spell_sides(sides[-2:], "x")
        raise UsageError(
            f"{spec.name} has a volume of {spell(sides)} tokens, which has no picture; draw one frame, as in "
            f"attnscope windows --resolution {frame} --shift"
        )
    down, across = sides
    return down, across


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
    reached = [[part.reach(axis, queries[axis]) for axis in (0, 1)] for part in neighbourhood.parts]

    def after_layer(areas: list[Area]) -> list[Area]:
        return _joined([_keys(area, reach, sides) for area in areas for reach in reached])

    row, column = (token[axis] * queries[axis] // sides[axis] for axis in (0, 1))
    found = [Seen.of(None, after_layer([Area([row], [column])]), sides)]
    field = [Area([token[0]], [token[1]])]
    for layer in range(1, layers + 1):
        field = after_layer(field)
        found.append(Seen.of(layer, field, sides))
    return found


def _keys(queries: Area, reach: Sequence[Sequence[range]], sides: Pair) -> Area:
    """Return the keys of all queries of an area, without padding."""
    rows, columns = (
        sorted({key for place in places for key in reach[axis][place] if key < sides[axis]})
        for axis, places in enumerate((queries.rows, queries.columns))
    )
    return Area(rows, columns)


def _joined(areas: list[Area]) -> list[Area]:
    """Return the areas without those that lie in another one."""
    kept: list[Area] = []
    for area in areas:
        if not any(other.includes(area) for other in kept):
            kept = [other for other in kept if not area.includes(other)] + [area]
    return kept


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
