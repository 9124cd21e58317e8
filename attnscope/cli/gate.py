"""The flags of a gate on two runs, and the last line and the exit code of a command with a gate."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from attnscope.cli.flags import MEASURE, Needs, choices, option
from attnscope.cli.help import encodable
from attnscope.core.errors import UsageError, quoted
from attnscope.core.standard_output import results
from attnscope.core.text import visible
from attnscope.reports.gate import CANNOT_TELL, EXIT_CODES, GateResult

if TYPE_CHECKING:
    from attnscope.analyses.gate import Limits

ON_CANNOT_TELL = {"pass": 0, "fail": 1}
"""The exit codes of --cannot-tell."""

FailAboveFlag = Annotated[
    str | None,
    option(
        group=MEASURE,
        metavar="LIMITS",
        help="Exit with code 1 if the time grows by more than this factor, such as 1.1, and with 4 if the noise hides "
        "it. Counts have exact limits: macs=1,params=1,peak=1.02,time=1.1.",
    ),
]
CannotTellFlag = Annotated[
    str | None,
    option(
        group=MEASURE,
        **choices(ON_CANNOT_TELL),
        help="Exit code of --fail-above if it cannot tell: pass (0) or fail (1) instead of 4.",
    ),
    Needs("fail_above", is_gate=True),
]
AcrossFlag = Annotated[
    bool,
    option(
        "--across",
        group=MEASURE,
        help="Let --fail-above compare times although options, machine or torch differ.",
    ),
    Needs("fail_above"),
]


def read_limits(fail_above: str | None, cannot_tell: str | None, across: bool) -> "Limits | None":
    """Return the limits of --fail-above; None without it.

    Raises:
        UsageError: the limits or the value of --cannot-tell are not allowed.
    """
    from attnscope.analyses.gate import Limits, read_ratios

    limits = Limits(read_ratios(fail_above), across) if fail_above is not None else None
    if cannot_tell not in (None, *ON_CANNOT_TELL):
        raise UsageError(f"{{cannot_tell}} must be {' or '.join(ON_CANNOT_TELL)} (got {quoted(cannot_tell)})")
    return limits


def exit_by(result: GateResult, cannot_tell: str | None, is_table: bool) -> None:
    """Print the verdict of a gate as the last line, and exit with its code.

    Args:
        result: the verdict and its checks.
        cannot_tell: the value of --cannot-tell.
        is_table: whether stdout has a table, to which the line belongs. Otherwise it is written to stderr.
    """
    stream = results() if is_table else sys.stderr
    print(encodable(visible(result.line), stream), file=stream, flush=True)
    code = EXIT_CODES[result.verdict]
    if result.verdict == CANNOT_TELL:
        code = ON_CANNOT_TELL.get(cannot_tell or "", code)
    if code:
        raise typer.Exit(code)
