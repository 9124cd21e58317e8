"""The rows of a sorted or filtered comparison: one for each contender at each point, with several quantities."""

import re
from collections.abc import Mapping, Sequence

from attnscope.analyses.contenders import Meeting
from attnscope.analyses.quantities import OF_RANKS, QUANTITIES, bounds_of
from attnscope.core.conditions import Condition, Value, read_sort, read_where, select
from attnscope.core.errors import UsageError
from attnscope.profiling.candidates import Candidate
from attnscope.profiling.options import Progress, tracked
from attnscope.reports.comparison import LAYER, RANK, Comparison, Entry, Point

SHOWN = ("macs", "params", "peak")
"""The quantities of every entry."""
CONTENDER = "contender"
SYNONYMS = {"time": "latency"}
"""Other names of quantities, as conditions may have them."""


class Order:
    """The conditions and the order of `--where` and `--sort`."""

    def __init__(self, comparison: Comparison, where: str | None, sort: str | None, is_timed: bool) -> None:
        """Parse them, for a comparison that is timed or will be.

        Raises:
            UsageError: a field does not exist in this comparison, a measured one was not measured, or the form is wrong.
        """
        axes = list(dict.fromkeys(name for point in comparison.points for name in point.at))
        known = [
            name
            for name, quantity in QUANTITIES.items()
            if (is_timed or not quantity.is_measured)
            and (comparison.part == LAYER or not quantity.of_layers)
            and (name in OF_RANKS if comparison.part == RANK else not quantity.of_ranks)
        ]
        times = list(SYNONYMS) if is_timed else []
        fields = [CONTENDER, *axes, *known, *times]
        if not is_timed:
            _check_counted(where, sort)
        self.where: Sequence[Condition] = read_where(where, fields) if where is not None else ()
        self.sort = read_sort(sort, fields) if sort is not None else None
        named = [*(condition.field for condition in self.where), *([self.sort[0]] if self.sort else [])]
        measured = ["latency"] if is_timed else []
        wanted = [
            *(known if comparison.part == RANK else SHOWN),
            comparison.quantity,
            *(SYNONYMS.get(name, name) for name in named),
            *measured,
        ]
        self.quantities = [name for name in dict.fromkeys(wanted) if name in known]


def _check_counted(where: str | None, sort: str | None) -> None:
    """Check that neither a condition nor the order is about a measured quantity.

    Raises:
        UsageError: one is.
    """
    measured = [*SYNONYMS, *(name for name, quantity in QUANTITIES.items() if quantity.is_measured)]
    for flag, text in (("where", where), ("sort", sort)):
        for name in measured:
            if text is not None and re.search(rf"(^|[\s,&-]){name}($|[\s<>=!])", text.strip().lower()):
                raise UsageError(f"{{{flag}}} {name} requires times; add {{time}}")


def value_of(entry: Entry, name: str) -> Value:
    """Return the value of a field of an entry; None if it is unknown."""
    if name == CONTENDER:
        return entry.contender
    return entry.at[name] if name in entry.at else entry.values.get(SYNONYMS.get(name, name))


def set_entries(comparison: Comparison, entries: Sequence[Entry], order: Order) -> None:
    """Write the entries that satisfy the conditions into the comparison, in their order."""
    selection = select(entries, value_of, order.where, order.sort)
    comparison.entries, comparison.unknown_entries = selection.rows, selection.unknown


def entries_of_specs(
    comparison: Comparison, meeting: Meeting, quantities: Sequence[str], progress: Progress | None = None
) -> list[Entry]:
    """Return an entry for each contender at each point that it can take, with these quantities."""
    found = []
    for point in tracked(comparison.points, len(comparison.points), progress):
        specs = meeting.specs(meeting.place(point.at))
        for label, spec in specs.items():
            entry = Entry(point.at, label, {}, {})
            for name in quantities:
                quantity, time = QUANTITIES[name], point.times.get(label)
                if quantity.of_time is not None:
                    entry.values[name] = None if time is None else quantity.of_time(spec, time.median_s)
                    continue
                entry.values[name], least = bounds_of(quantity, spec)
                if entry.values[name] is None and least is not None:
                    entry.at_least[name] = least
            found.append(entry)
    return found


def entries_of_modules(
    comparison: Comparison, candidates: Sequence[Candidate], quantities: Sequence[str]
) -> list[Entry]:
    """Return an entry for each candidate, with these quantities."""
    (point,) = comparison.points
    return [_entry(point, each, quantities) for each in candidates]


def _entry(point: Point, each: Candidate, quantities: Sequence[str]) -> Entry:
    time = point.times.get(each.label)
    measured: Mapping[str, float | None] = {} if time is None else each.measured(time.median_s)
    values = {
        name: measured.get(name) if QUANTITIES[name].is_measured else each.counts.get(name) for name in quantities
    }
    return Entry({}, each.label, values, {name: each.at_least[name] for name in quantities if name in each.at_least})
