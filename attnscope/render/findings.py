"""A Comparison in words: the result, the formulas, and the other lines below the table."""

import math
from collections.abc import Sequence

from attnscope.core.axes import spell
from attnscope.core.interval import Interval
from attnscope.core.sizes import plural
from attnscope.render import words
from attnscope.render.ranks import rank_finding
from attnscope.render.screen import Screen
from attnscope.reports.comparison import (
    BLOCK,
    LAYER,
    NETWORK,
    RANK,
    Adaptation,
    Comparison,
    Crossover,
    LeftOut,
    Point,
    TimeCrossover,
)

FEW = 6
"""The largest number of omitted points that are named."""
MOST_FORMULAS = 3
"""The largest number of contenders whose formulas are on the screen; more have a table of break-evens."""
NOUNS = {
    "macs": "MACs",
    "block": "MACs",
    "flops": "FLOPs",
    "attention": "memory for the attention matrix",
    "peak": "peak activation memory",
    "params": "parameters",
    "bytes": "bytes moved",
    "training": "peak memory in training",
    "latency": "time",
    "throughput": "images per second",
    "latency-per-mac": "time per MAC",
    "sent": "bytes sent",
    "link": "time of the collectives",
    "bound": "lower bound of the steps",
    "link-per-bound": "time of the collectives over the lower bound",
}
MEMORY = ("attention", "peak", "training")
MEASURED = ("latency", "throughput", "latency-per-mac")
NO_BREAK_EVEN = "no break-even"
OVERLAP = "the interval of the ratio includes 1"
COUNTED_IN_MACS = ("macs", "block", "flops")


def lines(comparison: Comparison, screen: Screen) -> list[tuple[str, str, str]]:
    """Return label, text and style of each line below the table."""
    shown = [("result", finding(comparison), "bold")]
    shown += _labelled("paper", _main_formulas(comparison))
    shown += _labelled("measured", [time_finding(comparison, each) for each in comparison.time_crossovers])
    shown += [("timing", timing_line(comparison), "")] if comparison.timed else []
    shown += _labelled("outputs", [outputs(*each) for each in comparison.same_outputs.items()])
    shown += _labelled("adapted", [adaptation(comparison, each) for each in comparison.adaptations], "yellow")
    shown += _labelled("omitted", _reasons(comparison, comparison.left_out), "yellow")
    shown += _labelled("not timed", _reasons(comparison, comparison.not_timed), "yellow")
    if comparison.unknown_entries:
        rows = plural(comparison.unknown_entries, "row")
        shown.append(("unknown", f"{rows} left out by --where, since a value is unknown", "yellow"))
    shown += [("counts", "a closed form differs from the sum of its steps ✗", "yellow")] if not comparison.agree else []
    shown += _labelled("warning", comparison.warnings, "yellow")
    shown += (
        [("stopped", "by Ctrl-C; the table has all times measured before", "yellow")] if comparison.interrupted else []
    )
    return shown + (screen.suggestion(*comparison.next) if comparison.next else [])


def _main_formulas(comparison: Comparison) -> list[str]:
    """Return the formulas for a screen: those of the quantity alone if there are many; none if the result has them all."""
    if len(comparison.labels) > MOST_FORMULAS or (comparison.part == NETWORK and len(comparison.labels) == 2):
        return []
    found = formulas(comparison)
    scope = BLOCK if comparison.quantity == "block" else comparison.part
    return found if len(found) <= MOST_FORMULAS else [line for line in found if line.startswith(scope)]


def outputs(label: str, difference: float | None) -> str:
    """Return whether the outputs of a module equal those of the first one with the same weights."""
    if difference is None:
        return f"{label} has other parameters or outputs than the first one, so that they are not compared"
    if difference == 0:
        return f"{label} has the same outputs with the same weights"
    return f"{label} differs by up to {difference:.1e} of the largest output, with the same weights"


def adaptation(comparison: Comparison, each: Adaptation) -> str:
    """Return the setting of a contender that differs from that of the others, and the reason."""
    name, values = comparison.names[each.contender], (each.value, each.instead_of)
    value, instead_of = (spell(value) if isinstance(value, tuple) else str(value) for value in values)
    return f"{name} has {each.field} {value} instead of {instead_of}: {each.reason}"


def described(comparison: Comparison) -> str:
    """Return the label of the contender that the result describes: the one with the smallest cost, apart from the first.

    A contender whose cost is unknown or 0 at the reference point is described only if no other one has a cost.
    """
    point = comparison.points[comparison.reference]
    _, *others = comparison.labels
    known = {label: cost for label in others if (cost := point.costs[label])}
    if not known or len(others) == 1:
        return next((label for label in others if label not in point.refused), others[0])
    best = max if comparison.quantity == "throughput" else min
    return best(known, key=lambda label: known[label])


def finding(comparison: Comparison) -> str:
    """Return the result: the ratios of costs and of times at the reference point, and the break-even."""
    if comparison.part == RANK:
        noun = NOUNS[comparison.quantity]
        return rank_finding(comparison, f"{noun} {'by' if comparison.quantity == 'sent' else 'of'} one rank")
    labels = comparison.labels[0], described(comparison)
    first, other = (comparison.names[label] for label in labels)
    point = comparison.points[comparison.reference]
    ratio = point.ratio[labels[1]]
    noun = NOUNS[comparison.quantity]
    where = _where(comparison, point)
    measured = point.measured_ratio.get(labels[1])
    speed = None
    if measured is not None and point.can_tell(labels[1]):
        speed = words.speed(Interval(*point.measured_interval[labels[1]]), measured)
    much, less = ("much", "less") if comparison.quantity in MEMORY else ("many", "fewer")
    refused = [comparison.names[label] for label in labels if label in point.refused]
    unknown = [comparison.names[label] for label in labels if point.costs[label] is None]
    if comparison.quantity in MEASURED:
        text = _measured(comparison, point, labels[1], where, speed)
    elif refused:
        text = f"{where}{' and '.join(refused)} cannot be compared: {point.refused[comparison.labels[0]]}"
    elif unknown:
        article, verb = "the" if where else "The", "is" if comparison.quantity in MEMORY else "are"
        text = f"{where}{article} {noun} of {' and of '.join(unknown)} {verb} unknown"
        if speed:
            text += f". In measured time, {other} is {speed} than {first}"
    elif not ratio:  # the cost of one or both is 0
        none = [name for name, label in zip((first, other), labels, strict=True) if not point.costs[label]]
        text = f"{where}{' and '.join(none)} {'needs' if len(none) == 1 else 'need'} no {noun}"
        text += f" and {other} runs {speed} than {first}" if speed else ""
    else:
        need = f"as {much} {noun} as" if ratio == 1 else f"{_factor(ratio, less, 'more', '')} {noun} than"
        text = f"{where}{other} needs {need} {first}{_rank(comparison, point, labels[1])}"
        text += f" and runs {speed}" if speed else ""
    if measured is not None and not speed and comparison.quantity not in MEASURED:
        text += f". It is unclear which is faster: {OVERLAP}"
    crossing = crossing_of(comparison, *labels)
    if crossing and comparison.quantity in COUNTED_IN_MACS:
        text += _even(comparison, crossing)
        if crossing.balance:
            scope = crossing.scope
            named = f" (hw = {'6C' if scope == BLOCK else '2C'})" if crossing.formula else ""
            text += (
                f". Above {crossing.balance:g} tokens{named}, the quadratic term of {first} exceeds its {_rest(scope)}"
            )
    return f"{text}."


def _measured(comparison: Comparison, point: Point, other: str, where: str, speed: str | None) -> str:
    """Return the finding about a measured quantity at a point; a ratio whose interval includes 1 is not a finding."""
    names, labels = comparison.names, (comparison.labels[0], other)
    first, second = (names[label] for label in labels)
    if any(label not in point.times for label in labels):
        missing = " and ".join(names[label] for label in labels if label not in point.times)
        return f"{where}{missing} was not timed"
    if comparison.quantity == "latency-per-mac":
        ratio = point.ratio[other]
        assert ratio is not None
        return f"{where}{second} takes {_factor(ratio, 'less', 'more', 'as much')} time per MAC than {first}"
    if speed is None:
        return f"{where}it is unclear whether {second} or {first} is faster: {OVERLAP}"
    return f"{where}{second} is {speed} than {first}"


def _rank(comparison: Comparison, point: Point, label: str) -> str:
    """Return `, the fewest of 5` if this contender alone has the smallest cost of more than three."""
    known = [cost for cost in point.costs.values() if cost is not None]
    least = "least" if comparison.quantity in MEMORY else "fewest"
    is_least = len(known) > MOST_FORMULAS and point.costs[label] == min(known) and known.count(min(known)) == 1
    return f", the {least} of {len(known)}" if is_least else ""


def crossing_of(comparison: Comparison, first: str, other: str) -> Crossover | None:
    """Return the break-even of two contenders in the scope of the quantity, in either order; None if it is unknown."""
    scopes = (BLOCK,) if comparison.quantity == "block" else (LAYER, NETWORK)
    pair = {first, other}
    return next((c for c in comparison.crossovers if {c.first, c.other} == pair and c.scope in scopes), None)


def _even(comparison: Comparison, crossing: Crossover) -> str:
    """Return the sentence about a break-even, with the condition under which it holds; empty if both need the same."""
    named = f" (where {crossing.equation})" if crossing.equation else ""
    if crossing.sides is not None:
        more = "more than once, the last time " if crossing.is_last_of_several else ""
        return f". They break even {more}{_at_sides(crossing)}"
    if crossing.tokens is not None:
        named = f" ({crossing.equation})" if crossing.equation else ""
        return f". They break even {_tokens(crossing.tokens)} tokens{condition(crossing)}{named}"
    if crossing.fewer is None or crossing.searched_to == 0:
        return ""
    return f". They have {NO_BREAK_EVEN}{condition(crossing)}: {comparison.names[crossing.fewer]} always needs fewer"


def condition(crossing: Crossover) -> str:
    """Return the grids for which a break-even holds, such as ` without padding`; empty for all grids."""
    if crossing.searched_to is not None:
        return f" up to {_side(crossing, crossing.searched_to)}"
    if crossing.pads:
        return " without padding"
    return f" on grids with sides divisible by {crossing.unit}" if crossing.unit > 1 else ""


def _side(crossing: Crossover, side: int) -> str:
    return f"{side:,} px" if crossing.scope == NETWORK else f"{side}×{side} tokens"


def _at_sides(crossing: Crossover) -> str:
    assert crossing.sides is not None
    low, high = crossing.sides
    return f"between {_side(crossing, low)} and {_side(crossing, high)}"


def _rest(scope: str) -> str:
    return "projections" if scope == "layer" else "projections and MLP"


def _where(comparison: Comparison, point: Point) -> str:
    if not point.at:
        return ""
    place = ", ".join(f"{value} px" if name == "image" else f"{name} {value}" for name, value in point.at.items())
    tokens = f"{spell(point.grid)} tokens" if point.grid else ""
    notes = "; ".join(filter(None, [comparison.reference_reason, tokens]))
    return f"At {place} ({notes}), " if notes else f"At {place}, "


def _factor(ratio: float, over: str, under: str, even: str) -> str:
    if ratio == 1:
        return even
    return f"{words.times(ratio)} {over}" if ratio > 1 else f"{words.times(1 / ratio)} {under}"


def formulas(comparison: Comparison) -> list[str]:
    """Return the exact ratio of each contender's MACs to the first one's as formula and in numbers, and the break-even.

    The list is empty unless MACs or FLOPs are compared.
    """
    if comparison.quantity not in COUNTED_IN_MACS:
        return []
    alike: dict[tuple[object, ...], list[Crossover]] = {}
    for each in comparison.crossovers:
        if each.first != comparison.labels[0] and each.fewer is None:
            continue  # equal costs of two others follow from their equal lines
        key = each.first, each.scope, each.formula, each.values, each.tokens, each.sides, each.always
        alike.setdefault((*key, condition(each), _with_padding(each), _always(comparison, each)), []).append(each)
    point = comparison.points[comparison.reference]
    # other values than the size of the grid are part of the formula's numbers
    at = ", ".join(
        f"{name} {value}" for name, value in point.at.items() if name not in ("image", "resolution", "patch")
    )
    names = comparison.names
    return [
        _formula(
            comparison,
            of_all[0],
            at,
            f"{', '.join(names[each.other] for each in of_all)} / {names[of_all[0].first]}",
        )
        for of_all in alike.values()
    ]


def _formula(comparison: Comparison, crossing: Crossover, at: str, quotient: str) -> str:
    where = (f" at {at}" if at else "") + condition(crossing)
    if crossing.always == 1:
        return f"{crossing.scope}{where}: {quotient} = 1 at any size{_with_padding(crossing)}"
    ratio = [part for part in (crossing.formula, crossing.values) if part]
    even = _break_even(comparison, crossing)
    return f"{crossing.scope}{where}: {' = '.join([quotient, *ratio])}, {even}{_with_padding(crossing)}"


def _break_even(comparison: Comparison, crossing: Crossover) -> str:
    """Return the break-even in a few words: `break-even at 49 tokens`, or `no break-even: always fewer`."""
    if crossing.always is not None:
        return f"{words.times(crossing.always)} at any size"
    if crossing.sides is not None:
        return f"{'last ' if crossing.is_last_of_several else ''}break-even {_at_sides(crossing)}"
    if crossing.tokens is not None:
        return f"break-even {_tokens(crossing.tokens)} tokens"
    return f"{NO_BREAK_EVEN}{_always(comparison, crossing)}"


def _always(comparison: Comparison, crossing: Crossover) -> str:
    """Return `: always fewer` or `: always more`, for the other one of a pair without a break-even; else nothing."""
    if crossing.tokens is not None or crossing.sides is not None or crossing.fewer is None:
        return ""
    return ": always fewer" if crossing.fewer == crossing.other else ": always more"


def _with_padding(crossing: Crossover) -> str:
    """Return the side from which on the other contender needs fewer, or more, MACs with padding, if it is known."""
    more = crossing.padded_from is None
    side = crossing.first_padded_from if more else crossing.padded_from
    if side is None:
        return ""
    only = f" (sides divisible by {crossing.unit})" if crossing.unit > 1 else ""
    sizes = "at any size" if side == 1 else f"from {side}×{side} tokens on{only}"
    return f"; with padding, {'more' if more else 'fewer'} {sizes}"


def _tokens(tokens: int | tuple[int, ...]) -> str:
    if isinstance(tokens, int):
        return f"at {tokens:,}"
    return f"between {tokens[0]:,} and {tokens[1]:,}"


def time_finding(comparison: Comparison, each: TimeCrossover) -> str:
    """Return the faster contender, or the interval in which it overtakes the other, and where the order is unclear."""
    names = comparison.names
    if each.leader is None:
        return f"unclear whether {names[each.other]} or {names[each.first]} is faster: {OVERLAP} everywhere"
    unclear = ", ".join(map(str, each.unclear))
    leader = names[each.leader]
    other = names[each.first if each.leader == each.other else each.other]
    if each.low is None or each.high is None:
        exception = f" except {unclear}, where {OVERLAP}" if unclear else ""
        return f"{leader} is faster than {other} at all measured values of {each.axis}{exception}"
    grids = {point.at[each.axis]: point.grid for point in [*comparison.points, *comparison.bisected]}
    low, high = (math.prod(grids[value] or ()) for value in (each.low, each.high))
    tokens = f" ({low:,} and {high:,} tokens)" if low != high else ""
    between = f"between {each.axis} {each.low} and {each.high}{tokens}, both measured"
    return f"{leader} overtakes {other} {between}" + (
        f"; unclear at {each.axis} {unclear}: {OVERLAP}" if unclear else ""
    )


def timing_line(comparison: Comparison) -> str:
    """Return the method, device and environment of the times."""
    env = comparison.environment
    return " · ".join(
        [
            "medians of interleaved runs",
            words.threads(env),
            words.device(env),
            f"torch {env['torch']}",
            f"allocator {env['allocator']}",
        ]
    )


def _reasons(comparison: Comparison, left_out: Sequence[LeftOut]) -> list[str]:
    """Return the first few points and their reasons, and the number of the others."""
    reasons = []
    for each in left_out[:FEW]:
        at = ", ".join(f"{name} {value}" for name, value in each.at.items())
        who = comparison.names.get(each.contender, each.contender) if each.contender else ""
        place = " at ".join(filter(None, [who, at]))
        reasons.append(
            (f"{place}: " if place else "")
            + each.reason.removeprefix(f"{each.contender}: ")
            + (f"; same for {each.count - 1:,} more" if each.count > 1 else "")
        )
    return [*reasons, f"and {len(left_out) - FEW} more"] if len(left_out) > FEW else reasons


def _labelled(label: str, texts: Sequence[str], style: str = "") -> list[tuple[str, str, str]]:
    return [("" if index else label, text, style) for index, text in enumerate(texts)]
