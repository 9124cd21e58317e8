"""Contenders -> Comparison: the costs of each at each point of a range, and their break-evens. No torch."""

import math
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from itertools import product
from typing import Any

from attnscope.analyses.contenders import (
    CONTENDERS,
    IMAGE,
    RESOLUTION,
    STAGE,
    Contender,
    Meeting,
    Place,
    arrange,
)
from attnscope.attentions.complexity import Growth, break_even, growth, mlp
from attnscope.attentions.spec import Spec
from attnscope.core.errors import UsageError, did_you_mean, quoted
from attnscope.core.neighbourhood import AllTokens, Neighbourhood
from attnscope.core.sizes import Pair
from attnscope.core.version import __version__
from attnscope.networks.stages import Stage
from attnscope.plan.memory import Memory
from attnscope.reports.comparison import Comparison, Crossover, LeftOut, Number, Point
from attnscope.reports.comparison import Contender as ContenderWords

FAMILIAR = {IMAGE: 224, RESOLUTION: 56, "window": 7, "dim": 96, STAGE: 1}
"""Values of published networks; the findings describe a point with one of them if the range has it."""


COMMON, MIDDLE = "a common size", "the middle of the range"
"""Reasons for which the findings describe a point."""

LARGEST_SEARCHED = 1000
"""Largest side of a grid in the search for the size from which on padding no longer matters."""


def macs(spec: Spec) -> int:
    """Return the MACs by the paper's closed form, which the audit compares with the steps."""
    return sum(spec.closed_form().values())


def block_macs(spec: Spec, grid: Pair) -> int:
    """Return the MACs of the layer and of the MLP that follows it in a block; the MLP has no padding tokens."""
    return macs(spec) + spec.batch * mlp(grid[0] * grid[1], dim_of(spec))


def attention_bytes(spec: Spec) -> int:
    """Return the bytes of the attention weights, the output of softmax; 0 if a fused kernel does not store them."""
    return sum(step.times * step.output_bytes for step in spec.plan().steps if step.name == "softmax")


def dim_of(spec: Spec) -> int:
    """Return the embedding dimension: the size of the last axis of the input."""
    return spec.input_shape[-1]


@dataclass(frozen=True)
class Quantity:
    """A quantity to compare: its title, its unit ("B" for bytes), and the function of a Spec and a grid that returns it."""

    title: str
    unit: str
    of: Callable[[Spec, Pair], Number]


QUANTITIES = {
    "macs": Quantity("MACs of one layer", "", lambda spec, grid: macs(spec)),
    "block": Quantity("MACs of one block, MLP included", "", block_macs),
    "flops": Quantity("FLOPs of one layer (2 per MAC)", "", lambda spec, grid: 2 * macs(spec)),
    "attention": Quantity("size of the attention matrix", "B", lambda spec, grid: attention_bytes(spec)),
    "peak": Quantity("peak activation memory", "B", lambda spec, grid: Memory(spec.plan()).peak),
    "params": Quantity("parameters of one layer", "", lambda spec, grid: spec.plan().params),
}


def compare(
    contenders: Sequence[str] = CONTENDERS,
    over: Mapping[str, Sequence[int]] | None = None,
    *,
    quantity: str = "macs",
    stages: Sequence[Stage] = (),
    pad: bool = True,
    command: str | None = None,
    **settings: Any,
) -> Comparison:
    """Compare attentions over a range by exact counts from their closed forms, without a measurement. No torch.

    Args:
        contenders: attentions by name, with their own values if they have any: `swin:window=14,shift`. The others are
            compared with the first one.
        over: values of one or two fields, such as `{"resolution": [14, 28, 56]}` (tokens), `{"image": [224, 448]}`
            (pixels), window, dim, heads or batch. By default, images of 56 to 1792 pixels in patches of 4.
        quantity: a key of QUANTITIES.
        stages: stages of a network to compare at, in place of images.
        pad: pad grids if an attention needs it, and report the waste; otherwise leave such points out.
        command: the command line, for the record.
        settings: fields of the Specs that all contenders share, and image, patch or resolution.

    Returns:
        A Comparison: counts are integers, sizes are in bytes.

    Raises:
        UsageError: an argument is not allowed, or no point of the range is possible.

    The crossovers follow from equations 1 and 2 of Liu et al., arXiv 2103.14030, solved in integers.

    Example:
        >>> import attnscope
        >>> comparison = attnscope.compare(("vit", "swin"), {"resolution": [14, 28]})
        >>> [point.costs for point in comparison.points]
        [{'vit': 14601216, 'swin': 9069312}, {'vit': 146915328, 'swin': 36277248}]
    """
    return on_paper(arrange(contenders, over or {}, settings, stages, pad), quantity, command)


def on_paper(meeting: Meeting, quantity: str = "macs", command: str | None = None) -> Comparison:
    """Compute the part of a Comparison that follows from closed forms and plans.

    Raises:
        UsageError: the quantity is unknown, or no point of the range is possible.
    """
    if quantity not in QUANTITIES:
        raise UsageError(f"{{quantity}} {quoted(quantity)} is unknown; {did_you_mean(quantity, QUANTITIES)}")
    points, left_out = _points(meeting, quantity)
    reference, reason = _reference(points)
    place = meeting.place(points[reference].at)
    specs = meeting.specs(place)
    return Comparison(
        command=command,
        title=_title(meeting, quantity, specs, place),
        quantity=quantity,
        unit=QUANTITIES[quantity].unit,
        contenders=[_contender(each, specs[each.label], meeting) for each in meeting.contenders],
        axes=meeting.axes,
        settings={"pad": meeting.pad, **meeting.settings},
        environment={"attnscope": __version__, "python": platform.python_version()},
        points=points,
        reference=reference,
        crossovers=crossovers(meeting, place, specs),
        agree=all(spec.plan().macs == macs(spec) for spec in specs.values()),
        left_out=left_out,
        reference_reason=reason,
    )


def _points(meeting: Meeting, quantity: str) -> tuple[list[Point], list[LeftOut]]:
    names = [axis.field for axis in meeting.axes]
    points: list[Point] = []
    left_out: dict[str, LeftOut] = {}
    for values in product(*(axis.values for axis in meeting.axes)):
        at = dict(zip(names, values, strict=True))
        try:
            place = meeting.place(at)
            points.append(point_at(place, meeting.specs(place), quantity))
        except UsageError as error:
            refused = error
            # errors that differ only in their numbers are one rule, which is reported once
            rule = re.sub(r"\d+", "#", str(error))
            left_out.setdefault(rule, LeftOut(at, str(error), 0)).count += 1
    if not points:
        raise refused
    return points, list(left_out.values())


def point_at(place: Place, specs: Mapping[str, Spec], quantity: str) -> Point:
    """Return the costs of the contenders at one place."""
    cost = QUANTITIES[quantity].of
    costs = {label: cost(spec, place.grid) for label, spec in specs.items()}
    first, *others = costs
    padding = {label: share for label, spec in specs.items() if (share := spec.neighbourhood.waste)}
    return Point(place.at, place.grid, costs, {label: ratio(costs[first], costs[label]) for label in others}, padding)


def ratio(first: float | None, other: float | None) -> float | None:
    """Return the first number divided by the other; None if one of them is unknown or the other is 0."""
    return None if first is None or not other else first / other


def _reference(points: Sequence[Point]) -> tuple[int, str | None]:
    """Return the index of the first point with a familiar value, otherwise that of the middle point, and the reason."""
    if len(points) == 1:
        return 0, None
    for index, point in enumerate(points):
        if any(FAMILIAR.get(name) == value for name, value in list(point.at.items())[:1]):
            return index, COMMON if STAGE not in point.at else None
    return len(points) // 2, MIDDLE


def crossovers(meeting: Meeting, place: Place, specs: Mapping[str, Spec]) -> list[Crossover]:
    """Find the sizes at which each contender and the first one need the same MACs, in a layer and in a block.

    Args:
        meeting: the contenders.
        place: the values that the Specs share, except for the size of the grid.
        specs: the Spec of each contender at this place, by label.
    """
    first, *others = meeting.contenders
    grown = {each.label: _growth(each, place, specs[each.label]) for each in meeting.contenders}
    found = []
    for other in others:
        one, two = grown[first.label], grown[other.label]
        if one is None or two is None:
            continue
        dims = dim_of(specs[first.label]), dim_of(specs[other.label])
        looks = specs[first.label].neighbourhood, specs[other.label].neighbourhood
        pads = meeting.pad and any(unit > 1 for look in looks for unit in look.alignment)
        blocks = one.with_mlp(dims[0]), two.with_mlp(dims[1])
        for scope, grown_in, cost in (("layer", (one, two), _layer_macs), ("block", blocks, block_macs)):
            crossing = _crossover(first.label, other.label, scope, *grown_in, dims, looks)
            crossing.pads = pads
            if pads:
                costs = [partial(_cost_on, cost, each, place) for each in (first, other)]
                padded = _cheaper_from(grown_in, costs, max(looks[0].alignment + looks[1].alignment))
                crossing.first_padded_from, crossing.padded_from = padded
            found.append(crossing)
    return found


def _layer_macs(spec: Spec, grid: Pair) -> int:
    return macs(spec)


def _cost_on(cost: Callable[[Spec, Pair], int], contender: Contender, place: Place, side: int) -> int:
    """Return the MACs of a contender for one image on a square grid, padding included."""
    return cost(contender.at((side, side), {**place.values, "batch": 1}), (side, side))


def _growth(contender: Contender, place: Place, spec: Spec) -> Growth | None:
    """Return the MACs of one image as a polynomial in its tokens, on grids without padding.

    The result is None if the MACs are not a polynomial of degree 2 or if such grids are too large.
    """

    def on_side(side: int) -> int:
        return macs(contender.at((side, side), {**place.values, "batch": 1}))

    try:
        return growth(on_side, math.lcm(*spec.neighbourhood.alignment))
    except UsageError:
        return None  # grids without padding exceed the largest size that a Spec allows


def _crossover(
    first: str,
    other: str,
    scope: str,
    one: Growth,
    two: Growth,
    dims: Pair,
    looks: tuple[Neighbourhood, Neighbourhood],
) -> Crossover:
    met = break_even(one, two)
    tokens: int | Pair | None = None
    if met is not None:
        tokens = met.low if met.exact else (met.low, met.high)
    balance = one.balance
    terms, other_terms = (_terms(*each, scope) for each in zip((one, two), dims, looks, strict=True))
    formula = values = equation = None
    if terms and other_terms and dims[0] == dims[1]:
        letters, values = (f"({theirs}) / ({ours})" for theirs, ours in zip(other_terms, terms, strict=True))
        if terms[0] != other_terms[0]:
            formula = letters
            equation = " = ".join(sorted((look.letter for look in looks), key=lambda letter: letter != "hw"))
    always = two.multiple_of(one)
    return Crossover(
        first,
        other,
        scope,
        tokens,
        None if always is None else float(always),
        formula,
        values,
        None,
        None if balance is None else float(balance),
        equation,
    )


def _cheaper_from(
    grown: tuple[Growth, Growth], costs: Sequence[Callable[[int], int]], unit: int
) -> tuple[int | None, int | None]:
    """Return the side of a square grid from which on the first, or the second, needs fewer MACs, padding included.

    The one that grows more slowly is the cheaper one on large grids. Padding adds less than `unit` to a side. The search
    begins at a side from which on that one is cheaper even with that much padding. From there, it goes down to the last
    side at which that one is not cheaper.

    Args:
        grown: the MACs of both as polynomials in the number of tokens, without padding.
        costs: the MACs of both on a square grid of a side, padding included.
        unit: the largest alignment of both.

    Returns:
        The side in tokens for the cheaper one, and None for the other one; None for both if it is unknown. If a Spec
        refuses smaller sides, such as those below its window, this is the first side that both allow.
    """
    first_is_cheaper = astuple(grown[0])[::-1] < astuple(grown[1])[::-1]
    slow, fast = grown if first_is_cheaper else grown[::-1]
    cheap, dear = costs if first_is_cheaper else costs[::-1]
    sides = range(LARGEST_SEARCHED, 0, -1)
    enough = next((side + 1 for side in sides if slow((side + unit - 1) ** 2) >= fast(side**2)), 1)
    if enough > LARGEST_SEARCHED:
        return None, None

    def is_cheaper(side: int) -> bool:
        try:
            return cheap(side) < dear(side)
        except UsageError:  # a Spec refuses this side
            return False

    lowest = next((side + 1 for side in range(enough - 1, 0, -1) if not is_cheaper(side)), 1)
    found = next((side for side in range(lowest, LARGEST_SEARCHED + 1) if is_cheaper(side)), None)
    return (found, None) if first_is_cheaper else (None, found)


def _terms(grown: Growth, dim: int, look: Neighbourhood, scope: str) -> tuple[str, str] | None:
    """Return the MACs of a token divided by 2C, as a formula and in numbers: the projections plus the keys of the token.

    The result is None if the MACs have another form, such as with shared heads.
    """
    projections = 2 if scope == "layer" else 6
    attended = grown.linear - 2 * projections * dim**2
    if not look.letter or look.keys is None:
        return None
    if (grown.constant, grown.quadratic, attended) == (0, 0, 2 * dim * look.keys):
        return f"{projections}C + {look.letter}", f"{projections}×{dim} + {look.keys}"
    if (grown.constant, grown.quadratic, attended) == (0, 2 * dim, 0):
        return f"{projections}C + {look.letter}", f"{projections}×{dim} + {look.letter}"
    return None


def _title(meeting: Meeting, quantity: str, specs: Mapping[str, Spec], place: Place) -> str:
    """Return the title: the quantity that is compared, and the settings that all points share."""
    ranged = [axis.field for axis in meeting.axes]
    spec = next(iter(specs.values()))
    words = [QUANTITIES[quantity].title]
    if STAGE not in ranged:
        words += [
            f"{name} {getattr(spec, name)}" for name in ("dim", "heads") if name not in ranged and hasattr(spec, name)
        ]
    if not {IMAGE, RESOLUTION, STAGE} & set(ranged):
        words.append(f"{place.grid[0]}×{place.grid[1]} tokens")
    if IMAGE in ranged and "patch" not in ranged:
        words.append(f"patch {meeting.settings.get('patch', 4)}")
    words += [f"batch {spec.batch}"] if spec.batch > 1 and "batch" not in ranged else []
    return " · ".join([*words, spec.dtype])


def _contender(contender: Contender, spec: Spec, meeting: Meeting) -> ContenderWords:
    words = _words(contender, spec, meeting)
    is_plain_global = spec.IS_PLAIN and spec.neighbourhood.kind == AllTokens.kind
    return ContenderWords(contender.label, contender.attention, words, words if is_plain_global else "")


def _words(contender: Contender, spec: Spec, meeting: Meeting) -> str:
    """Return the description of an attention, followed by its own values."""
    look = spec.neighbourhood
    varied = look.field not in contender.own and any(axis.field == look.field for axis in meeting.axes)
    own = [f"{name} {value}" for name, value in contender.own.items() if name not in look.described]
    described = look.describe(sized=not varied) + (f" ({look.field} varies)" if varied else "")
    if spec.IS_PLAIN:  # these words are its name in sentences and in heads of columns
        return f"{described} ({', '.join(own)})" if own else described
    return ", ".join([spec.title, described, *own])
