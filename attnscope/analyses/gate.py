"""Two runs and limits -> the result of `--fail-above`; one run and limits -> that of `--max`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from attnscope.core.errors import UsageError, did_you_mean, quoted
from attnscope.core.interval import Interval
from attnscope.core.units import read_size
from attnscope.reports.comparison import Comparison, Point
from attnscope.reports.diff import WHOLE, Diff, TimeChange
from attnscope.reports.gate import CANNOT_TELL, FAIL, PASS, Check, GateResult, judge
from attnscope.reports.report import Report

TIME = "time"
Bounds = tuple[int | None, int | None]
"""The exact value of a count and its lower bound; None if unknown."""
COUNTS = {
    "macs": "macs",
    "flops": "flops",
    "params": "params",
    "peak": "peak_bytes",
    "training-peak": "training_peak_bytes",
    "backward-peak": "backward_peak_bytes",
    "saved": "kept_bytes",
}
"""The quantities that are known exactly, and their names among the totals of a Report."""
LARGEST_RATIO = 10**9
OF_TWO_PROCESSES = "runs of two processes, which a change of the host's speed between them also affects"


@dataclass(frozen=True)
class Limits:
    """The limits of a gate by quantity, and whether times are compared although the settings of the runs differ."""

    limits: Mapping[str, Fraction]
    across: bool = False


def read_ratios(text: str) -> dict[str, Fraction]:
    """Parse `macs=1,peak=1.02,time=1.1` into the largest ratio of each quantity; a bare number limits the time.

    Raises:
        UsageError: the text has another form, or a quantity is unknown.
    """
    return _read("fail_above", text, (*COUNTS, TIME), _ratio, "a number above 0, such as 1.1", "macs=1", TIME)


def read_sizes(text: str) -> dict[str, Fraction]:
    """Parse `macs=5G,peak=100MiB` into the largest value of each quantity.

    Raises:
        UsageError: the text has another form, or a quantity is unknown.
    """
    return _read(
        "max", text, tuple(COUNTS), read_size, "a number with or without a unit, such as 5G or 100MiB", "macs=5G"
    )


def _read(
    flag: str,
    text: str,
    names: tuple[str, ...],
    read: Callable[[str], Fraction | None],
    rule: str,
    example: str,
    bare: str = "",
) -> dict[str, Fraction]:
    limits: dict[str, Fraction] = {}
    for part in text.split(","):
        name, equals, value = (each.strip() for each in part.rpartition("="))
        name = name.lower() if equals else bare
        if not name or (not equals and value.lower() in names):
            raise UsageError(f"{{{flag}}} must be QUANTITY=LIMIT (got {quoted(part)}), such as {example}")
        if name not in names:
            raise UsageError(f"{{{flag}}} {quoted(name)} is unknown; {did_you_mean(name, names)}")
        if name in limits:
            raise UsageError(f"{{{flag}}} must have one limit for each quantity (got {name} twice); remove one")
        limit = read(value)
        if limit is None:
            raise UsageError(f"{{{flag}}} {name} must be {rule} (got {quoted(value)})")
        limits[name] = limit
    return limits


def _ratio(text: str) -> Fraction | None:
    try:
        return Fraction(text) if 0 < float(text) <= LARGEST_RATIO else None
    except ValueError:
        return None


def gate(diff: Diff, before: Report, after: Report, limits: Limits) -> GateResult:
    """Return which limits the second run keeps. Counts are compared exactly, and times by their intervals."""
    checks: list[Check] = []
    for quantity, limit in limits.limits.items():
        if quantity == TIME:
            checks += _times(diff, limit, limits.across)
        else:
            checks.append(_count(quantity, before, after, limit))
    return judge(checks)


def gate_comparison(
    comparison: Comparison, limits: Mapping[str, Fraction], count: Callable[[Point, str, str], Bounds]
) -> GateResult:
    """Return which limits each other contender keeps at each point, compared with the first one.

    Args:
        comparison: the comparison.
        limits: the largest ratio of each quantity.
        count: returns a count of a contender at a point, by its label and the name of the quantity: the exact value, None
            if it is unknown, and its lower bound.
    """
    first, *others = comparison.labels
    checks: list[Check] = []
    for point in comparison.points:
        at = " at " + ", ".join(f"{name} {value}" for name, value in point.at.items()) if point.at else ""
        for other in others:
            for quantity, limit in limits.items():
                if quantity == TIME:
                    checks.append(_time_of(point, first, other, f"{other}{at}", limit))
                elif {first, other} & point.refused.keys():
                    reason = point.refused.get(other) or point.refused[first]
                    checks.append(Check(quantity, CANNOT_TELL, f"{other}{at} was not compared: {reason}"))
                else:
                    old, new = (count(point, label, quantity) for label in (first, other))
                    checks.append(_counted(quantity, old, new, limit, f" of {other}{at}"))
    compared = [point.at for point in comparison.points if point.at]
    for each in comparison.left_out:
        if each.at not in compared:  # the others are refused contenders of a point
            what = each.contender or "a point"
            at = ", ".join(f"{name} {value}" for name, value in each.at.items())
            where = f" at {at}" if at else ""
            checks.append(Check(TIME, CANNOT_TELL, f"{what}{where} was not compared: {each.reason}"))
    return judge(checks)


def _time_of(point: Point, first: str, other: str, words: str, limit: Fraction) -> Check:
    """Return the check of the time of a contender over that of the first one, measured in the same rounds."""
    before, after = (point.times.get(label) for label in (first, other))
    if before is None or after is None:
        missing = first if before is None else other
        return Check(TIME, CANNOT_TELL, f"{words} has no ratio of times: {missing} was not timed")
    ratio = Interval(*point.measured_interval[other]).inverse if other in point.measured_interval else None
    row = TimeChange(
        words,
        WHOLE,
        before.median_s,
        after.median_s,
        1,
        ratio_low=None if ratio is None else ratio.low,
        ratio_high=None if ratio is None else ratio.high,
    )
    return _time(row, limit, "interleaved runs", "use a longer --budget, and close other programs")


def gate_single(report: Report, limits: Mapping[str, Fraction]) -> GateResult:
    """Return which limits a single run keeps."""
    return judge([_single(quantity, report, limit) for quantity, limit in limits.items()])


def _single(quantity: str, report: Report, limit: Fraction) -> Check:
    exact, least = _values(quantity, report)
    known = least if exact is None else exact
    if known is not None and known > limit:
        return Check(
            quantity,
            FAIL,
            f"{quantity} {'at least ' if exact is None else ''}{_spell(quantity, known)}, above {_plain(limit)}",
        )
    if exact is None:
        return Check(quantity, CANNOT_TELL, f"{quantity} is not known", f"remove {quantity} from --max")
    return Check(quantity, PASS, f"{quantity} {_spell(quantity, exact)}, at most {_plain(limit)}")


def _count(quantity: str, before: Report, after: Report, limit: Fraction) -> Check:
    return _counted(quantity, _values(quantity, before), _values(quantity, after), limit)


def _counted(quantity: str, before: Bounds, after: Bounds, limit: Fraction, of: str = "") -> Check:
    """Return the check of two counts, each an exact value and a lower bound; `of` names what has the second one."""
    (old, _), (new, least) = before, after
    known = least if new is None else new
    if old is not None and known is not None and known > limit * old:
        return Check(
            quantity,
            FAIL,
            f"{quantity}{of} {_spell(quantity, old)} → {'at least ' if new is None else ''}{_spell(quantity, known)}"
            f"{_above(old, known, limit)}",
        )
    if old is None or new is None:
        where = "first" if old is None else "second"
        which = f"{quantity}{of} is not known" if of else f"{quantity} is not known in the {where} run"
        return Check(quantity, CANNOT_TELL, which, f"remove {quantity} from --fail-above")
    return Check(
        quantity, PASS, f"{quantity}{of} {_spell(quantity, old)} → {_spell(quantity, new)}, at most {_plain(limit)}×"
    )


def _spell(quantity: str, count: int) -> str:
    """Return a count with all digits, and with the unit if it is in bytes."""
    return f"{count:,} B" if COUNTS[quantity].endswith("_bytes") else f"{count:,}"


def _above(old: int, new: int, limit: Fraction) -> str:
    return f" ({new / old:.4g}×, above {_plain(limit)}×)" if old else ""


def _values(quantity: str, report: Report) -> Bounds:
    """Return the exact value of a count and its lower bound; None if unknown."""
    return report.total(COUNTS[quantity])


def _times(diff: Diff, limit: Fraction, across: bool) -> list[Check]:
    if diff.differing and not across:
        names = ", ".join(change.name.replace("_", " ") for change in diff.differing)
        return [
            Check(
                TIME,
                CANNOT_TELL,
                f"times are not comparable: the runs differ in {names}",
                "repeat one of the runs with the settings of the other, or compare them with --across",
            )
        ]
    rows = [row for row in (diff.whole, diff.backward) if row in diff.timed]
    if not rows:
        return [Check(TIME, CANNOT_TELL, "neither run has times", "see the warnings for the reason")]
    sampled, fix = "", "compare them with --rerun, or repeat both runs with --processes 5 or more"
    if diff.processes:
        sampled = f"{diff.processes} processes of each, in turn"
        fix = "use more --processes or a longer --budget, and close other programs"
    return [_time(row, limit, sampled, fix) for row in rows]


def _time(row: TimeChange, limit: Fraction, sampled: str, fix: str) -> Check:
    """Return the check of the forward or the backward: PASS and FAIL require that the whole interval agrees.

    Args:
        row: the times and the interval of their ratio.
        limit: the largest ratio.
        sampled: the processes that took turns, from which the interval follows; empty for two saved runs.
        fix: how to narrow the interval.
    """
    if row.ratio is None:
        which = "second" if row.before_s is None else "first"
        return Check(
            row.of, CANNOT_TELL, f"only the {which} run has times of the {row.of}", "run both with the same options"
        )
    interval = row.interval
    if interval is None:
        return Check(row.of, CANNOT_TELL, f"the {row.of} has too few runs for an interval", "use a longer --budget")
    at, ratio, basis = "", row.ratio, [sampled or OF_TWO_PROCESSES]
    if row.normalized_ratio is not None:
        at, ratio = " at the same host speed", row.normalized_ratio
        basis = [f"{row.ratio:.2f}× in wall time", *([sampled] if sampled else [])]
    ends = f"{interval.low:.2f} to {interval.high:.2f}"
    found = f"{row.of} takes {ratio:.2f}× the time{at} ({'; '.join([ends, *basis])})"
    if interval.high <= limit:
        return Check(row.of, PASS, f"{found}, at most {_plain(limit)}×")
    if interval.low > limit:
        return Check(row.of, FAIL, f"{found}, above {_plain(limit)}×")
    seen = f"a difference below {interval.unseen(ratio):.0%} could not be seen"
    return Check(row.of, CANNOT_TELL, f"{found}, which does not decide about {_plain(limit)}×; {seen}", fix)


def _plain(limit: Fraction) -> str:
    return f"{limit.numerator:,}" if limit.denominator == 1 else str(float(limit))
