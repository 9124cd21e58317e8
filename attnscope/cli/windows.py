"""`attnscope windows`: draws the partition, the cyclic shift, the mask and the relative positions."""

import inspect
import shlex
import sys
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from attnscope.attentions.swin.spec import SwinSpec
from attnscope.cli.flags import PICTURES, examples, flag_of, give_flags, integer, option, place
from attnscope.cli.output import ColorFlag, FormFlag, JsonFlag, OutputFlag, QuietFlag, WideFlag, check_output, write

if TYPE_CHECKING:
    from attnscope.core.sizes import Pair

EXAMPLES = (
    "attnscope windows --resolution 14 --window 7 --shift",
    "attnscope windows --resolution 28 --shift --token 5,9 --layers 4",
    "attnscope windows --window 2x3 --positions",
    "attnscope windows --shift -o windows.svg",
)
SPEC_FIELDS = ("resolution", "window", "shift", "shift_size", "batch")
RESOLUTION = "14"
"""The default grid size; a grid of this size fits any screen, token by token."""


def windows_command(app: typer.Typer) -> None:
    """Add the command to the app."""

    def command(**flags: Any) -> None:
        values = {name: flags.pop(name) for name in SPEC_FIELDS}
        run_windows(SwinSpec(**values), **flags)

    declared = {field.name: flag_of(field) for field in fields(SwinSpec)}
    declared["resolution"] = declared["resolution"].replace(default=RESOLUTION)
    shared = list(inspect.signature(run_windows).parameters.values())[1:]
    give_flags(command, [*(declared[name] for name in SPEC_FIELDS), *shared])
    app.command("windows", help=run_windows.__doc__, epilog=examples(EXAMPLES))(command)


def run_windows(
    spec: SwinSpec,
    token: Annotated[
        str | None,
        option(
            group=PICTURES,
            callback=place("token"),
            metavar="ROW,COLUMN",
            help="Show the tokens that the token at this place (from 0,0) attends to.",
        ),
    ] = None,
    layers: Annotated[
        int | None,
        option(
            group=PICTURES,
            callback=integer("layers"),
            metavar="N",
            help="Also show its receptive field after up to N layers.",
        ),
    ] = None,
    positions: Annotated[bool, option("--positions", group=PICTURES, help="Show the relative position index.")] = False,
    order: Annotated[
        bool, option("--order", group=PICTURES, help="Show how the rows of the window batch map to the images.")
    ] = False,
    form: FormFlag = None,
    json: JsonFlag = False,
    output: OutputFlag = None,
    color: ColorFlag = "auto",
    quiet: QuietFlag = False,
    wide: WideFlag = False,
) -> None:
    """Draw the windows of a grid of tokens: the partition, the cyclic shift and the mask."""
    form = check_output(form, json, output, color)
    from attnscope.analyses.windows import look_at_windows

    report = look_at_windows(
        spec,
        token=cast("Pair | None", token),  # typer reads a pair from two arguments; this is one
        layers=layers,
        positions=positions,
        order=order,
        command=shlex.join(["attnscope", *sys.argv[1:]]),
    )
    from attnscope.render.windows import render_windows

    write(lambda screen: render_windows(report, form, screen), output, color, quiet, wide)
