"""A Comparison in words: what was found in one sentence, the formulas behind it, the lines below the table."""

import math
from collections.abc import Sequence

from attnscope.core.axes import spell
from attnscope.render import words
from attnscope.render.screen import Screen
from attnscope.reports.comparison import Comparison, Crossover, LeftOut, Point, TimeCrossover

FEW = 3
"""How many of the points that were left out are named."""
NOUNS = {
    "macs": "MACs",
    "block": "MACs",
    "flops": "FLOPs",
    "attention": "bytes of attention matrix",
    "peak": "peak bytes",
    "params": "parameters",
}
OVERLAP = "the interquartile ranges overlap"
COUNTED_IN_MACS = ("macs", "block", "flops")


def lines(comparison: Comparison, screen: Screen) -> list[tuple[str, str, str]]:
    """Label, words and style of each line below the table."""
    told = [("found", finding(comparison), "bold")]
    told += _labelled("paper", formulas(comparison))
    told += _labelled("here", [time_finding(comparison, each) for each in comparison.time_crossovers])
    told += [("timing", timing_line(comparison), "")] if comparison.timed else []
    told += _labelled("left out", _told(comparison.left_out), "yellow")
    told += _labelled("not timed", _told(comparison.not_timed), "yellow")
    told += [("audit", "a closed form is not the sum of its steps ✗", "yellow")] if not comparison.agree else []
    told += _labelled("warning", comparison.warnings, "yellow")
    told += (
        [("stopped", "by Ctrl-C; what was measured until then is above", "yellow")] if comparison.interrupted else []
    )
    return told + (screen.suggestion(*comparison.next) if comparison.next else [])


def finding(comparison: Comparison) -> str:
    """What was found, in one sentence: a ratio that the reader would know, the break-even, and what outgrows what."""
    labels = comparison.labels[:2]
    first, other = (comparison.names[label] for label in labels)
    point = comparison.points[comparison.reference]
    ratio = point.ratio[labels[1]]
    noun = NOUNS[comparison.quantity]
    where = _where(comparison, point)
    if ratio is None:
        told = f"{where}what {other} needs beside {first} is not known"
    elif ratio == 1:
        told = f"{where}{other} needs as many {noun} as {first}"
    else:
        told = f"{where}{other} needs {_factor(ratio, 'fewer', 'more', '')} {noun} than {first}"
    measured = point.measured_ratio.get(labels[1])
    if measured is not None and point.can_tell(*labels):
        told += f" and ran {_factor(measured, 'faster', 'slower', 'as fast')} here"
    elif measured is not None:
        told += f"; which one is faster here cannot be told: {OVERLAP}"
    scope = "block" if comparison.quantity == "block" else "layer"
    crossing = next((c for c in comparison.crossovers if (c.other, c.scope) == (labels[1], scope)), None)
    if crossing and crossing.tokens and comparison.quantity in COUNTED_IN_MACS:
        named = f" ({crossing.equation})" if crossing.equation else ""
        told += f"; they break even {_tokens(crossing.tokens)} tokens{named}"
    if crossing and crossing.balance and comparison.quantity in COUNTED_IN_MACS:
        named = f" (hw = {'6C' if scope == 'block' else '2C'})" if crossing.formula else ""
        told += (
            f", and from {crossing.balance:g} tokens{named} on, {first}'s quadratic term outweighs its {_rest(scope)}"
        )
    return f"{told[0].upper()}{told[1:]}." if where else f"{told}."


def _rest(scope: str) -> str:
    return "projections" if scope == "layer" else "projections and MLP"


def _where(comparison: Comparison, point: Point) -> str:
    if not point.at:
        return ""
    told = ", ".join(f"{value} px" if name == "image" else f"{name} {value}" for name, value in point.at.items())
    return f"At {told} ({spell(point.grid)} tokens) "


def _factor(ratio: float, over: str, under: str, even: str) -> str:
    if ratio == 1:
        return even
    return f"{words.times(ratio)} {over}" if ratio > 1 else f"{words.times(1 / ratio)} {under}"


def formulas(comparison: Comparison) -> list[str]:
    """The exact ratio of each contender's MACs to the first one's, in letters and in numbers, and the break-even.

    None where something else is compared.
    """
    if comparison.quantity not in COUNTED_IN_MACS:
        return []
    alike: dict[tuple[object, ...], list[Crossover]] = {}
    for each in comparison.crossovers:
        alike.setdefault(
            (each.scope, each.formula, each.values, each.tokens, each.always, each.padded_from), []
        ).append(each)
    names = comparison.names
    return [
        _formula(of_all[0], f"{', '.join(names[each.other] for each in of_all)} / {names[of_all[0].first]}")
        for of_all in alike.values()
    ]


def _formula(crossing: Crossover, quotient: str) -> str:
    ratio = [part for part in (crossing.formula, crossing.values) if part]
    if crossing.always is not None:
        even = "the same at any size" if crossing.always == 1 else f"{words.times(crossing.always)} at any size"
    else:
        even = "no break-even" if crossing.tokens is None else f"break-even {_tokens(crossing.tokens)} tokens"
    if crossing.padded_from is not None:
        even += f"; fewer from {crossing.padded_from}×{crossing.padded_from} tokens on, even with padding"
    return f"{crossing.scope}: {' = '.join([quotient, *ratio])}, {even}"


def _tokens(tokens: int | tuple[int, ...]) -> str:
    if isinstance(tokens, int):
        return f"at {tokens:,}"
    return f"between {tokens[0]:,} and {tokens[1]:,}"


def time_finding(comparison: Comparison, each: TimeCrossover) -> str:
    """Where the lead changes in measured time, and how surely that is known."""
    names = comparison.names
    if each.leader is None:
        return f"{names[each.other]} and {names[each.first]}: cannot tell which is faster, {OVERLAP} everywhere"
    unclear = f"; cannot tell at {', '.join(map(str, each.unclear))}: {OVERLAP}" if each.unclear else ""
    leader = names[each.leader]
    if each.low is None or each.high is None:
        other = names[each.first if each.leader == each.other else each.other]
        return f"{leader} is faster than {other} wherever the times can be told apart{unclear}"
    grids = {point.at[each.axis]: point.grid for point in [*comparison.points, *comparison.bisected]}
    low, high = (math.prod(grids[value]) for value in (each.low, each.high))
    tokens = f" ({low:,} and {high:,} tokens)" if low != high else ""
    return (
        f"{leader} takes the lead between {each.axis} {each.low} and {each.high}{tokens}, two measured points{unclear}"
    )


def timing_line(comparison: Comparison) -> str:
    """What the times were taken on."""
    env = comparison.environment
    return " · ".join(
        [
            "medians of runs in turn",
            words.threads(env),
            words.device(env),
            f"torch {env['torch']}",
            f"allocator {env['allocator']}",
        ]
    )


def _told(left_out: Sequence[LeftOut]) -> list[str]:
    told = []
    for each in left_out[:FEW]:
        at = ", ".join(f"{name} {value}" for name, value in each.at.items())
        told.append(f"{at}: {each.reason}" + (f"; and {each.count - 1:,} more like it" if each.count > 1 else ""))
    return [*told, f"and {len(left_out) - FEW} more"] if len(left_out) > FEW else told


def _labelled(label: str, told: Sequence[str], style: str = "") -> list[tuple[str, str, str]]:
    return [("" if index else label, line, style) for index, line in enumerate(told)]
