"""Loading of saved runs: JSON -> Report."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from attnscope.core.errors import UsageError, literal
from attnscope.core.files import text_of
from attnscope.reports.report import SCHEMA, Report, StepTime, Time, TraceReport


def read_report(path: Path) -> Report:
    """Read the Report in a file that `--save` or `--json` wrote.

    Raises:
        UsageError: the file cannot be read, or does not contain a run.
    """
    return parse_report(text_of(path, literal(path)), literal(path))


def parse_trace(text: str) -> TraceReport:
    """Read the TraceReport in the JSON that `attnscope trace` of this version wrote."""
    from pydantic import TypeAdapter

    return TypeAdapter(TraceReport).validate_json(text)


def parse_report(text: str, path: str) -> Report:
    """Read the Report in the JSON of a run.

    Args:
        text: the JSON.
        path: the name of its file for errors, with its braces escaped.

    Raises:
        UsageError: the text does not contain a run.
    """
    import json

    from pydantic import TypeAdapter, ValidationError

    try:
        data = json.loads(text, parse_constant=_refuse, parse_float=_float, parse_int=_integer)
    except (ValueError, RecursionError):
        raise UsageError(f"{path} is not a saved run: it is not valid JSON; write one with --save") from None
    except _RangeError as error:
        number = literal(_shortened(error))
        raise UsageError(
            f"{path} is not a saved run: numbers must be between {1 / LARGEST:g} and {LARGEST:g} "
            f"(got {number}); write one with --save"
        ) from None
    if not isinstance(data, dict) or "schema" not in data:
        raise UsageError(f"{path} is not a saved run: it has no schema; write one with --save")
    if data["schema"] != SCHEMA:
        got = literal(_shortened(json.dumps(data["schema"], ensure_ascii=False)))
        raise UsageError(f"{path} must have schema {SCHEMA} (got schema {got}); write it again with --save")
    if not _is_shallow(data):
        raise UsageError(f"{path} is not a saved run: it has over {DEEPEST} levels of values; write one with --save")
    if data.get("audit", {}) is None:
        raise UsageError(
            f"{path} is a trace of a module; only runs of an attention or a network can be compared; "
            "compare modules with attnscope compare OLD.py:NAME NEW.py:NAME, or attnscope trace --against REV"
        )
    try:
        report = TypeAdapter(Report).validate_json(json.dumps(_with_new_names(data)), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"{_shortened('.'.join(map(str, first['loc'])))}: {first['msg'].lower()}"
        raise UsageError(f"{path} is not a saved run: {literal(problem)}; write one with --save") from None
    negative = next(_negative_counts({name: data[name] for name in OF_COUNTS if name in data}), None)
    if negative:
        raise UsageError(f"{path} is not a saved run: {literal(negative)} must not be below 0; write one with --save")
    backward = report.backward.time if report.backward else None
    for time, steps in (
        (report.time, [row.time for row in report.steps]),
        (backward, [row.backward.time for row in report.steps if row.backward]),
    ):
        if time and min(_positive(time), default=1.0) <= 0:
            raise UsageError(f"{path} is not a saved run: times of the whole must be above 0; write one with --save")
        if time and not _is_whole(time, steps):
            raise UsageError(f"{path} is not a saved run: some of its runs are missing; write one with --save")
    return report


def _negative_counts(value: Any, place: str = "") -> Iterator[str]:
    """Yield the places of negative integers, such as `steps.0.macs`; those of times are not integers."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _negative_counts(item, f"{place}.{key}" if place else str(key))
    elif isinstance(value, int) and value < 0:
        yield _shortened(place)


def _is_whole(time: Time, steps: Sequence[StepTime | None]) -> bool:
    """Return whether yardsticks, steps and processes have a sample for each run; a file may have been edited."""
    numbers = {len(each.samples_s) for each in time.yardsticks}
    numbers |= {len(step.samples_s) for step in steps if step and step.yardstick}
    numbers |= {sum(time.process_runs)} if time.process_runs else set()
    return numbers <= {len(time.whole_samples_s)} and min(time.process_runs, default=1) > 0


def _positive(time: Time) -> list[float]:
    """Return the times that other times are divided by: those of the whole and of the yardsticks."""
    yardsticks = [second for each in time.yardsticks or () for second in (*each.samples_s, each.best_s)]
    return [time.whole_interquartile_mean_s, *time.whole_samples_s, *yardsticks]


OF_COUNTS = ("steps", "totals", "backward")
"""The parts of a saved run whose integers are counts, of which none is negative."""
DEEPEST, LONGEST = 32, 100
"""Levels of values in a saved run, which needs about ten, and characters of an integer and of a value in an error."""
LARGEST = 1e100
"""The largest number of a saved run. Its inverse is the smallest one above 0."""
RENAMED = {"median_s": "interquartile_mean_s", "whole_median_s": "whole_interquartile_mean_s"}
"""Keys of version 0.1 and the keys that replaced them."""


def _with_new_names(value: Any) -> Any:
    """Add the keys that a run of version 0.1 lacks."""
    if isinstance(value, list):
        return [_with_new_names(item) for item in value]
    if not isinstance(value, dict):
        return value
    named = {key: _with_new_names(item) for key, item in value.items()}
    return {new: named[old] for old, new in RENAMED.items() if old in named} | named


def _is_shallow(value: Any) -> bool:
    """Return whether a value has at most DEEPEST levels, so that no function that follows it to its end fails."""
    level = [value]
    for _ in range(DEEPEST):
        lists = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level = [item for items in lists for item in items]
    return not level


def _shortened(value: Any) -> str:
    """Return a value for an error, cut after LONGEST characters."""
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


class _RangeError(Exception):
    """An error for a number whose products and ratios with others may exceed a float."""


def _integer(text: str) -> int:
    if len(text) > LONGEST:
        raise _RangeError(text)
    return int(text)


def _float(text: str) -> float:
    number = float(text)
    if number and not 1 / LARGEST < abs(number) < LARGEST:
        raise _RangeError(text)
    return number


def _refuse(constant: str) -> None:
    """Refuse NaN and Infinity, which Python's parser accepts although JSON does not have them.

    Raises:
        ValueError: always.
    """
    raise ValueError(constant)
