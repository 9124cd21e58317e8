"""The user's module in a revision and in the working tree -> the reports of both, which took turns in fresh processes.

Does not import torch: the processes do.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from attnscope.analyses.diff import compare_in_turn
from attnscope.analyses.revision import Checkout, checked_out
from attnscope.core.errors import AttnscopeError, UsageError, literal
from attnscope.core.sizes import plural
from attnscope.profiling.fresh_processes import Command, Progress, run_in_turn
from attnscope.reports.diff import Diff
from attnscope.reports.loading import parse_trace
from attnscope.reports.report import TraceReport

WORKING_TREE = "working tree"
"""The name of the present revision."""


def compare_revisions(
    target: str,
    file: Path,
    attribute: str,
    revision: str,
    words: Sequence[str],
    processes: int,
    *,
    without: Sequence[str] = (),
    progress: Progress | None = None,
) -> tuple[Diff, tuple[TraceReport, TraceReport], tuple[str, str]]:
    """Trace a module in a revision and in the working tree, in turn and in fresh processes, and compare both.

    Args:
        target: the module as the user typed it, `FILE.py:NAME`.
        file: its file.
        attribute: its name in the file; "" for the only module of the file.
        revision: a branch, a tag or a commit of the repository of the file.
        words: the command line of `attnscope trace` without the module and the flags for the output.
        processes: the number of processes of each revision.
        without: environment variables that the processes do not get.
        progress: called with the current process and the fraction that is done.

    Returns:
        The differences, the first pair of reports, and the names of both revisions.

    Raises:
        UsageError: the file, the revision or the module in it does not exist, or an argument is not allowed.
        DeviceError: the device is not available, or the module does not fit in its memory.
        AttnscopeError: Git is missing or fails, or the module raises.
    """
    with checked_out(file, revision) as checkout:

        def command(name: str, path: Path, folder: Path, search_path: Sequence[str] | None) -> Command:
            there = f"{path}:{attribute}" if attribute else str(path)
            return Command(name, [*words, there], folder, search_path, without)

        before = command(revision, checkout.path_of(file), checkout.working_folder(), checkout.search_path())
        after = command(WORKING_TREE, file.absolute(), Path.cwd(), None)
        try:
            in_turn = run_in_turn((before, after), processes, progress)
            rounds = [_reports(texts, target, checkout) for texts in in_turn]
        except AttnscopeError as error:
            error.args = (checkout.spelled(str(error.args[0])),)
            raise
    diff = compare_in_turn(rounds)
    diff = replace(diff, doubts=[*_uncommitted(checkout), *diff.doubts])
    return diff, rounds[0], (f"{revision} ({checkout.commit})", WORKING_TREE)


def _reports(texts: tuple[str, str], target: str, checkout: Checkout) -> tuple[TraceReport, TraceReport]:
    """Return the reports of both revisions, which have the module under the same name.

    Raises:
        UsageError: the revision imports files of the working tree, so that its own are not compared.
    """
    before, after = map(parse_trace, texts)
    if foreign := checkout.foreign(before.imported):
        raise UsageError(
            f"{literal(target)} in {literal(checkout.revision)} imports {literal(foreign[0])} from the working tree; add "
            "the folder of that package to PYTHONPATH, so that each revision imports its own"
        )
    return _renamed(before, target, checkout), _renamed(after, target, checkout)


def _renamed(report: TraceReport, target: str, checkout: Checkout) -> TraceReport:
    warnings = [checkout.spelled(warning) for warning in report.warnings]
    return replace(report, spec={**report.spec, "module": target}, warnings=warnings)


def _uncommitted(checkout: Checkout) -> list[str]:
    """Return a warning if the working tree is not a revision that could be named."""
    if not checkout.changed:
        return []
    files = plural(checkout.changed, "file")
    return [
        f"the working tree has uncommitted changes in {files}, which the second run includes; commit them to name it"
    ]
