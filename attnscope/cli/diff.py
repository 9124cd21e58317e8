"""`attnscope diff`: two saved runs beside each other."""

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
    before: Annotated[Path, typer.Argument(help="A run that --save wrote.", show_default=False, callback=file)],
    after: Annotated[Path, typer.Argument(help="Another one.", show_default=False, callback=file)],
    fail_above: Annotated[
        float | None,
        option(
            group=MEASURE,
            callback=number("fail_above"),
            metavar="X",
            help="Exit with 1 where forward or backward takes more than X times as long, and the difference is real.",
        ),
    ] = None,
    form: TextFormFlag = None,
    json: JsonFlag = False,
    output: OutputFlag = None,
    color: ColorFlag = "auto",
    quiet: QuietFlag = False,
    wide: WideFlag = False,
) -> None:
    """Tell what changed between two runs: environment, exact costs, and the times of forward, backward and kernels.

    There is no real difference if the middle halves of the samples overlap, or differ by no more than the same run does
    from process to process (2% of the whole, 5% of a step). "cannot tell" is a step that differs by no more than the steps
    and the whole disagree in either run.
    """
    form = check_output(form, json, output, color, TEXT_FORMS)
    if fail_above is not None and fail_above <= 0:
        raise UsageError(f"{{fail_above}} must be above 0, such as 1.1 (got {fail_above:g})")
    from attnscope.analyses.diff import compare
    from attnscope.render.diff import render_diff
    from attnscope.reports.loading import read_report

    diff = compare(read_report(before), read_report(after))
    if fail_above is not None and diff.whole.ratio is None:
        raise UsageError(f"{{fail_above}} {fail_above:g} needs times in both runs; save them without --no-time")
    write(lambda screen: render_diff(diff, (before.name, after.name), form, screen), output, color, quiet, wide)
    if fail_above is not None:
        hold(diff, fail_above)


def hold(diff: "Diff", fail_above: float) -> None:
    """Exit with 1, and say why, where forward or backward is slower than that; say also where one was not held."""
    slower = diff.slower(fail_above)
    for told in slower:
        typer.echo(f"attnscope: {told}, which is more than --fail-above {fail_above:g}", err=True)
    if diff.backward in diff.timed and diff.backward.ratio is None:
        typer.echo("attnscope: --fail-above does not check the backward: only one of the runs has timed it", err=True)
    if slower:
        raise typer.Exit(1)
