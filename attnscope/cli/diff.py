"""`attnscope diff`: compares two saved runs, or runs both again in turn."""

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attnscope.cli.extension import typed
from attnscope.cli.flags import MEASURE, Needs, examples, file, option
from attnscope.cli.gate import AcrossFlag, CannotTellFlag, FailAboveFlag, exit_by, read_limits
from attnscope.cli.output import (
    TEXT_FORMS,
    ColorFlag,
    JsonFlag,
    OutputFlag,
    QuietFlag,
    TextFormFlag,
    WideFlag,
    check_output,
    or_page,
    write,
)
from attnscope.cli.progress import progress_line
from attnscope.cli.running import BUDGET, PROCESSES
from attnscope.core.errors import UsageError
from attnscope.profiling.fresh_processes import DEFAULT_PROCESSES, FEWEST_PROCESSES
from attnscope.profiling.options import BUDGET_S, check_arguments, check_processes

if TYPE_CHECKING:
    from attnscope.reports.diff import Diff
    from attnscope.reports.report import Report


def diff_command(app: typer.Typer) -> None:
    """Add `attnscope diff` to the app."""
    commands = (
        "attnscope vit --save a.json",
        "attnscope diff a.json b.json --fail-above 1.1",
        "attnscope diff --rerun a.json b.json",
    )
    app.command("diff", epilog=examples(commands))(show_diff)


def show_diff(
    before: Annotated[
        Path,
        typer.Argument(metavar="BEFORE", help="Baseline run, written by --save.", show_default=False, callback=file),
    ],
    after: Annotated[
        Path, typer.Argument(metavar="AFTER", help="New run, written by --save.", show_default=False, callback=file)
    ],
    rerun: Annotated[
        bool,
        option(
            "--rerun",
            group=MEASURE,
            help="Measure both again, in turn and in fresh processes: the strongest comparison of times.",
        ),
    ] = False,
    processes: Annotated[int, PROCESSES, Needs("rerun")] = DEFAULT_PROCESSES,
    budget: Annotated[float, BUDGET, Needs("rerun")] = BUDGET_S,
    fail_above: FailAboveFlag = None,
    cannot_tell: CannotTellFlag = None,
    across: AcrossFlag = False,
    form: TextFormFlag = None,
    json: JsonFlag = False,
    output: OutputFlag = None,
    color: ColorFlag = "auto",
    quiet: QuietFlag = False,
    wide: WideFlag = False,
) -> None:
    """Compare two saved runs: environment, exact costs, and the times of forward, backward and kernels.

    Each ratio of times has an interval. The verdict is faster or slower if it excludes 1, equal within a percentage if
    it is narrow, and otherwise cannot tell. The interval of saved runs holds on a host of constant speed; --rerun needs
    no such assumption.
    """
    form = check_output(form, json, output, color, TEXT_FORMS)
    limits = read_limits(fail_above, cannot_tell, across)
    check_processes(processes, FEWEST_PROCESSES)
    check_arguments("auto", budget)
    from attnscope.analyses.diff import compare, compare_in_turn
    from attnscope.analyses.gate import TIME, gate
    from attnscope.reports.loading import read_report

    runs = read_report(before), read_report(after)
    if rerun:
        rounds = _run_again(runs, (before, after), processes, budget)
        diff, runs = compare_in_turn(rounds), rounds[0]
    else:
        diff = compare(*runs)
    if limits is not None:
        if TIME in limits.limits and diff.whole.ratio is None:
            raise UsageError(f"{{fail_above}} {fail_above} requires times in both runs; save them without --no-time")
        diff = replace(diff, gate=gate(diff, *runs, limits))
    write_diff(diff, (before.name, after.name), cannot_tell, form, output, color, quiet, wide)


def write_diff(
    diff: "Diff",
    names: tuple[str, str],
    cannot_tell: str | None,
    form: str,
    output: Path | None,
    color: str,
    quiet: bool,
    wide: bool,
) -> None:
    """Write a comparison of two runs with these names, and exit with the code of its gate, if it has one."""
    from attnscope.render.diff import render_diff

    options = {"names": names, "command": shlex.join(["attnscope", *sys.argv[1:]])}
    drawn = or_page(form, lambda screen: render_diff(diff, names, form, screen), diff, **options)
    write(drawn, output, color, quiet, wide)
    if diff.gate is not None:
        exit_by(diff.gate, cannot_tell, is_table=form == "table" and output is None)


def _run_again(
    runs: "tuple[Report, Report]", paths: tuple[Path, Path], processes: int, budget: float
) -> "list[tuple[Report, Report]]":
    """Measure two saved runs again, in turn, and return the pairs of their reports.

    Raises:
        UsageError: a run cannot be repeated by this version, or not on this machine.
    """
    from attnscope.analyses.rerun import rerun_in_turn, words_of

    words = [
        shlex.split(typed(shlex.join(["attnscope", *words_of(run, path.name, budget)])))[1:]
        for run, path in zip(runs, paths, strict=True)
    ]
    with progress_line() as progress:
        return rerun_in_turn(runs, (paths[0].name, paths[1].name), (words[0], words[1]), processes, progress)
