"""The differences of two runs on a screen, in CSV and in Markdown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from rich.console import RenderableType
from rich.text import Text

from attnscope.core.interval import CANNOT_TELL, EQUAL, Interval
from attnscope.core.sizes import plural
from attnscope.core.text import in_markdown
from attnscope.render import words
from attnscope.render.columns import Column, fit, rows_table, to_csv, to_markdown
from attnscope.render.screen import Labelled, Screen, labelled
from attnscope.reports.diff import Change, Diff, TimeChange

A_SCREENFUL, MOST_STEPS, MOST_SETTINGS = 36, 6, 6
"""The largest number of changed times of a kind, of changed steps in a table of counts, and of settings in a line."""
BOTH, ALIGNED = 9, 100
"""Width of the columns before and after, and width of the narrowest screen on which the tables are aligned."""
Row = TypeVar("Row")

QUANTITIES: tuple[tuple[str, Callable[[int], str], str, str], ...] = (
    ("MACs", words.metric, "macs", "macs"),
    ("parameters", words.metric, "params", "params"),
    ("peak activation memory", words.binary, "peak_bytes", "bytes_live"),
    ("peak memory in training", words.binary, "training_peak_bytes", "bytes_training"),
    ("saved for backward", words.binary, "kept_bytes", "bytes_saved"),
    ("peak memory in backward", words.binary, "backward_peak_bytes", "bytes_backward"),
    ("backward MACs", words.metric, "backward_macs", "backward_macs"),
    ("elementwise FLOPs", words.metric, "other_flops", "other_flops"),
    ("bytes read", words.binary, "bytes_read", "bytes_read"),
    ("bytes written", words.binary, "bytes_written", "bytes_written"),
    ("peak of the allocator", words.binary, "", "bytes_allocated"),
    ("number of equal steps", str, "", "times"),
)
"""The tables of counts, the most important first: title, unit, and the names of the count of the whole and of a step.

FLOPs are 2 for each MAC, so that they have no table of their own.
"""


def render_diff(diff: Diff, names: tuple[str, str], form: str, screen: Screen) -> str:
    """Return the differences as a table, json, csv or md."""
    if form == "json":
        return diff.to_json() + "\n"
    columns, rows, style = diff_table(diff)
    if form == "csv":
        return to_csv(columns, rows)
    if form == "md":
        return f"**{in_markdown(names[0])} → {in_markdown(names[1])}**\n\n{to_markdown(columns, rows, style)}"
    return screen.draw(diff_parts(diff, names, screen))


def diff_table(diff: Diff) -> tuple[list[Column[Any]], Sequence[Any], Callable[[Any], str]]:
    """Return columns, rows and the style of a row: the times, or without times in either run the costs that differ."""
    if diff.timed:
        return diff_columns(diff.is_normalized), diff.timed, lambda row: "bold" if row.is_whole else ""
    return cost_columns(), diff.costs, lambda row: ""


def cost_columns() -> list[Column[Change]]:
    """Return the columns of costs that differ: the name in JSON, both values, and their ratio."""
    return [
        Column[Change]("cost", "cost", lambda row: row.name, right=False),
        Column[Change]("before", "before", lambda row: row.before, _known),
        Column[Change]("after", "after", lambda row: row.after, _known),
        Column[Change]("ratio", "after / before", cost_ratio, _ratio),
    ]


def cost_ratio(change: Change) -> float | None:
    """Return the cost after divided by that before; None if one is unknown or no number, or the one before is 0."""
    before, after = change.before, change.after
    return after / before if isinstance(before, int) and isinstance(after, int) and before else None


def diff_columns(normalized: bool = True) -> list[Column[TimeChange]]:
    """Return the columns: a step, both of its times, their ratio, that at the same speed of the host, and the verdict.

    Args:
        normalized: whether any time is known at the same speed of the host; otherwise the screen has no column for it.
    """
    return [
        Column[TimeChange]("step", "time", lambda row: row.name, right=False, text=_name, is_long=True),
        Column[TimeChange]("of", "of", lambda row: row.of, rank=None),
        Column[TimeChange]("times", "times", lambda row: row.times, rank=None),
        Column[TimeChange]("before_s", "before", lambda row: row.before_s, _seconds, rank=3),
        Column[TimeChange]("after_s", "after", lambda row: row.after_s, _seconds, rank=2),
        Column[TimeChange](
            "ratio",
            "after / before",
            lambda row: row.ratio,
            _ratio,
            rank=1.5,
            text=lambda row: _range(row.measured_interval),
        ),
        Column[TimeChange]("ratio_low", "", lambda row: row.ratio_low, _ratio, rank=None),
        Column[TimeChange]("ratio_high", "", lambda row: row.ratio_high, _ratio, rank=None),
        Column[TimeChange](
            "normalized_ratio",
            "same host speed",
            lambda row: row.normalized_ratio,
            _ratio,
            rank=1 if normalized else None,
            text=lambda row: _range(row.normalized_interval),
        ),
        Column[TimeChange]("normalized_low", "", lambda row: row.normalized_low, _ratio, rank=None),
        Column[TimeChange]("normalized_high", "", lambda row: row.normalized_high, _ratio, rank=None),
        Column[TimeChange]("verdict", "", verdict, right=False, text=_short),
    ]


def verdict(change: TimeChange) -> str:
    """Return the verdict: "slower", "equal within ±4%", "cannot tell: 0.7 to 1.6×", or the only run with this time."""
    if change.verdict is None:
        return f"only in the {'second' if change.before_s is None else 'first'} run"
    if change.interval is None:
        return f"{change.verdict}: too few runs" if change.verdict == CANNOT_TELL else change.verdict
    if change.verdict == EQUAL:
        return f"equal within ±{words.upper_percent(change.interval.difference)}"
    if change.verdict == CANNOT_TELL:
        return f"{change.verdict}: {words.ratio_range(change.interval)}"
    return change.verdict


def diff_parts(diff: Diff, names: tuple[str, str], screen: Screen) -> list[RenderableType]:
    """Return the differences of the runs, the result, and a table of each quantity that changed."""
    headline = screen.headline(f"{names[0]} → {names[1]}")
    if diff.same:
        return [headline, Text(""), screen.lines(labelled("result", [finding(diff)], "bold"))]
    shown = [("result", finding(diff), "bold"), *change_lines(diff), *warning_lines(diff)]
    return [*incomparable(diff, screen), headline, Text(""), screen.lines(shown), *tables(diff, screen)]


def incomparable(diff: Diff, screen: Screen) -> list[RenderableType]:
    """Return the first line of a screen whose runs differ in what times depend on."""
    differing = _differing(diff)
    if not differing:
        return []
    changes = "; ".join(map(setting, differing[:MOST_SETTINGS]))
    more = len(differing) - MOST_SETTINGS
    words_of_more = f"; and {more} more" if more > 0 else ""
    return [screen.lines(labelled("warning", [f"the runs differ in {changes}{words_of_more}"], "yellow")), Text("")]


def _differing(diff: Diff) -> list[Change]:
    """Return the differences for the first line, without what a run without times lacks, such as torch."""
    return [each for each in diff.differing if each in diff.spec or None not in (each.before, each.after)]


def setting(change: Change) -> str:
    """Return a change of an option or of the environment: `--dim 96 → 192`, `threads 1 → 2`."""
    name = change.name.replace("_", " ")
    shown = [_value(value) for value in (change.before, change.after)]
    return f"{name} {' → '.join(shown)}"


def tables(diff: Diff, screen: Screen) -> list[RenderableType]:
    """Return a table of the times, then one of each count, with the rows that changed.

    A table begins with the whole, then the steps with the largest changes.
    """
    times, every = changed_times(diff)
    counts = changed_counts(diff)
    shown: list[RenderableType] = []
    hidden: dict[str, None] = {}
    names = [
        *map(_name, times),
        *(row.name for rows in counts.values() for row in rows),
        *(title for title, _ in counts),
    ]
    aligns = screen.width is None or screen.width >= ALIGNED
    name, both = (max(map(len, names), default=0), BOTH) if aligns else (0, 0)
    if times:
        columns, dropped = fit(_padded(diff_columns(diff.is_normalized), name, both), times, screen)
        shown += [Text(""), rows_table(columns, times, screen, _style)]
        hidden |= dict.fromkeys(dropped)
    for (title, spell), rows in counts.items():
        kept, dropped = fit(_padded(count_columns(title, spell), name, both), rows[: MOST_STEPS + 1], screen)
        shown += [
            Text(""),
            rows_table(kept, rows[: MOST_STEPS + 1], screen, lambda row: "bold" if row.is_whole else ""),
        ]
        hidden |= dict.fromkeys(dropped)
    not_shown = _not_shown(every, len(times), sum(max(0, len(rows) - MOST_STEPS - 1) for rows in counts.values()))
    return [*shown, *map(screen.aside, not_shown), *screen.hidden(list(dict.fromkeys(map(str.strip, hidden))))]


def _not_shown(every: int, shown: int, counts: int) -> list[str]:
    lines = [f"not shown: {plural(every - shown, 'time')} without a real difference; --format csv has all"]
    more = [f"not shown: {plural(counts, 'smaller change')} of counts; --json has all"]
    return [*(lines if every > shown else []), *(more if counts else [])]


def changed_times(diff: Diff) -> tuple[list[TimeChange], int]:
    """Return the times that changed, the largest difference first, below that of their whole; and the number of all.

    The whole forward and backward are always there, with their verdicts.
    """
    rows = [row for row in diff.timed if not _repeats_forward(row, diff)]
    shown: list[TimeChange] = []
    for of in dict.fromkeys(row.of for row in rows):
        of_kind = [row for row in rows if row.of == of]
        whole = [row for row in of_kind if row.is_whole]
        # a step that one run lacks is a change only if that run has the whole
        lacks = all(row.verdict is not None for row in whole)
        parts = [row for row in of_kind if not row.is_whole and (row.real or (lacks and row.verdict is None))]
        shown += whole
        shown += sorted(parts, key=lambda row: -abs((row.after_s or 0) - (row.before_s or 0)))[:A_SCREENFUL]
    return shown, len(rows)


@dataclass(frozen=True)
class CountRow:
    """A count of the whole or of a step in both runs; None if it is unknown."""

    name: str
    before: int | None
    after: int | None
    is_whole: bool

    @property
    def ratio(self) -> float | None:
        """Return the count after over the count before; None if one is unknown or the count before is 0."""
        return self.after / self.before if self.before and self.after is not None else None


Quantity = tuple[str, Callable[[int], str]]
"""The title of a table and the unit of its counts."""


def changed_counts(diff: Diff) -> dict[Quantity, list[CountRow]]:
    """Return the rows of each count that changed: that of the whole, then those of steps, the largest change first."""
    found: dict[Quantity, list[CountRow]] = {}
    for title, spell, whole, of_step in QUANTITIES:
        rows = []
        for change in diff.counts:
            place, _, name = change.name.rpartition(" ")
            if change.name == whole or (place and name == of_step):
                rows.append(CountRow(f"  {place}" if place else "whole", change.before, change.after, not place))
        if rows:
            rows.sort(key=lambda row: (not row.is_whole, -abs((row.after or 0) - (row.before or 0))))
            found[title, spell] = rows
    return found


def count_columns(title: str, spell: Callable[[int], str]) -> list[Column[CountRow]]:
    """Return the columns of a table of counts: the whole or a step, both counts, their ratio, and the verdict."""

    def count(row: CountRow, value: int | None) -> str:
        if value is None:
            return words.UNKNOWN
        is_hidden = None not in (row.before, row.after) and spell(row.before or 0) == spell(row.after or 0)
        return _exact(value) if is_hidden else spell(value)

    return [
        Column[CountRow]("name", title, lambda row: row.name, right=False, is_long=True),
        Column[CountRow]("before", "before", lambda row: row.before, rank=3, text=lambda row: count(row, row.before)),
        Column[CountRow]("after", "after", lambda row: row.after, rank=1, text=lambda row: count(row, row.after)),
        Column[CountRow]("ratio", "after / before", lambda row: row.ratio, rank=2, text=_count_ratio),
        Column[CountRow]("verdict", "", _count_verdict, right=False),
    ]


def _count_ratio(row: CountRow) -> str:
    return words.NONE if row.ratio is None else words.times(row.ratio)


def _count_verdict(row: CountRow) -> str:
    if row.before is None or row.after is None:
        return "unknown"
    return "more" if row.after > row.before else "less"


def _padded(columns: list[Column[Row]], name: int, both: int) -> list[Column[Row]]:
    """Return columns of the same widths in all tables, so that these are aligned.

    Args:
        columns: the columns, the names first.
        name: width of the names.
        both: width of the columns before and after.
    """
    widths = dict.fromkeys(("before", "before_s", "after", "after_s"), both)
    first, *others = columns
    return [
        replace(first, title=f"{first.title:<{name}}"),
        *(replace(each, title=f"{each.title:>{widths.get(each.key, 0)}}") for each in others),
    ]


def finding(diff: Diff) -> str:
    """Return the result: whether the forward and the backward are slower or faster, and whether the costs differ."""
    if diff.same:
        return "both files contain the same run"
    timed = [row for row in (diff.whole, diff.backward) if row in diff.timed]
    speeds = [f"{row.of}: {_speed(row)}" for row in timed] or ["no times in either run"]
    macs = next((change for change in diff.counts if change.name == "macs"), None)
    if macs and macs.before and macs.after is not None:
        costs = f"{words.times(macs.after / macs.before)} the MACs"
    elif diff.costs:
        costs = f"{plural(len(diff.costs), 'count')} changed"
    else:
        costs = "equal counts, as far as known" if diff.unknown else "equal counts"
    return "; ".join([*speeds, costs])


def _speed(row: TimeChange) -> str:
    if row.verdict == CANNOT_TELL and row.interval is not None and row.deciding_ratio is not None:
        return f"{verdict(row)} (a difference below {row.interval.unseen(row.deciding_ratio):.0%} could not be seen)"
    if not row.real or row.interval is None:
        return verdict(row)
    return f"{words.ratio_range(row.interval if row.interval.low > 1 else row.interval.inverse)} {verdict(row)}"


def _repeats_forward(row: TimeChange, diff: Diff) -> bool:
    """Return whether a row is the kernel of both runs, whose times are those of the forward."""
    of_forward = diff.whole.before_s, diff.whole.after_s
    return row.of == "kernel" and (row.before_s, row.after_s) == of_forward


def change_lines(diff: Diff) -> list[Labelled]:
    """Return label, text and style of the changes that no table has: of the surroundings, and of the list of steps."""
    others = [change for change in diff.environment if change not in _differing(diff)]
    return [
        *_options(diff),
        *_environment(others),
        *labelled("steps", _steps_of_one_run(diff), "yellow"),
        *labelled("unknown", _unknown(diff), "yellow"),
        *labelled("method", _method(diff)),
    ]


def _options(diff: Diff) -> list[Labelled]:
    """Return the changed options that do not make times incomparable, such as a backward that one run does not have."""
    return labelled("options", [setting(each) for each in diff.spec if each not in diff.differing], "yellow")


def _steps_of_one_run(diff: Diff) -> list[str]:
    """Return the steps that only one run has, a line for each run."""
    lines = []
    for which, state in (("first", "missing"), ("second", "present")):
        names = [change.name for change in diff.costs if change.after == state]
        more = f" and {len(names) - MOST_STEPS} more" if len(names) > MOST_STEPS else ""
        if names:
            lines.append(f"only in the {which} run: {', '.join(names[:MOST_STEPS])}{more}")
    return lines


def _unknown(diff: Diff) -> list[str]:
    changed = {change.name for change in diff.counts}
    titles = {whole: title for title, _, whole, _ in QUANTITIES if whole and whole not in changed}
    names = [titles[name] for name in diff.unknown if name in titles]
    return [f"not known exactly in either run: {', '.join(names)}"] if names else []


def _method(diff: Diff) -> list[str]:
    if not diff.processes or diff.whole.ratio is None:
        return []
    return [f"both ran in turn, each in {diff.processes} fresh processes"]


def _environment(changes: list[Change]) -> list[Labelled]:
    """Return the changes of the environment; what only one run has, such as a run without times, is one line."""
    of_both = [change for change in changes if None not in (change.before, change.after)]
    lines = labelled("environment", list(map(setting, of_both)), "yellow")
    for which, missing in (("first", "after"), ("second", "before")):
        names = [change.name.replace("_", " ") for change in changes if getattr(change, missing) is None]
        if names:
            lines.append(("" if lines else "environment", f"only the {which} run has {', '.join(names)}", "yellow"))
    return lines


def warning_lines(diff: Diff) -> list[Labelled]:
    """Return label, text and style of each warning of the two runs."""
    return [("warning", warning, "yellow") for warning in diff.doubts]


def _style(row: TimeChange) -> str:
    whole = "bold " if row.is_whole else ""
    if not row.real or row.deciding_ratio is None:
        return whole or "dim"
    return whole + ("yellow" if row.deciding_ratio > 1 else "green")


def _name(row: TimeChange) -> str:
    """Return the name of a row: "forward" or "backward" for a whole, and indented for its steps."""
    if row.of == "kernel":
        return f"kernel {row.name}"
    if row.is_whole:
        return row.of
    return f"  {row.name} ×{row.times}" if (row.times or 1) > 1 else f"  {row.name}"


def _exact(value: int) -> str:
    return f"{value:,}"


def _value(value: Any) -> str:
    """Return a value of an option or of the environment in words."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return _exact(value) if isinstance(value, int) else str(value)


def _known(value: Any) -> str:
    return words.UNKNOWN if value is None else _value(value)


def _seconds(value: float | None) -> str:
    return words.NONE if value is None else words.seconds(value)


def _ratio(value: float | None) -> str:
    return words.NONE if value is None else f"{value:.3f}"


def _range(interval: Interval | None) -> str:
    return words.NONE if interval is None else words.ratio_range(interval)


def _short(row: TimeChange) -> str:
    """Return the verdict without the interval, which has a column of its own."""
    return CANNOT_TELL if row.verdict == CANNOT_TELL and row.interval is not None else verdict(row)
