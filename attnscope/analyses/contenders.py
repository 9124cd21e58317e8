"""Contenders as they are typed, and the places of a range at which they are compared."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attnscope import attentions
from attnscope.attentions.spec import Spec, kind, own_fields
from attnscope.core.errors import UsageError, did_you_mean, nearest_multiples
from attnscope.core.neighbourhood import Neighbourhood
from attnscope.core.sizes import Pair, count_sides, describe_sides, pair, parse_sides
from attnscope.networks.stages import Stage
from attnscope.reports.comparison import Axis

CONTENDERS = ("vit", "swin", "swin:shift")
"""Global attention, W-MSA and SW-MSA."""
DEFAULTS = {"dim": 96, "heads": 3}
"""Defaults of all contenders: the first stage of Swin-T."""
RESOLUTION, IMAGE, PATCH, STAGE = "resolution", "image", "patch", "stage"
DEFAULT_RESOLUTION, DEFAULT_PATCH = 56, 4
DEFAULT_IMAGES = (56, 112, 224, 448, 896, 1792)
GRID_FIELDS = (RESOLUTION, IMAGE, PATCH, "tokens", "cls")
"""Fields of Specs that set the number of tokens; they are the same for all contenders."""


@dataclass(frozen=True)
class Contender:
    """An attention as it was typed: its label, its name, and its own values, which it keeps at every point."""

    label: str
    attention: str
    own: dict[str, Any]

    @property
    def fields(self) -> dict[str, "dataclasses.Field[Any]"]:
        """Return the fields of its Spec that a comparison may set or vary."""
        fields = own_fields(attentions.spec_class(self.attention))
        return {name: declared for name, declared in fields.items() if name not in GRID_FIELDS}

    def at(self, grid: Pair, values: Mapping[str, Any]) -> Spec:
        """Build its Spec on this grid.

        Raises:
            UsageError: a value is not allowed.
        """
        return attentions.spec_class(self.attention).on_grid(grid, {**DEFAULTS, **values, **self.own})


def read_contender(text: str) -> Contender:
    """Parse a contender such as `swin` or `swin:window=14,shift`.

    Raises:
        UsageError: the attention or a field is unknown, or a value does not have the type of its field.
    """
    name, _, settings = text.strip().partition(":")
    if name not in attentions.names():
        raise UsageError(f"{name or text!r} is not an attention; {did_you_mean(name, attentions.names())}")
    contender = Contender(text.strip(), name, {})
    for setting in filter(None, settings.split(",")):
        key, equals, value = (part.strip() for part in setting.partition("="))
        key = key.replace("-", "_")
        if key in GRID_FIELDS:
            raise UsageError(
                f"{text}: {key} must be the same for all attentions; set {{resolution}} or {{image}} for all of them"
            )
        if key not in contender.fields:
            raise UsageError(f"{text}: {name} has no field {key!r}; {did_you_mean(key, contender.fields)}")
        if not equals and kind(contender.fields[key]) is not bool:
            raise UsageError(f"{text}: {key} requires a value; write {name}:{key}=VALUE")
        contender.own[key] = _read_value(text, contender.fields[key], value if equals else "true")
    return contender


def _read_value(text: str, declared: "dataclasses.Field[Any]", value: str) -> Any:
    base = kind(declared)
    sides = count_sides(base)
    try:
        if base is bool:
            return {"true": True, "false": False}[value.lower()]
        return parse_sides(value, sides) if sides else base(value)
    except (ValueError, KeyError):
        rules = {bool: "true or false", int: "an integer", float: "a number"}
        rule = describe_sides(sides) if sides else rules[base]
        raise UsageError(f"{text}: {declared.name} must be {rule} (got {value!r})") from None


@dataclass(frozen=True)
class Place:
    """One point of a range without its costs: the values of the axes, the grid, and the other values that are set."""

    at: dict[str, int]
    grid: Pair
    values: dict[str, Any]


@dataclass(frozen=True)
class Meeting:
    """The setup of a comparison: the contenders, the settings that all of them share, and the axes.

    The values of the axis STAGE are the numbers of `stages`, counted from 1. Without `pad`, grids that need padding are
    refused.
    """

    contenders: list[Contender]
    settings: dict[str, Any]
    axes: list[Axis]
    stages: Sequence[Stage]
    pad: bool

    def place(self, at: dict[str, int]) -> Place:
        """Return the place with these values of the axes.

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
        """Return the Spec of each contender at a place, by label.

        Raises:
            UsageError: a Spec refuses its values, or it needs padding without `pad`.
        """
        specs = {contender.label: contender.at(place.grid, place.values) for contender in self.contenders}
        for spec in specs.values():
            self._check_alignment(spec.neighbourhood, place.grid)
        return specs

    def _check_alignment(self, neighbourhood: Neighbourhood, grid: Pair) -> None:
        field = f"{{{neighbourhood.field}}}"
        for side, unit in zip(grid, neighbourhood.alignment[-len(grid) :], strict=True):
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
    """Parse the contenders, and check the axes and the settings of a comparison.

    Raises:
        UsageError: there are fewer than two contenders, one appears twice, a field is unknown, or fields contradict each
            other.
    """
    entries = [read_contender(text) for text in contenders]
    labels = [entry.label for entry in entries]
    if len(labels) < 2:
        alone = f"only {labels[0]}" if labels else "none"
        raise UsageError(
            f"a comparison requires two attentions (got {alone}); add one, as in attnscope compare vit swin"
        )
    for label in labels:
        if labels.count(label) > 1:
            raise UsageError(
                f"an attention must appear once (got {label} twice); set a field of one, as in swin:window=14"
            )
    settings = {name: value for name, value in settings.items() if value is not None}
    fields = {name: declared for entry in entries for name, declared in entry.fields.items()}
    for name in settings:
        if name not in fields and name not in (RESOLUTION, IMAGE, PATCH):
            raise UsageError(f"{{{name}}} is not a field of {' or '.join(labels)}; remove it")
    if stages:
        over = {STAGE: range(1, len(stages) + 1)} | dict(over)
    elif not over and RESOLUTION not in settings and IMAGE not in settings:
        over = {IMAGE: DEFAULT_IMAGES}
    sizes = [name for name, declared in fields.items() if kind(declared) is int or count_sides(kind(declared))]
    _check_axes(over, settings, [RESOLUTION, IMAGE, PATCH, *sizes, *([STAGE] if stages else [])])
    _check_that_all_vary(over, entries)
    return Meeting(entries, settings, [Axis(name, list(values)) for name, values in over.items()], stages, pad)


def _check_that_all_vary(over: Mapping[str, Sequence[int]], entries: Sequence[Contender]) -> None:
    for name in over:
        own = [entry.label for entry in entries if name in entry.own]
        if own and not any(name in entry.fields and name not in entry.own for entry in entries):
            have = "sets" if len(own) == 1 else "set"
            raise UsageError(
                f"{{over}} {name} has no effect: {' and '.join(own)} {have} {name}; remove it from {own[0]}"
            )


def _check_axes(over: Mapping[str, Sequence[int]], settings: Mapping[str, Any], sizes: Sequence[str]) -> None:
    if len(over) > 2:
        raise UsageError(f"{{over}} must vary at most 2 fields (got {len(over)}: {', '.join(over)}); keep two of them")
    for name, values in over.items():
        if name not in sizes:
            raise UsageError(f"{{over}} must be a size of these attentions (got {name}); {did_you_mean(name, sizes)}")
        if name in settings:
            raise UsageError(f"{{over}} {name} and {{{name}}} both set {name}; give only one of them")
        if not values:
            raise UsageError(f"{{over}} {name} must have a value (got none); add one, as in {name}=7")
    given = [*over, *settings]
    grid = [name for name in (STAGE, RESOLUTION, IMAGE) if name in given]
    if len(grid) > 1:
        raise UsageError(f"{grid[0]} and {grid[1]} both set the grid; give only one of them")
    if STAGE in given and (own := [name for name in ("dim", "heads") if name in given]):
        raise UsageError(f"{{{own[0]}}} and the stages both set {own[0]}; give only one of them")
    if PATCH in given and IMAGE not in given:
        raise UsageError("{patch} requires {image}; add one, such as --image 224")
