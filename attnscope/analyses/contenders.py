"""Who is compared, and where: contenders as they are typed, and the places of a range at which they meet."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attnscope import attentions
from attnscope.attentions.spec import Spec, kind, own_fields
from attnscope.core.errors import UsageError, did_you_mean, nearest_multiples
from attnscope.core.neighbourhood import Neighbourhood
from attnscope.core.sizes import Pair, pair, parse_pair
from attnscope.networks.stages import Stage
from attnscope.reports.comparison import Axis

CONTENDERS = ("vit", "swin", "swin:shift")
"""Global attention beside W-MSA and SW-MSA."""
DEFAULTS = {"dim": 96, "heads": 3}
"""The first stage of Swin-T, for all contenders."""
RESOLUTION, IMAGE, PATCH, STAGE = "resolution", "image", "patch", "stage"
DEFAULT_RESOLUTION, DEFAULT_PATCH = 56, 4
DEFAULT_IMAGES = (56, 112, 224, 448, 896, 1792)
GRID_FIELDS = (RESOLUTION, IMAGE, PATCH, "tokens", "cls")
"""Fields of Specs that say how many tokens there are: all contenders have the same grid."""


@dataclass(frozen=True)
class Contender:
    """An attention as it was typed: its label, its name, and the values of its own that it keeps at every point."""

    label: str
    attention: str
    own: dict[str, Any]

    @property
    def fields(self) -> dict[str, "dataclasses.Field[Any]"]:
        """The fields of its Spec that may be compared over."""
        known = own_fields(attentions.spec_class(self.attention))
        return {name: declared for name, declared in known.items() if name not in GRID_FIELDS}

    def at(self, grid: Pair, values: Mapping[str, Any]) -> Spec:
        """Its Spec on this grid. A value that cannot be asked for is a UsageError."""
        return attentions.spec_class(self.attention).on_grid(grid, {**DEFAULTS, **values, **self.own})


def read_contender(text: str) -> Contender:
    """Read `swin` or `swin:window=14,shift`.

    Raises:
        UsageError: an attention or a field that is unknown, or a value that is none.
    """
    name, _, settings = text.strip().partition(":")
    if name not in attentions.names():
        raise UsageError(f"{name or text!r} is no attention; {did_you_mean(name, attentions.names())}")
    contender = Contender(text.strip(), name, {})
    for setting in filter(None, settings.split(",")):
        key, equals, value = (part.strip() for part in setting.partition("="))
        key = key.replace("-", "_")
        if key in GRID_FIELDS:
            raise UsageError(f"{text}: all are compared on the same grid; give {{resolution}} or {{image}} for all")
        if key not in contender.fields:
            raise UsageError(f"{text}: {name} has no {key or 'nameless field'}; {did_you_mean(key, contender.fields)}")
        if not equals and kind(contender.fields[key]) is not bool:
            raise UsageError(f"{text}: {key} needs a value, as in {name}:{key}=VALUE")
        contender.own[key] = _read_value(text, contender.fields[key], value if equals else "true")
    return contender


def _read_value(text: str, declared: "dataclasses.Field[Any]", value: str) -> Any:
    base = kind(declared)
    try:
        if base is bool:
            return {"true": True, "false": False}[value.lower()]
        return parse_pair(value) if base == Pair else base(value)
    except (ValueError, KeyError):
        wants = {bool: "true or false", int: "a whole number", float: "a number", Pair: "a whole number or HxW"}[base]
        raise UsageError(f"{text}: {declared.name} takes {wants}, not {value!r}") from None


@dataclass(frozen=True)
class Place:
    """One point of a range before anything is known of it: the values of the axes, the grid, and what else is set."""

    at: dict[str, int]
    grid: Pair
    values: dict[str, Any]


@dataclass(frozen=True)
class Meeting:
    """Who is compared over what: the contenders, what all have in common, and the axes.

    `stages` are what the axis STAGE numbers, from 1 on. Without `pad` there are no grids that need padding.
    """

    contenders: list[Contender]
    settings: dict[str, Any]
    axes: list[Axis]
    stages: Sequence[Stage]
    pad: bool

    def place(self, at: dict[str, int]) -> Place:
        """The place with these values of the axes.

        Raises:
            UsageError: the image is not divisible by the patch.
        """
        values = {**self.settings, **at}
        if STAGE in at:
            stage = self.stages[values.pop(STAGE) - 1]
            at = {**at, "dim": stage.dim, "heads": stage.heads}
            return Place(at, stage.grid, stage.fields(values))
        image, patch = values.pop(IMAGE, None), pair(values.pop(PATCH, DEFAULT_PATCH))
        resolution = pair(values.pop(RESOLUTION, DEFAULT_RESOLUTION))
        if image is None:
            return Place(at, resolution, values)
        sides = pair(image)
        for side, step in zip(sides, patch, strict=True):
            if step < 1 or side % step:
                nearest = nearest_multiples(side, max(step, 1))
                raise UsageError(f"{{image}} {side} is not divisible by {{patch}} {step}; nearest: {nearest}")
        return Place(at, (sides[0] // patch[0], sides[1] // patch[1]), values)

    def specs(self, place: Place) -> dict[str, Spec]:
        """The Spec of each contender there, by its label.

        Raises:
            UsageError: there cannot be one, its window is larger than the grid, or it pads where padding is not wanted.
        """
        specs = {contender.label: contender.at(place.grid, place.values) for contender in self.contenders}
        for spec in specs.values():
            self._check_alignment(spec.neighbourhood, place.grid)
        return specs

    def _check_alignment(self, neighbourhood: Neighbourhood, grid: Pair) -> None:
        field = f"{{{neighbourhood.field}}}"
        for side, unit in zip(grid, neighbourhood.alignment, strict=True):
            if unit > side:
                problem = f"{field} {unit} is larger than the grid of {grid[0]}×{grid[1]} tokens"
                raise UsageError(f"{problem}; the largest is {min(grid)}")
            if side % unit and not self.pad:
                nearest = nearest_multiples(side, unit)
                raise UsageError(f"a grid side of {side} tokens is not divisible by {field} {unit}; nearest: {nearest}")


def arrange(
    contenders: Sequence[str],
    over: Mapping[str, Sequence[int]],
    settings: Mapping[str, Any],
    stages: Sequence[Stage] = (),
    pad: bool = True,
) -> Meeting:
    """Read who is compared over what.

    Raises:
        UsageError: fewer than two contenders, one of them twice, an unknown field, or fields that contradict each other.
    """
    entries = [read_contender(text) for text in contenders]
    labels = [entry.label for entry in entries]
    if len(labels) < 2:
        alone = labels[0] if labels else "nothing"
        raise UsageError(f"{alone} is compared with nothing; give two attentions, such as attnscope compare vit swin")
    for label in labels:
        if labels.count(label) > 1:
            raise UsageError(f"{label} is there twice; give one of them a value of its own, such as swin:window=14")
    settings = {name: value for name, value in settings.items() if value is not None}
    known = {name: declared for entry in entries for name, declared in entry.fields.items()}
    for name in settings:
        if name not in known and name not in (RESOLUTION, IMAGE, PATCH):
            raise UsageError(f"{{{name}}} is a field of none of {', '.join(labels)}; leave it out")
    if stages:
        over = {STAGE: range(1, len(stages) + 1)} | dict(over)
    elif not over and RESOLUTION not in settings and IMAGE not in settings:
        over = {IMAGE: DEFAULT_IMAGES}
    sizes = [name for name, declared in known.items() if kind(declared) in (int, Pair)]
    _check_axes(over, settings, [RESOLUTION, IMAGE, PATCH, *sizes, *([STAGE] if stages else [])])
    _check_that_all_vary(over, entries)
    return Meeting(entries, settings, [Axis(name, list(values)) for name, values in over.items()], stages, pad)


def _check_that_all_vary(over: Mapping[str, Sequence[int]], entries: Sequence[Contender]) -> None:
    for name in over:
        own = [entry.label for entry in entries if name in entry.own]
        if own and not any(name in entry.fields and name not in entry.own for entry in entries):
            have = "has its" if len(own) == 1 else "have their"
            raise UsageError(f"{{over}} {name} changes nothing: {' and '.join(own)} {have} own; leave it out of one")


def _check_axes(over: Mapping[str, Sequence[int]], settings: Mapping[str, Any], known: Sequence[str]) -> None:
    if len(over) > 2:
        raise UsageError(f"{', '.join(over)} are too many to go over; the most are two, as in a table")
    for name, values in over.items():
        if name not in known:
            raise UsageError(f"{{over}} {name} is no size of these attentions; {did_you_mean(name, known)}")
        if name in settings:
            raise UsageError(f"{{over}} {name} and {{{name}}} both set it; give one of them")
        if not values:
            raise UsageError(f"{{over}} {name} is empty; give it a value")
    asked = [*over, *settings]
    grid = [name for name in (STAGE, RESOLUTION, IMAGE) if name in asked]
    if len(grid) > 1:
        raise UsageError(f"{grid[0]} and {grid[1]} both set the grid; give one of them")
    if STAGE in asked and (own := [name for name in ("dim", "heads") if name in asked]):
        raise UsageError(f"{{{own[0]}}} is each stage's own; leave it out, or the stages")
    if PATCH in asked and IMAGE not in asked:
        raise UsageError("{patch} says nothing without an {image}; give one, such as --image 224")
