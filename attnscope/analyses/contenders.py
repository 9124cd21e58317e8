"""Contenders as they are typed, and the places of a range at which they are compared."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import Any

from attnscope import attentions
from attnscope.attentions.spec import FRAMES, Spec, kind, own_fields
from attnscope.core.errors import UsageError, did_you_mean, nearest_multiples, quoted
from attnscope.core.neighbourhood import Neighbourhood
from attnscope.core.sizes import Pair, count_sides, describe_sides, pair, parse_sides
from attnscope.networks import configs
from attnscope.networks.presets import read_network
from attnscope.networks.spec import NetworkSpec
from attnscope.networks.stages import Stage
from attnscope.reports.comparison import Adaptation, Axis

CONTENDERS = ("vit", "swin", "swin:shift")
"""Global attention, W-MSA and SW-MSA."""
DEFAULTS = {"dim": 96, "heads": 3}
"""Defaults of all attentions: the first stage of Swin-T."""
RESOLUTION, IMAGE, PATCH, STAGE = "resolution", "image", "patch", "stage"
DEFAULT_RESOLUTION, DEFAULT_PATCH = 56, 4
DEFAULT_FRAMES = 8
"""Default number of frames if an attention takes videos: that of Video Swin's first stage."""
DEFAULT_IMAGES = (56, 112, 224, 448, 896, 1792)
NETWORK_IMAGES = (224, 448, 672, 896, 1120)
"""Default images of networks: multiples of the usual patches, 14, 16 and 32."""
GRID_FIELDS = (RESOLUTION, IMAGE, PATCH, "tokens", "cls")
"""Fields of Specs that set the number of tokens; they are the same for all attentions."""
OF_PARTS = (IMAGE, "scope", "stage", "block")
"""Fields of a network that are the same for all networks, which are compared as wholes."""
PRESET = "preset:"
"""The optional prefix of a network."""
MOST_SAMPLED = 50
"""The number of places that are tried before a contender gets another value."""


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

    @property
    def is_network(self) -> bool:
        """Return whether it is a whole network rather than an attention."""
        return False

    @property
    def takes_grids(self) -> bool:
        """Return whether its tokens have places on a grid, rather than in a sequence."""
        spec = attentions.spec_class(self.attention)
        return count_sides(kind(own_fields(spec)[spec.SIZE_FIELD])) is not None

    @property
    def is_of_video(self) -> bool:
        """Return whether it takes videos."""
        return attentions.spec_class(self.attention).is_of_video()

    def at(self, grid: Pair, values: Mapping[str, Any]) -> Spec:
        """Build its Spec on this grid.

        Raises:
            UsageError: a value is not allowed.
        """
        return attentions.spec_class(self.attention).on_grid(grid, {**DEFAULTS, **values, **self.own})


@dataclass(frozen=True)
class NetworkContender(Contender):
    """A whole network, by the name of its preset; its grid is the image, in pixels."""

    spec: NetworkSpec

    @property
    def fields(self) -> dict[str, "dataclasses.Field[Any]"]:
        """Return the fields of its Spec that a comparison may set or vary."""
        return {name: declared for name, declared in own_fields(type(self.spec)).items() if name not in OF_PARTS}

    @property
    def is_network(self) -> bool:
        """Return whether it is a whole network rather than an attention."""
        return True

    @property
    def is_of_video(self) -> bool:
        """Return whether it takes videos."""
        return False

    def at(self, grid: Pair, values: Mapping[str, Any]) -> Spec:
        """Build its Spec for an image.

        Raises:
            UsageError: a value is not allowed.
        """
        given = {name: value for name, value in values.items() if name in self.fields}
        return replace(self.spec, image=grid, **{**given, **self.own})


def read_contender(text: str) -> Contender:
    """Parse a contender: `swin`, `swin:window=14,shift`, `vit-b-16-224` or `preset:swin-t-224:window=8`.

    Raises:
        UsageError: the attention, the preset or a field is unknown, or a value does not have the type of its field.
    """
    name, colon, settings = text.strip().removeprefix(PRESET).partition(":")
    contender = _named(text.strip(), name)
    if colon and not settings:
        raise UsageError(f"{text} has no setting after the colon; write {name} or {name}:FIELD=VALUE")
    for setting in filter(None, settings.split(",")):
        key, equals, value = (part.strip() for part in setting.partition("="))
        key = key.replace("-", "_")
        if key in (OF_PARTS if contender.is_network else GRID_FIELDS):
            rule = "set {image}" if contender.is_network else "set {resolution} or {image}"
            raise UsageError(f"{text}: {key} must be the same for all {_kind([contender])}; {rule} for all of them")
        if key not in contender.fields:
            raise UsageError(f"{text}: {name} has no field {key!r}; {did_you_mean(key, contender.fields)}")
        if not equals and kind(contender.fields[key]) is not bool:
            raise UsageError(f"{text}: {key} requires a value; write {name}:{key}=VALUE")
        contender.own[key] = _read_value(text, contender.fields[key], value if equals else "true")
    return contender


def _named(label: str, name: str) -> Contender:
    """Return the contender with this name and without own values.

    Raises:
        UsageError: it is neither an attention nor a preset.
    """
    if name in attentions.names() and not label.startswith(PRESET):
        return Contender(label, name, {})
    try:
        spec = read_network(name)
    except UsageError:
        names = [*attentions.names(), *configs.presets()]
        near = did_you_mean(name, names, many="attnscope compare --help and attnscope presets list all")
        if "," in name and {*name.split(",")} <= {*names}:
            near = f"separate contenders by spaces: {name.replace(',', ' ')}"
        raise UsageError(f"{quoted(name or label)!r} is not an attention or a preset; {near}") from None
    return NetworkContender(label, spec.name, {}, spec)


def _kind(contenders: Sequence[Contender]) -> str:
    return "networks" if contenders[0].is_network else "attentions"


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
    adaptations: Sequence[Adaptation] = ()

    @property
    def of_networks(self) -> bool:
        """Return whether networks are compared."""
        return self.contenders[0].is_network

    @property
    def has_frames(self) -> bool:
        """Return whether the contenders get several frames."""
        return FRAMES in self.settings or any(axis.field == FRAMES for axis in self.axes)

    def place(self, at: dict[str, int]) -> Place:
        """Return the place with these values of the axes.

        Raises:
            UsageError: the image is not divisible by the patch.
        """
        values = {**self.settings, **at}
        if self.of_networks:
            return Place(at, pair(values.pop(IMAGE)), values)
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

    def places(self) -> Iterator[dict[str, int]]:
        """Yield the values of the axes at each point of the range."""
        names = [axis.field for axis in self.axes]
        for values in product(*(axis.values for axis in self.axes)):
            yield dict(zip(names, values, strict=True))

    def meet(self, place: Place) -> tuple[dict[str, Spec], dict[str, UsageError]]:
        """Return the Spec of each contender that can take this place, and the error of each other one, by label."""
        specs: dict[str, Spec] = {}
        refusals: dict[str, UsageError] = {}
        for contender in self.contenders:
            try:
                spec = contender.at(place.grid, place.values)
                if not self.pad and not contender.is_network:
                    self._check_alignment(spec.neighbourhood, place.grid)
                specs[contender.label] = spec
            except UsageError as error:
                refusals[contender.label] = error
        return specs, refusals

    def specs(self, place: Place) -> dict[str, Spec]:
        """Return the Spec of each contender that can take this place, by label.

        Raises:
            UsageError: fewer than two contenders can.
        """
        specs, refusals = self.meet(place)
        if len(specs) < 2:
            raise next(iter(refusals.values()))
        return specs

    def _check_alignment(self, neighbourhood: Neighbourhood, grid: Pair) -> None:
        field = f"{{{neighbourhood.field}}}"
        for side, unit in zip(grid, neighbourhood.alignment[-len(grid) :], strict=True):
            if side % unit:
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
    _check_alike(entries)
    of_networks = entries[0].is_network
    settings = {name: value for name, value in settings.items() if value is not None}
    fields = {name: declared for entry in entries for name, declared in entry.fields.items()}
    of_grid = [IMAGE] if of_networks else [RESOLUTION, IMAGE, PATCH, FRAMES]
    for name in settings:
        if name not in fields and name not in of_grid:
            raise UsageError(f"{{{name}}} is not a field of {' or '.join(labels)}; remove it")
    if stages and of_networks:
        raise UsageError("{stages} compares attentions, not networks; remove it, or use {over} image=224:1024:32")
    if stages:
        over = {STAGE: range(1, len(stages) + 1)} | dict(over)
    elif of_networks and not {IMAGE} & {*over, *settings}:
        over, settings = (over, {**settings, IMAGE: NETWORK_IMAGES[0]}) if over else ({IMAGE: NETWORK_IMAGES}, settings)
    elif not over and RESOLUTION not in settings and IMAGE not in settings:
        over = {IMAGE: DEFAULT_IMAGES}
    if settings.get(FRAMES, 1) < 1:
        raise UsageError(f"{{frames}} must be at least 1 (got {settings[FRAMES]}); remove it for images")
    if FRAMES not in over and FRAMES not in settings and any(entry.is_of_video for entry in entries):
        settings[FRAMES] = DEFAULT_FRAMES
    sizes = [name for name, declared in fields.items() if kind(declared) is int or count_sides(kind(declared))]
    _check_axes(over, settings, [*of_grid, *sizes, *([STAGE] if stages else [])], of_networks)
    _check_that_all_vary(over, entries)
    axes = [Axis(name, list(values)) for name, values in over.items()]
    return adapted(Meeting(entries, settings, axes, stages, pad))


def _check_alike(entries: Sequence[Contender]) -> None:
    """Check that attentions are compared with attentions, and networks with networks.

    Raises:
        UsageError: both are among the contenders.
    """
    of_first = [entry for entry in entries if entry.is_network is entries[0].is_network]
    others = [entry for entry in entries if entry not in of_first]
    if others:
        raise UsageError(
            f"{_kind(of_first)} must be compared with {_kind(of_first)} (got {of_first[0].label} and {others[0].label}); "
            f"remove the {_kind(others)}"
        )


def adapted(meeting: Meeting) -> Meeting:
    """Give each contender that refuses a shared setting at every place the nearest value that it takes.

    Sizes that vary are not changed. A setting that all contenders refuse is an error of the user, and remains as it is.
    """
    places = list(islice(_places(meeting), MOST_SAMPLED))
    contenders, adaptations = list(meeting.contenders), []
    taken = [meeting.meet(place) for place in places[:1]]
    if all(not refusals for _, refusals in taken):
        return meeting
    taken += [meeting.meet(place) for place in places[1:]]
    for index, contender in enumerate(contenders):
        if any(contender.label in specs for specs, _ in taken):
            continue
        among_others = [place for place, (specs, _) in zip(places, taken, strict=True) if specs]
        found = _nearest_setting(meeting, contender, among_others)
        if found is not None:
            name, value, instead_of = found
            reason = next(refusals for specs, refusals in taken if specs)[contender.label]
            contenders[index] = replace(contender, own={**contender.own, name: value})
            adaptations.append(Adaptation(contender.label, name, value, instead_of, str(reason)))
    return replace(meeting, contenders=contenders, adaptations=adaptations)


def _places(meeting: Meeting) -> Iterator[Place]:
    """Yield the places of the range whose values agree with each other."""
    for at in meeting.places():
        try:
            yield meeting.place(at)
        except UsageError:
            continue


def _nearest_setting(meeting: Meeting, contender: Contender, places: Sequence[Place]) -> tuple[str, Any, Any] | None:
    """Return the setting whose change makes a contender take one of the places: its name, its new and its old value."""
    varied = [axis.field for axis in meeting.axes]
    for name, value in ({**DEFAULTS, **places[0].values} if places else {}).items():
        if name in varied or name in contender.own or name not in contender.fields:
            continue
        for candidate in _around(value):
            alone = replace(meeting, contenders=[replace(contender, own={**contender.own, name: candidate})])
            if any(alone.meet(place)[0] for place in places):
                return name, candidate, value
    return None


def _around(value: Any) -> Iterator[Any]:
    """Yield the numbers around an integer, or around the sides of a pair with equal sides, the nearest first."""
    sides = value if isinstance(value, tuple) else (value,)
    if isinstance(value, bool) or not isinstance(sides[0], int) or len(set(sides)) > 1:
        return
    side = sides[0]
    for distance in range(1, side + 1):
        for near in (side - distance, side + distance):
            if near > 0:
                yield (near,) * len(sides) if isinstance(value, tuple) else near


def _check_that_all_vary(over: Mapping[str, Sequence[int]], entries: Sequence[Contender]) -> None:
    for name in over:
        own = [entry.label for entry in entries if name in entry.own]
        if own and not any(name in entry.fields and name not in entry.own for entry in entries):
            have = "sets" if len(own) == 1 else "set"
            raise UsageError(
                f"{{over}} {name} has no effect: {' and '.join(own)} {have} {name}; remove it from {own[0]}"
            )


def _check_axes(
    over: Mapping[str, Sequence[int]], settings: Mapping[str, Any], sizes: Sequence[str], of_networks: bool
) -> None:
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
    if PATCH in given and IMAGE not in given and not of_networks:
        raise UsageError("{patch} requires {image}; add one, such as --image 224")
