"""The differences of two runs on a screen, in CSV and in Markdown."""

from collections.abc import Callable, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from attnscope.core.interval import CANNOT_TELL, EQUAL, Interval
from attnscope.core.sizes import plural
from attnscope.render import words
from attnscope.render.columns import Column, fit, rows_table, to_csv, to_markdown
from attnscope.render.screen import Labelled, Screen, labelled
from attnscope.reports.diff import Change, Diff, TimeChange

A_SCREENFUL = 36
"""The largest number of changes of a kind, and of times, on a screen; of more times, only real differences are shown."""

STEP_COSTS: dict[str, tuple[str, Callable[[int], str]]] = {
    "macs": ("MACs", words.metric),
    "flops": ("FLOPs", words.metric),
    "other_flops": ("elementwise", words.metric),
    "params": ("params", words.metric),
    "bytes_read": ("read", words.binary),
    "bytes_written": ("written", words.binary),
    "bytes_live": ("live", words.binary),
    "bytes_training": ("training", words.binary),
    "bytes_backward": ("bwd live", words.binary),
    "bytes_saved": ("saved", words.binary),
    "bytes_allocated": ("allocator", words.binary),
    "backward_macs": ("bwd MACs", words.metric),
}
"""The word and the unit of each cost of a step, by its name in JSON; the words are the column names of a report."""
COSTS: dict[str, tuple[str, Callable[[int], str]]] = {
    **STEP_COSTS,
    "times": ("number of identical steps", str),
    "peak_bytes": ("peak activation memory", words.binary),
    "training_peak_bytes": ("peak activation memory in training", words.binary),
    "kept_bytes": ("saved for backward", words.binary),
    "backward_peak_bytes": ("peak memory in the backward", words.binary),
}
"""The same with the costs of the whole."""


def render_diff(diff: Diff, names: tuple[str, str], form: str, screen: Screen) -> str:
    """Return the differences as a table, json, csv or md."""
    if form == "json":
        return diff.to_json() + "\n"
    columns, rows, style = diff_table(diff)
    if form == "csv":
        return to_csv(columns, rows)
    if form == "md":
        return f"**{names[0]} → {names[1]}**\n\n{to_markdown(columns, rows, style)}"
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
        Column[TimeChange]("step", "step", lambda row: row.name, right=False, text=_name),
        Column[TimeChange]("of", "of", lambda row: row.of, rank=None),
        Column[TimeChange]("times", "times", lambda row: row.times, rank=None),
        Column[TimeChange]("before_s", "before", lambda row: row.before_s, _seconds, rank=2),
        Column[TimeChange]("after_s", "after", lambda row: row.after_s, _seconds, rank=1),
        Column[TimeChange]("ratio", "after / before", lambda row: row.ratio, _ratio, rank=3),
        Column[TimeChange]("ratio_low", "", lambda row: row.ratio_low, _ratio, rank=None),
        Column[TimeChange]("ratio_high", "", lambda row: row.ratio_high, _ratio, rank=None),
        Column[TimeChange](
            "normalized_ratio",
            "same host speed",
            lambda row: row.normalized_ratio,
            _ratio,
            rank=2.5 if normalized else None,
        ),
        Column[TimeChange]("normalized_low", "", lambda row: row.normalized_low, _ratio, rank=None),
        Column[TimeChange]("normalized_high", "", lambda row: row.normalized_high, _ratio, rank=None),
        Column[TimeChange]("verdict", "", verdict, right=False),
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
    """Return the changes of the environment, the Spec and the exact costs, then the times."""
    headline = screen.headline(f"{names[0]} → {names[1]}")
    shown = [("result", finding(diff), "bold"), *change_lines(diff)]
    parts: list[RenderableType] = [*incomparable(diff, screen), headline, Text(""), screen.lines(shown)]
    rows = [row for row in diff.timed if not _repeats_forward(row, diff)]
    every = len(rows)
    if len(rows) > A_SCREENFUL:
        rows = [row for row in rows if row.real or row.is_whole or row.of == "kernel"]
    columns, dropped = fit(diff_columns(diff.is_normalized), rows, screen)
    if rows:
        parts += [Text(""), rows_table(columns, rows, screen, _style)]
    if len(rows) < every:
        hidden = plural(every - len(rows), "step")
        parts.append(screen.aside(f"not shown: {hidden} without a real difference; --format csv has all"))
    parts += screen.hidden(dropped)
    if diff.doubts:
        parts += [Text(""), screen.lines(warning_lines(diff))]
    return parts


def incomparable(diff: Diff, screen: Screen) -> list[RenderableType]:
    """Return the first line of a screen whose runs differ in what times depend on."""
    if not diff.differing or diff.whole.ratio is None:
        return []
    names = ", ".join(change.name.replace("_", " ") for change in diff.differing)
    return [Text(f"the runs differ in {names}", "yellow"), Text("")]


def finding(diff: Diff) -> str:
    """Return the result: whether the forward and the backward are slower or faster, and whether the costs differ."""
    if diff.same:
        return "both files contain the same run"
    timed = [row for row in (diff.whole, diff.backward) if row in diff.timed]
    speeds = [f"{row.of}: {_speed(row)}" for row in timed] or ["no times in either run"]
    macs = next((change for change in diff.costs if change.name == "macs"), None)
    if macs and macs.before and macs.after is not None:
        costs = f"{words.times(macs.after / macs.before)} the MACs"
    else:
        costs = f"{plural(len(diff.costs), 'cost')} changed" if diff.costs else "equal costs"
    return "; ".join([*speeds, costs])


def _speed(row: TimeChange) -> str:
    if not row.real or row.interval is None:
        return verdict(row)
    low, high = row.interval.low, row.interval.high
    return f"{words.ratio_range(row.interval if low > 1 else Interval(1 / high, 1 / low))} {verdict(row)}"


def _repeats_forward(row: TimeChange, diff: Diff) -> bool:
    """Return whether a row is the kernel of both runs, whose times are those of the forward."""
    of_forward = diff.whole.before_s, diff.whole.after_s
    return row.of == "kernel" and (row.before_s, row.after_s) == of_forward


def change_lines(diff: Diff) -> list[Labelled]:
    """Return label, text and style of each change other than times."""
    return [
        *_environment(diff.environment),
        *_changes("spec", diff.spec, "yellow", "not set"),
        *_changes("costs", diff.costs, "", "unknown"),
    ]


def _environment(changes: list[Change]) -> list[Labelled]:
    """Return the changes of the environment; what only one run has, such as a run without times, is one line."""
    of_both = [change for change in changes if None not in (change.before, change.after)]
    lines = _changes("environment", of_both, "yellow", "not set") if of_both or not changes else []
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
    if not row.real or row.ratio is None:
        return whole or "dim"
    return whole + ("yellow" if row.ratio > 1 else "green")


def _name(row: TimeChange) -> str:
    """Return the name of a row: "forward" or "backward" for a whole, and indented for its steps."""
    if row.of == "kernel":
        return f"kernel {row.name}"
    if row.is_whole:
        return row.of
    return f"  {row.name} ×{row.times}" if (row.times or 1) > 1 else f"  {row.name}"


def _changes(label: str, changes: list[Change], style: str, missing: str) -> list[Labelled]:
    """Return the changes of a kind, at most a screenful; `missing` is the word for None."""
    if not changes:
        return [(label, "unchanged", "dim")]
    lines = [_change(change, missing) for change in changes[:A_SCREENFUL]]
    if len(changes) > A_SCREENFUL:
        lines.append(f"and {len(changes) - A_SCREENFUL} more; --json lists all")
    return labelled(label, lines, style)


def _change(change: Change, missing: str) -> str:
    """Return a change; a cost has the word and the unit of its column, and all digits if fewer do not show the change."""
    place, _, name = change.name.rpartition(" ")
    title, spell = COSTS.get(name, (name, _exact))
    before, after = change.before, change.after
    shown = [_value(value, missing) for value in (before, after)]
    if name in COSTS and isinstance(before, int) and isinstance(after, int) and spell(before) != spell(after):
        shown = [spell(before), spell(after)]
    return f"{f'{place} ' if place else ''}{title}: {' → '.join(shown)}"


def _exact(value: int) -> str:
    return f"{value:,}"


def _value(value: Any, missing: str) -> str:
    if value is None:
        return missing
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return _exact(value) if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _known(value: Any) -> str:
    return _value(value, words.UNKNOWN)


def _seconds(value: float | None) -> str:
    return words.NONE if value is None else words.seconds(value)


def _ratio(value: float | None) -> str:
    return words.NONE if value is None else f"{value:.3f}"
