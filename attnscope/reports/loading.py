"""Saved runs: a Report read back from its JSON."""

from pathlib import Path

from attnscope.core.errors import UsageError
from attnscope.reports.report import SCHEMA, Report


def read_report(path: Path) -> Report:
    """The Report of a file that `--save` or `--json` wrote.

    Raises:
        UsageError: the file cannot be read, or is no run.
    """
    import json

    from pydantic import TypeAdapter, ValidationError

    try:
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{path} is no run: it is no JSON; --save writes one") from None
    if not isinstance(data, dict) or "schema" not in data:
        raise UsageError(f"{path} is no run: it names no schema; --save writes one")
    if data["schema"] != SCHEMA:
        raise UsageError(f"{path} is a run of schema {data['schema']}; this attnscope reads schema {SCHEMA}")
    try:
        return TypeAdapter(Report).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{path} is no run: {'.'.join(map(str, first['loc']))}: {first['msg'].lower()}") from None


def _refuse(constant: str) -> None:
    """Python reads NaN and Infinity, which are no JSON and which no run has."""
    raise ValueError(constant)
