"""The last line and the exit code of a command with a gate."""

import sys

import typer

from attnscope.cli.help import encodable
from attnscope.reports.gate import CANNOT_TELL, EXIT_CODES, GateResult


def exit_by(result: GateResult, on_cannot_tell: int | None, is_table: bool) -> None:
    """Print the verdict of a gate as the last line, and exit with its code.

    Args:
        result: the verdict and its checks.
        on_cannot_tell: exit code if the gate cannot tell; None for its own.
        is_table: whether stdout has a table, to which the line belongs. Otherwise it is written to stderr.
    """
    stream = sys.stdout if is_table else sys.stderr
    print(encodable(result.line, stream), file=stream)
    code = EXIT_CODES[result.verdict]
    if result.verdict == CANNOT_TELL and on_cannot_tell is not None:
        code = on_cannot_tell
    if code:
        raise typer.Exit(code)
