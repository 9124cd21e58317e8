"""Contenders and plans -> Comparison: what one rank sends, computes and holds on several numbers of ranks. No torch."""

import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from attnscope import attentions
from attnscope.analyses.comparison import Wanted
from attnscope.analyses.contenders import (
    IMAGE,
    PATCH,
    RESOLUTION,
    Contender,
    Meeting,
    NetworkContender,
    read_contender,
)
from attnscope.analyses.entries import Order, set_entries
from attnscope.analyses.paper_comparison import ratio, set_ratios, words_of
from attnscope.analyses.quantities import OF_RANKS, QUANTITIES
from attnscope.analyses.shard import plans_for, shard_totals
from attnscope.attentions.spec import Spec
from attnscope.core.errors import UsageError, did_you_mean, quoted
from attnscope.core.version import __version__
from attnscope.plan.links import Device, Link
from attnscope.plan.mesh import KINDS, MeshAxis
from attnscope.reports.comparison import RANK, Axis, Comparison, Entry, LeftOut, Number, Point
from attnscope.reports.comparison import Contender as ContenderWords
from attnscope.reports.sharding import ShardedTotals

RANKS = "ranks"
"""The axis of the comparison."""
MOST_POINTS = 1000
"""The most plans, one for each contender and number of ranks."""


@dataclass(frozen=True)
class Sharded:
    """An attention or a network with the way to shard it: its label, its Spec, and a key of KINDS."""

    label: str
    contender: Contender
    spec: Spec
    plan: str


def compare_ranks(
    contenders: Sequence[str],
    ranks: Sequence[int],
    *,
    plan: str | None = None,
    quantity: str = "sent",
    where: str | None = None,
    sort: str | None = None,
    link: Link | None = None,
    device: Device | None = None,
    command: str | None = None,
    **settings: Any,
) -> Comparison:
    """Compare what one rank sends, computes and holds, on several numbers of ranks. No torch.

    Args:
        contenders: attentions or presets of networks, each with its plan if it has one: `vit:plan=tp`. Those of one name
            have its own defaults; different ones have the input of `compare`.
        ranks: the numbers of ranks.
        plan: the plan of contenders without one; by default each has a contender for each plan that is legal for it.
        quantity: one of OF_RANKS.
        where: a condition on the rows: `sent<1MB and ranks=4`.
        sort: the quantity by which the rows are sorted; `-sent` for the largest first.
        link: the link between ranks, for the time of the collectives.
        device: the peak rates of a rank, for the lower bound of the steps.
        command: the command line, for the record.
        settings: fields of the Specs, and image, patch or resolution.

    Raises:
        UsageError: an argument is not allowed, or no plan is legal.

    Example:
        >>> import attnscope
        >>> found = attnscope.compare_ranks(["vit"], [2, 4], plan="ulysses")
        >>> [point.costs for point in found.points]
        [{'vit:plan=ulysses': 606720}, {'vit:plan=ulysses': 458496}]
    """
    shards = sharded_contenders(contenders, ranks, plan, settings)
    return on_ranks(shards, ranks, Wanted(quantity, where, sort), link, device, command)


def on_ranks(
    shards: Sequence[Sharded],
    ranks: Sequence[int],
    wanted: Wanted,
    link: Link | None = None,
    device: Device | None = None,
    command: str | None = None,
) -> Comparison:
    """Return the comparison of contenders with their plans, as `compare_ranks`.

    Raises:
        UsageError: the quantity is not one of ranks or lacks a rate, there are too many plans, or none is legal.
    """
    quantity = wanted.quantity
    if quantity not in OF_RANKS:
        raise UsageError(f"{{quantity}} {quoted(quantity)} is not a quantity of ranks; use {', '.join(OF_RANKS)}")
    if (needed := _missing_rate(quantity, link, device)) is not None:
        raise UsageError(f"{{quantity}} {quantity} requires {{{needed}}}; add it")
    if len(shards) * len(ranks) > MOST_POINTS:
        raise UsageError(f"{{over}} ranks must have at most {MOST_POINTS} plans (got {len(shards) * len(ranks)})")
    table = _Table(shards, ranks, link, device)
    points = [table.point(count, quantity) for count in ranks]
    cut = [point for point, count in zip(points, ranks, strict=True) if count > 1] or points
    if all(len(point.refused) == len(shards) for point in cut):  # one rank cuts nothing
        raise UsageError(next(iter(cut[0].refused.values())))
    set_ratios(points, [each.label for each in shards])
    has_times = link is not None and device is not None
    comparison = Comparison(
        command=command,
        title=_title(quantity, shards),
        quantity=quantity,
        unit=QUANTITIES[quantity].unit,
        contenders=[
            ContenderWords(each.label, each.contender.attention, *words)
            for each, words in zip(shards, _words(shards), strict=True)
        ],
        axes=[Axis(RANKS, list(ranks))],
        settings={},
        environment={"attnscope": __version__, "python": platform.python_version()},
        points=points,
        reference=_reference(points),
        crossovers=[],
        agree=True,
        left_out=table.left_out(),
        part=RANK,
        communication_from={each.label: table.communication_from(each.label) for each in shards} if has_times else {},
    )
    set_entries(comparison, table.entries(), Order(comparison, wanted.where, wanted.sort, is_timed=False))
    return comparison


def sharded_contenders(
    contenders: Sequence[str], ranks: Sequence[int], plan: str | None, settings: Mapping[str, Any]
) -> list[Sharded]:
    """Return each contender with its plan; one without a plan is there once for each plan that is legal for it.

    Raises:
        UsageError: a contender or a plan is unknown or appears twice, or a setting is not a field of a contender.
    """
    split = [_read(text) for text in contenders]
    settings = {name: value for name, value in settings.items() if value is not None}
    is_alone = len({contender.label for contender, _ in split}) == 1
    found: list[Sharded] = []
    for contender, own in split:
        spec = _spec_of(contender, settings, is_alone)
        chosen = own or plan
        if chosen is not None and chosen not in KINDS:
            raise UsageError(f"{{plan}} {quoted(chosen)} is unknown; {did_you_mean(chosen, KINDS)}")
        for name in [chosen] if chosen else _legal(spec, ranks):
            mark = "," if ":" in contender.label else ":"
            found.append(Sharded(f"{contender.label}{mark}plan={name}", contender, spec, name))
    labels = [each.label for each in found]
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise UsageError(f"a contender must appear once (got {twice} twice); give one another plan, as in vit:plan=tp")
    return found


def _read(text: str) -> tuple[Contender, str | None]:
    """Return a contender, and its plan if it has one."""
    found = re.search(r"(?<=[:,])plan=([^,]*),?", text)
    if found is None:
        return read_contender(text), None
    return read_contender((text[: found.start()] + text[found.end() :]).rstrip(",:")), found[1]


def _spec_of(contender: Contender, settings: Mapping[str, Any], is_alone: bool) -> Spec:
    """Return the Spec of a contender: with its own defaults if it is the only one, else on the input of a comparison."""
    of_grid = [IMAGE] if contender.is_network else [RESOLUTION, IMAGE, PATCH]
    known = {**contender.fields, **dict.fromkeys(of_grid)}
    if stranger := next((name for name in settings if name not in known), None):
        raise UsageError(f"{{{stranger}}} is not a field of {contender.label}; remove it")
    if isinstance(contender, NetworkContender):
        return contender.at(settings.get(IMAGE, contender.spec.image), settings)
    if is_alone and not set(of_grid) & settings.keys():
        return attentions.spec_class(contender.attention)(**{**settings, **contender.own})
    place = Meeting([contender], dict(settings), [], (), True).place({})
    return contender.at(place.grid, place.values)


def _legal(spec: Spec, ranks: Sequence[int]) -> list[str]:
    """Return the plans that are legal on one of several numbers of ranks.

    Raises:
        UsageError: none is.
    """
    several = [count for count in ranks if count > 1] or list(ranks)
    legal: set[str] = set()
    for count in several:
        plans = plans_for(spec, count)
        legal |= {each.plan.partition("=")[0] for each in plans if not each.why}
        if len(legal) == len(plans):
            break
    if not legal:
        first = plans_for(spec, several[0])[0]
        raise UsageError(
            f"{{plan}} must be legal on one of these numbers of ranks (got none: {first.plan} {first.why})"
        )
    return [name for name in KINDS if name in legal]


class _Table:
    """The totals of each contender on each number of ranks, or the reason why the plan is illegal."""

    def __init__(
        self, shards: Sequence[Sharded], ranks: Sequence[int], link: Link | None, device: Device | None
    ) -> None:
        self.labels, self.ranks = [each.label for each in shards], ranks
        self.costs: dict[tuple[str, int], dict[str, Number]] = {}
        self.at_least: dict[tuple[str, int], dict[str, int]] = {}
        self.refused: dict[tuple[str, int], str] = {}
        for each in shards:
            for count in ranks:
                try:
                    totals = shard_totals(each.spec, (MeshAxis(each.plan, count),), link=link, device=device)
                except UsageError as error:
                    self.refused[each.label, count] = str(error)
                else:
                    self.costs[each.label, count] = of_rank(totals)
                    is_known = totals.peak_bytes is not None
                    self.at_least[each.label, count] = {} if is_known else {"peak": totals.peak_bytes_at_least}

    def point(self, count: int, quantity: str) -> Point:
        """Return the costs of all contenders on a number of ranks."""
        costs = {label: self.costs.get((label, count), {}).get(quantity) for label in self.labels}
        refused = {label: self.refused[label, count] for label in self.labels if (label, count) in self.refused}
        bounds = {label: self.at_least.get((label, count), {}).get(quantity) for label in self.labels}
        at_least = {label: bound for label, bound in bounds.items() if bound is not None}
        return Point({RANKS: count}, None, costs, {}, {}, refused=refused, at_least=at_least)

    def entries(self) -> list[Entry]:
        """Return a row for each contender on each number of ranks."""
        return [
            Entry({RANKS: count}, label, self.costs[label, count], self.at_least[label, count])
            for count in self.ranks
            for label in self.labels
            if (label, count) in self.costs
        ]

    def left_out(self) -> list[LeftOut]:
        """Return the plans that are illegal, once for each rule."""
        found: dict[tuple[str, str], LeftOut] = {}
        for (label, count), why in self.refused.items():
            rule = label, re.sub(r"\d+", "#", why)
            found.setdefault(rule, LeftOut({RANKS: count}, why, 0, label)).count += 1
        return list(found.values())

    def communication_from(self, label: str) -> int | None:
        """Return the number of ranks from which on the collectives take longer than the lower bound of the steps."""
        found = None
        for count in sorted(self.ranks, reverse=True):
            ratio = self.costs.get((label, count), {}).get("link-per-bound")
            if ratio is None:
                continue
            if ratio <= 1:
                break
            found = count
        return found


def of_rank(totals: ShardedTotals) -> dict[str, Number]:
    """Return the quantities of one rank; those whose rates were not given are left out."""
    times = {
        "link": totals.communication_s,
        "bound": totals.bound_s,
        "link-per-bound": ratio(totals.communication_s, totals.bound_s) if totals.communication_s is not None else None,
    }
    return {
        "sent": totals.bytes_sent,
        "macs": totals.macs,
        "params": totals.params,
        "peak": totals.peak_bytes,
        **{name: seconds for name, seconds in times.items() if seconds is not None},
    }


def _missing_rate(quantity: str, link: Link | None, device: Device | None) -> str | None:
    """Return the flag of a rate that a quantity requires and that is not given."""
    if quantity in ("link", "link-per-bound") and link is None:
        return "link"
    return "peak" if quantity in ("bound", "link-per-bound") and device is None else None


def _words(shards: Sequence[Sharded]) -> list[tuple[str, str]]:
    """Return the description and the name of each contender: those of the plan if all are of one attention."""
    if len({each.contender.label for each in shards}) == 1:
        return [(KINDS[each.plan].title, each.plan) for each in shards]
    return [(f"{words_of(each.contender, each.spec)}, {KINDS[each.plan].title}", each.label) for each in shards]


def _title(quantity: str, shards: Sequence[Sharded]) -> str:
    """Return the title: the quantity, and the attention if it is the only one, else what all attentions share."""
    title = QUANTITIES[quantity].title.format(part="one rank")
    first = shards[0].spec
    if len({each.contender.label for each in shards}) > 1:
        shared = [part for part in first.headline() if all(part in each.spec.headline() for each in shards)]
        counts = {prod(each.spec.input_shape[1:-1]) for each in shards if not each.contender.is_network}
        tokens = [f"{next(iter(counts)):,} tokens"] if len(counts) == 1 else []
        return " · ".join([title, *tokens, *shared, first.dtype])
    return " · ".join([title, first.title, *first.headline(), first.dtype])


def _reference(points: Sequence[Point]) -> int:
    """Return the index of the point with the most ranks, among those that the most contenders can take."""
    fewest = min(len(point.refused) for point in points)
    taken = [index for index, point in enumerate(points) if len(point.refused) == fewest]
    return max(taken, key=lambda index: points[index].at[RANKS])


def next_of_ranks(comparison: Comparison, shards: Sequence[Sharded], again: str) -> tuple[str, str]:
    """Return the suggested next command and its reason.

    Args:
        comparison: the result.
        shards: its contenders.
        again: the command that repeats it with the rates that it lacks, or "" if it lacks none.
    """
    if again:
        return again, "where communication exceeds computation"
    point = comparison.points[comparison.reference]
    known = {each.label: cost for each in shards if (cost := point.costs[each.label]) is not None}
    best = next(each for each in shards if each.label == min(known, key=lambda label: known[label]))
    own = best.spec.command().removeprefix("attnscope ")
    return f"attnscope shard {own} --plan {best.plan}={point.at[RANKS]}", "its steps"
