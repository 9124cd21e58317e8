"""`attnscope diff`: compares two saved runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attnscope.cli.flags import MEASURE, examples, file, number, option
from attnscope.cli.output import (
    TEXT_FORMS,
    ColorFlag,
    JsonFlag,
    OutputFlag,
    QuietFlag,
    TextFormFlag,
    WideFlag,
    check_output,
    write,
)
from attnscope.core.errors import UsageError

if TYPE_CHECKING:
    from attnscope.reports.diff import Diff


def diff_command(app: typer.Typer) -> None:
    """Add `attnscope diff` to the app."""
    app.command(
        "diff",
        epilog=examples(("attnscope vit --save a.json", "attnscope diff a.json b.json --fail-above 1.1")),
    )(show_diff)


def show_diff(
    before: Annotated[
        Path,
        typer.Argument(metavar="BEFORE", help="Baseline run, written by --save.", show_default=False, callback=file),
    ],
    after: Annotated[
        Path, typer.Argument(metavar="AFTER", help="New run, written by --save.", show_default=False, callback=file)
    ],
    fail_above: Annotated[
        float | None,
        option(
            group=MEASURE,
            callback=number("fail_above"),
            metavar="X",
            help="Exit with code 1 if forward or backward takes more than X times as long and the difference is real.",
        ),
    ] = None,
    form: TextFormFlag = None,
    json: JsonFlag = False,
    output: OutputFlag = None,
    color: ColorFlag = "auto",
    quiet: QuietFlag = False,
    wide: WideFlag = False,
) -> None:
    """Compare two saved runs: environment, exact costs, and the times of forward, backward and kernels.

    A difference is real if the interquartile ranges are further apart than those of the same run in two processes: by
    more than 2% of the whole, or 5% of a step. The verdict for a step is "cannot tell" if its change is at most the
    remainder of either run.
    """
    form = check_output(form, json, output, color, TEXT_FORMS)
    if fail_above is not None and fail_above <= 0:
        raise UsageError(f"{{fail_above}} must be above 0, such as 1.1 (got {fail_above:g})")
    from attnscope.analyses.diff import compare
    from attnscope.render.diff import render_diff
    from attnscope.reports.loading import read_report

    diff = compare(read_report(before), read_report(after))
    if fail_above is not None and diff.whole.ratio is None:
        raise UsageError(f"{{fail_above}} {fail_above:g} requires times in both runs; save them without --no-time")
    write(lambda screen: render_diff(diff, (before.name, after.name), form, screen), output, color, quiet, wide)
    if fail_above is not None:
        _fail_if_slower(diff, fail_above)


def _fail_if_slower(diff: "Diff", fail_above: float) -> None:
    """Exit with code 1 and the reason if forward or backward is slower than allowed; report a backward not checked."""
    slower = diff.slower(fail_above)
    for finding in slower:
        typer.echo(f"attnscope: {finding}, which is more than --fail-above {fail_above:g}", err=True)
    if diff.backward in diff.timed and diff.backward.ratio is None:
        typer.echo("attnscope: --fail-above does not check the backward: only one run has its time", err=True)
    if slower:
        raise typer.Exit(1)
