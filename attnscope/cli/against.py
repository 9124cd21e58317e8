"""`attnscope trace FILE.py:NAME --against REV`: flags -> the comparison of two revisions."""

import shlex
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from attnscope.cli.extension import typed_again
from attnscope.cli.flags import is_typed
from attnscope.cli.output import FLAGS as OUTPUT_FLAGS
from attnscope.cli.progress import progress_line
from attnscope.cli.without_effect import warn
from attnscope.core.errors import UsageError, literal

if TYPE_CHECKING:
    from attnscope.analyses.gate import Limits
    from attnscope.reports.diff import Diff

OF_A_TRACE = ("group", "depth", "everything", "sort", "top", "strict", "details", "explain", "explained")
"""Flags that choose the rows of a single trace or judge it, which a comparison of two does not have."""
OF_COMPARISON = ("module", "against", "processes", "fail_above", "cannot_tell", "across", "time")


def compare_traces(
    context: typer.Context, module: str, revision: str, time: bool, processes: int, limits: "Limits | None"
) -> "tuple[Diff, tuple[str, str]]":
    """Compare a module of the user in a revision with that in the working tree.

    Args:
        context: the context of the trace command.
        module: the module as typed.
        revision: a branch, a tag or a commit.
        time: whether to measure times; without them, one process of each revision is enough.
        processes: the number of processes of each revision.
        limits: the limits of --fail-above, if any.

    Returns:
        The differences with the result of the limits, and the names of both revisions.

    Raises:
        UsageError: the module is not in a file, or the limits need times that are not measured.
        AttnscopeError: a revision cannot be traced.
    """
    from attnscope.analyses.against import compare_revisions
    from attnscope.analyses.gate import TIME, gate
    from attnscope.tracing.targets import file_of

    found = file_of(module)
    if found is None:
        raise UsageError(f"{{against}} requires a module of your repository, FILE.py:NAME (got {literal(module)})")
    if limits is not None and TIME in limits.limits and not time:
        raise UsageError("{fail_above} time requires times; remove --no-time, or limit counts only")
    for flag in OF_A_TRACE:
        if is_typed(context, flag):
            warn(f"{{{flag}}} has no effect with {{against}}; remove it")
    left_out = (*OUTPUT_FLAGS, *OF_A_TRACE, *OF_COMPARISON)
    words = [*shlex.split(typed_again(context, left_out))[1:], "--all", "--time" if time else "--no-time"]
    with progress_line() as progress:
        diff, runs, names = compare_revisions(
            module,
            *found,
            revision,
            words,
            processes if time else 1,
            without=_variables(context, left_out),
            progress=progress,
        )
    return diff if limits is None else replace(diff, gate=gate(diff, *runs, limits)), names


def _variables(context: typer.Context, names: Iterable[str]) -> list[str]:
    """Return the environment variables of the parameters with these names in Python."""
    params = {str(param.name): param for param in context.command.params}
    named = [params[name].envvar for name in names if name in params]
    start = f"{context.find_root().auto_envvar_prefix}_{context.info_name}"
    return [*filter(None, map(str, named)), *(f"{start}_{name}".upper() for name in names)]
