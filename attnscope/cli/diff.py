"""`attnscope diff`: compares two saved runs."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from attnscope.cli.flags import MEASURE, Needs, choices, examples, file, option
from attnscope.cli.gate import exit_by
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
from attnscope.core.errors import UsageError, quoted

ON_CANNOT_TELL = {"pass": 0, "fail": 1}
"""The exit codes of --cannot-tell."""


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
        str | None,
        option(
            group=MEASURE,
            metavar="LIMITS",
            help="Exit with code 1 if the time grows by more than this factor, such as 1.1, and with 4 if the noise hides "
            "it. Counts have exact limits: macs=1,params=1,peak=1.02,time=1.1.",
        ),
    ] = None,
    cannot_tell: Annotated[
        str | None,
        option(
            group=MEASURE,
            **choices(ON_CANNOT_TELL),
            help="Exit code of --fail-above if it cannot tell: pass (0) or fail (1) instead of 4.",
        ),
        Needs("fail_above"),
    ] = None,
    across: Annotated[
        bool,
        option(
            "--across",
            group=MEASURE,
            help="Let --fail-above compare times although options, machine or torch differ.",
        ),
        Needs("fail_above"),
    ] = False,
    form: TextFormFlag = None,
    json: JsonFlag = False,
    output: OutputFlag = None,
    color: ColorFlag = "auto",
    quiet: QuietFlag = False,
    wide: WideFlag = False,
) -> None:
    """Compare two saved runs: environment, exact costs, and the times of forward, backward and kernels.

    Each ratio of times has an interval. The verdict is faster or slower if it excludes 1, equal within a percentage if
    it is narrow, and otherwise cannot tell. The interval holds for runs of two processes on a host of the same speed.
    """
    form = check_output(form, json, output, color, TEXT_FORMS)
    from attnscope.analyses.gate import TIME, Limits, gate, read_ratios

    limits = Limits(read_ratios(fail_above), across) if fail_above is not None else None
    if cannot_tell not in (None, *ON_CANNOT_TELL):
        raise UsageError(f"{{cannot_tell}} must be {' or '.join(ON_CANNOT_TELL)} (got {quoted(cannot_tell)})")
    from attnscope.analyses.diff import compare
    from attnscope.render.diff import render_diff
    from attnscope.reports.loading import read_report

    runs = read_report(before), read_report(after)
    diff = compare(*runs)
    if limits is not None:
        if TIME in limits.limits and diff.whole.ratio is None:
            raise UsageError(f"{{fail_above}} {fail_above} requires times in both runs; save them without --no-time")
        diff = replace(diff, gate=gate(diff, *runs, limits))
    write(lambda screen: render_diff(diff, (before.name, after.name), form, screen), output, color, quiet, wide)
    if diff.gate is not None:
        exit_by(diff.gate, ON_CANNOT_TELL.get(cannot_tell or ""), is_table=form == "table" and output is None)
