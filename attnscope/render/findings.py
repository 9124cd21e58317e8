"""A Comparison in words: the result, the formulas, and the other lines below the table."""

import math
from collections.abc import Sequence

from attnscope.core.axes import spell
from attnscope.core.interval import Interval
from attnscope.render import words
from attnscope.render.screen import Screen
from attnscope.reports.comparison import Comparison, Crossover, LeftOut, Point, TimeCrossover

FEW = 3
"""The largest number of omitted points that are named."""
NOUNS = {
    "macs": "MACs",
    "block": "MACs",
    "flops": "FLOPs",
    "attention": "memory for the attention matrix",
    "peak": "peak activation memory",
    "params": "parameters",
}
MEMORY = ("attention", "peak")
OVERLAP = "the interval of the ratio includes 1"
COUNTED_IN_MACS = ("macs", "block", "flops")


def lines(comparison: Comparison, screen: Screen) -> list[tuple[str, str, str]]:
    """Return label, text and style of each line below the table."""
    shown = [("result", finding(comparison), "bold")]
    shown += _labelled("paper", formulas(comparison))
    shown += _labelled("measured", [time_finding(comparison, each) for each in comparison.time_crossovers])
    shown += [("timing", timing_line(comparison), "")] if comparison.timed else []
    shown += _labelled("omitted", _reasons(comparison.left_out), "yellow")
    shown += _labelled("not timed", _reasons(comparison.not_timed), "yellow")
    shown += [("counts", "a closed form differs from the sum of its steps ✗", "yellow")] if not comparison.agree else []
    shown += _labelled("warning", comparison.warnings, "yellow")
    shown += (
        [("stopped", "by Ctrl-C; the table has all times measured before", "yellow")] if comparison.interrupted else []
    )
    return shown + (screen.suggestion(*comparison.next) if comparison.next else [])


def finding(comparison: Comparison) -> str:
    """Return the result: the ratios of costs and of times at the reference point, and the break-even."""
    labels = comparison.labels[:2]
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
    unknown = [comparison.names[label] for label in labels if point.costs[label] is None]
    if unknown:
        article, verb = "the" if where else "The", "is" if comparison.quantity in MEMORY else "are"
        text = f"{where}{article} {noun} of {' and of '.join(unknown)} {verb} unknown"
        if speed:
            text += f". In measured time, {other} is {speed} than {first}"
    elif ratio is None:  # the other one's cost is 0
        text = f"{where}{other} needs no {noun}" + (f" and runs {speed} than {first}" if speed else "")
    else:
        need = f"as {much} {noun} as" if ratio == 1 else f"{_factor(ratio, less, 'more', '')} {noun} than"
        text = f"{where}{other} needs {need} {first}" + (f" and runs {speed}" if speed else "")
    if measured is not None and not speed:
        text += f". It is unclear which is faster: {OVERLAP}"
    scope = "block" if comparison.quantity == "block" else "layer"
    crossing = next((c for c in comparison.crossovers if (c.other, c.scope) == (labels[1], scope)), None)
    if crossing and crossing.tokens and comparison.quantity in COUNTED_IN_MACS:
        named = f" ({crossing.equation})" if crossing.equation else ""
        text += f". They break even {_tokens(crossing.tokens)} tokens{_unpadded(crossing)}{named}"
    if crossing and crossing.balance and comparison.quantity in COUNTED_IN_MACS:
        named = f" (hw = {'6C' if scope == 'block' else '2C'})" if crossing.formula else ""
        text += f". Above {crossing.balance:g} tokens{named}, the quadratic term of {first} exceeds its {_rest(scope)}"
    return f"{text}."


def _rest(scope: str) -> str:
    return "projections" if scope == "layer" else "projections and MLP"


def _where(comparison: Comparison, point: Point) -> str:
    if not point.at:
        return ""
    place = ", ".join(f"{value} px" if name == "image" else f"{name} {value}" for name, value in point.at.items())
    reason = f"{comparison.reference_reason}; " if comparison.reference_reason else ""
    return f"At {place} ({reason}{spell(point.grid)} tokens), "


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
        alike.setdefault(
            (each.scope, each.formula, each.values, each.tokens, each.always, _with_padding(each)), []
        ).append(each)
    point = comparison.points[comparison.reference]
    # other values than the size of the grid are part of the formula's numbers
    at = ", ".join(
        f"{name} {value}" for name, value in point.at.items() if name not in ("image", "resolution", "patch")
    )
    names = comparison.names
    return [
        _formula(of_all[0], at, f"{', '.join(names[each.other] for each in of_all)} / {names[of_all[0].first]}")
        for of_all in alike.values()
    ]


def _formula(crossing: Crossover, at: str, quotient: str) -> str:
    ratio = [part for part in (crossing.formula, crossing.values) if part]
    if crossing.always is not None:
        even = "the same at any size" if crossing.always == 1 else f"{words.times(crossing.always)} at any size"
    else:
        even = "no break-even" if crossing.tokens is None else f"break-even {_tokens(crossing.tokens)} tokens"
    where = (f" at {at}" if at else "") + _unpadded(crossing)
    return f"{crossing.scope}{where}: {' = '.join([quotient, *ratio])}, {even}{_with_padding(crossing)}"


def _unpadded(crossing: Crossover) -> str:
    return " without padding" if crossing.pads else ""


def _with_padding(crossing: Crossover) -> str:
    """Return the side from which on the other contender needs fewer, or more, MACs with padding, if it is known."""
    more = crossing.padded_from is None
    side = crossing.first_padded_from if more else crossing.padded_from
    if side is None:
        return ""
    sizes = "at any size" if side == 1 else f"from {side}×{side} tokens on"
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
    low, high = (math.prod(grids[value]) for value in (each.low, each.high))
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


def _reasons(left_out: Sequence[LeftOut]) -> list[str]:
    """Return the first few points and their reasons, and the number of the others."""
    reasons = []
    for each in left_out[:FEW]:
        at = ", ".join(f"{name} {value}" for name, value in each.at.items())
        reasons.append(f"{at}: {each.reason}" + (f"; same for {each.count - 1:,} more" if each.count > 1 else ""))
    return [*reasons, f"and {len(left_out) - FEW} more"] if len(left_out) > FEW else reasons


def _labelled(label: str, texts: Sequence[str], style: str = "") -> list[tuple[str, str, str]]:
    return [("" if index else label, text, style) for index, text in enumerate(texts)]
