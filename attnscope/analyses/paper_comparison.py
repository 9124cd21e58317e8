"""Contenders -> Comparison: the costs of each at each point of a range, and their break-evens. No torch."""

import math
import platform
import re
from collections.abc import Mapping, Sequence

from attnscope.analyses.contenders import (
    IMAGE,
    RESOLUTION,
    STAGE,
    Contender,
    Meeting,
    NetworkContender,
    Place,
)
from attnscope.analyses.crossovers import crossovers
from attnscope.analyses.quantities import OTHER_WORDS, QUANTITIES, macs
from attnscope.attentions.spec import FRAMES, Spec
from attnscope.core.errors import UsageError, did_you_mean, quoted
from attnscope.core.neighbourhood import AllTokens
from attnscope.core.ranges import MOST_VALUES
from attnscope.core.sizes import spell_sides
from attnscope.core.version import __version__
from attnscope.networks.spec import NetworkSpec
from attnscope.profiling.options import Progress, tracked
from attnscope.reports.comparison import LAYER, NETWORK, Comparison, LeftOut, Number, Point
from attnscope.reports.comparison import Contender as ContenderWords

FAMILIAR = {IMAGE: 224, RESOLUTION: 56, "window": 7, "dim": 96, STAGE: 1}
"""Values of published networks; the findings describe a point with one of them if the range has it."""
COMMON, MIDDLE = "a common size", "the middle of the range"
"""Reasons for which the findings describe a point."""
FRAME_ALONE = "each frame alone"
PARTS = {LAYER: "one layer", NETWORK: "the network"}
"""The compared part in words, for titles."""


def on_paper(
    meeting: Meeting,
    quantity: str = "macs",
    command: str | None = None,
    is_timed: bool = False,
    progress: Progress | None = None,
) -> Comparison:
    """Compute the part of a Comparison that follows from closed forms and plans.

    A measured quantity is None until `race` has timed the contenders, which `is_timed` announces. `progress` receives
    the number of points and the fraction of them that is done.

    Raises:
        UsageError: the quantity is unknown, or no point of the range is possible.
    """
    _check_quantity(quantity, meeting, is_timed)
    points, left_out = _points(meeting, quantity, progress)
    set_ratios(points, [each.label for each in meeting.contenders])
    reference, reason = _reference(points)
    place = meeting.place(points[reference].at)
    specs = meeting.specs(place)
    return Comparison(
        command=command,
        title=_title(meeting, quantity, specs, place),
        quantity=quantity,
        unit=QUANTITIES[quantity].unit,
        contenders=[_contender(each, specs.get(each.label), meeting) for each in meeting.contenders],
        axes=meeting.axes,
        settings={"pad": meeting.pad, **meeting.settings},
        environment={"attnscope": __version__, "python": platform.python_version()},
        points=points,
        reference=reference,
        crossovers=crossovers(meeting, place, specs),
        agree=all(spec.plan().macs == macs(spec) for spec in specs.values()),
        left_out=left_out,
        reference_reason=reason,
        adaptations=list(meeting.adaptations),
        part=NETWORK if meeting.of_networks else LAYER,
    )


def _check_quantity(quantity: str, meeting: Meeting, is_timed: bool) -> None:
    """Check that the quantity exists, that these contenders have it, and that it is measured if it has to be.

    Raises:
        UsageError: it does not, they do not, or it is not.
    """
    if quantity not in QUANTITIES:
        raise UsageError(
            f"{{quantity}} {quoted(quantity)} is unknown; {did_you_mean(quantity, QUANTITIES, synonyms=OTHER_WORDS)}"
        )
    if QUANTITIES[quantity].of_layers and meeting.of_networks:
        raise UsageError(f"{{quantity}} {quantity} is of attentions, and these are networks; use {{quantity}} macs")
    if QUANTITIES[quantity].of_ranks:
        raise UsageError(f"{{quantity}} {quantity} is of one of several ranks; add {{over}} ranks=1:16:2x")
    if QUANTITIES[quantity].is_measured and not is_timed:
        raise UsageError(f"{{quantity}} {quantity} requires times; add {{time}} to the command attnscope compare")


def _points(meeting: Meeting, quantity: str, progress: Progress | None) -> tuple[list[Point], list[LeftOut]]:
    """Return the points that at least two contenders can take, and what was left out: once for each rule.

    Raises:
        UsageError: fewer than two contenders can take each point, or there are too many points.
    """
    count = math.prod([len(axis.values) for axis in meeting.axes])
    if count > MOST_VALUES:
        raise UsageError(f"{{over}} must have at most {MOST_VALUES:,} points in all (got {count:,}); use larger steps")
    points: list[Point] = []
    left_out: dict[tuple[str | None, str], LeftOut] = {}
    last: UsageError | None = None
    for at in tracked(meeting.places(), count, progress):
        refusals: dict[str | None, UsageError] = {}
        try:
            place = meeting.place(at)
            specs, of_contenders = meeting.meet(place)
            refusals.update(of_contenders)
            if len(specs) > 1:
                points.append(point_at(place, specs, quantity, of_contenders))
        except UsageError as error:
            refusals[None] = error
        for label, refusal in refusals.items():
            last = refusal
            # errors that differ only in their numbers are one rule, which is reported once
            rule = re.sub(r"\d+", "#", str(refusal))
            left_out.setdefault((label, rule), LeftOut(at, str(refusal), 0, label)).count += 1
    if not points:
        assert last is not None
        raise last
    return points, list(left_out.values())


def point_at(
    place: Place, specs: Mapping[str, Spec], quantity: str, refusals: Mapping[str, UsageError] | None = None
) -> Point:
    """Return the costs of the contenders at one place, with the reasons of those that cannot take it.

    The cost of a contender that cannot take it is None, as is a quantity that has yet to be measured.
    """
    of, least = QUANTITIES[quantity].of, QUANTITIES[quantity].at_least
    costs: dict[str, Number] = {label: None if of is None else of(spec) for label, spec in specs.items()}
    at_least = {label: least(specs[label]) for label, cost in costs.items() if cost is None and least is not None}
    refused = {label: str(error) for label, error in (refusals or {}).items()}
    costs |= dict.fromkeys(refused)
    of_networks = any(isinstance(spec, NetworkSpec) for spec in specs.values())
    padding = {label: share for label, spec in specs.items() if not of_networks and (share := spec.neighbourhood.waste)}
    return Point(place.at, None if of_networks else place.grid, costs, {}, padding, refused=refused, at_least=at_least)


def set_ratios(points: Sequence[Point], labels: Sequence[str]) -> None:
    """Compute the ratios of the first contender's cost to that of each other one, at each point."""
    first, *others = labels
    for point in points:
        point.costs = {label: point.costs.get(label) for label in labels}
        point.ratio = {label: ratio(point.costs[first], point.costs[label]) for label in others}


def ratio(first: float | None, other: float | None) -> float | None:
    """Return the first number divided by the other; None if one of them is unknown or the other is 0."""
    return None if first is None or not other else first / other


def _reference(points: Sequence[Point]) -> tuple[int, str | None]:
    """Return the index of the first point with a familiar value, otherwise that of the middle point, and the reason.

    Points that most contenders can take come first.
    """
    fewest = min(len(point.refused) for point in points)
    taken = [index for index, point in enumerate(points) if len(point.refused) == fewest]
    if len(taken) == 1:
        return taken[0], None
    for index in taken:
        at = points[index].at
        if any(FAMILIAR.get(name) == value for name, value in list(at.items())[:1]):
            return index, COMMON if STAGE not in at else None
    return taken[len(taken) // 2], MIDDLE


def _title(meeting: Meeting, quantity: str, specs: Mapping[str, Spec], place: Place) -> str:
    """Return the title: the quantity that is compared, and the settings that all points share."""
    ranged = [axis.field for axis in meeting.axes]
    spec = next(iter(specs.values()))
    words = [QUANTITIES[quantity].title.format(part=PARTS[NETWORK if meeting.of_networks else LAYER])]
    batch = int(place.values.get("batch", 1))
    if meeting.of_networks:
        words += [f"{place.grid[0]}×{place.grid[1]} px"] if IMAGE not in ranged else []
    else:
        if STAGE not in ranged:
            shared = {name: place.values.get(name, getattr(spec, name, None)) for name in ("dim", "heads")}
            words += [f"{name} {value}" for name, value in shared.items() if name not in ranged and value is not None]
        if not {IMAGE, RESOLUTION, STAGE} & set(ranged):
            words.append(f"{place.grid[0]}×{place.grid[1]} tokens")
        if IMAGE in ranged and "patch" not in ranged:
            words.append(f"patch {meeting.settings.get('patch', 4)}")
        frames = meeting.settings.get(FRAMES, 1)
        words += [f"{frames} frames"] if frames > 1 else []
    words += [f"batch {batch}"] if batch > 1 and "batch" not in ranged else []
    return " · ".join([*words, spec.dtype])


def _contender(contender: Contender, spec: Spec | None, meeting: Meeting) -> ContenderWords:
    """Return the words for a contender; `spec` is that at the reference point, None if it cannot take that point."""
    if spec is None:
        return ContenderWords(contender.label, contender.attention, _own(contender, ()) or contender.attention)
    if isinstance(contender, NetworkContender):
        return ContenderWords(contender.label, contender.attention, _network_words(contender, meeting))
    words = _words(contender, spec, meeting)
    is_plain_global = spec.IS_PLAIN and spec.neighbourhood.kind == AllTokens.kind
    # these words are its name in sentences and in heads of columns
    name = words.replace(f"{FRAME_ALONE}, ", "").replace(f" ({FRAME_ALONE})", "") if is_plain_global else ""
    return ContenderWords(contender.label, contender.attention, words, name)


def _network_words(contender: NetworkContender, meeting: Meeting) -> str:
    """Return the description of a network without the image, followed by its own values: `ViT, patch 16, dim 768, …`."""
    spec = contender.spec
    varied = [axis.field for axis in meeting.axes]
    headline = [words for words in spec.headline() if not words.endswith(("pixels", "tokens"))]
    kept = [words for words in headline if words.split()[0] not in (*contender.own, *varied)]
    return ", ".join(filter(None, [spec.title, *kept, _own(contender, ())]))


def _own(contender: Contender, described: Sequence[str]) -> str:
    values = {name: value for name, value in contender.own.items() if name not in described}
    return ", ".join(f"{name} {spell_sides(of) if isinstance(of, tuple) else of}" for name, of in values.items())


def words_of(contender: Contender, spec: Spec) -> str:
    """Return the description of an attention or a network on a given input, with its heads."""
    if isinstance(contender, NetworkContender):
        return ", ".join([contender.spec.title, *spec.headline()])
    heads = getattr(spec, "heads", None)
    described = spec.neighbourhood.describe()
    title = [] if spec.IS_PLAIN else [spec.title]
    words = [*title, described, f"heads {heads}" if heads and "heads" not in contender.own else ""]
    return ", ".join(filter(None, [*words, _own(contender, spec.neighbourhood.described)]))


def _words(contender: Contender, spec: Spec, meeting: Meeting) -> str:
    """Return the description of an attention, followed by its own values."""
    look = spec.neighbourhood
    varied = look.field not in contender.own and any(axis.field == look.field for axis in meeting.axes)
    own = _own(contender, look.described)
    described = look.describe(sized=not varied) + (f" ({look.field} varies)" if varied else "")
    is_of_frames = (
        meeting.has_frames and not contender.is_of_video and spec.batch > int(meeting.settings.get("batch", 1))
    )
    further = list(filter(None, [FRAME_ALONE if is_of_frames else "", own]))
    if spec.IS_PLAIN:
        return f"{described} ({', '.join(further)})" if further else described
    return ", ".join([spec.title, described, *further])
