"""`attnscope presets`: lists the published networks that --preset accepts."""

import shlex
import sys
from typing import Annotated

import typer

from attnscope.cli.flags import OUTPUT, examples, option
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
from attnscope.core.conditions import read_sort, read_where, select
from attnscope.networks.presets import conditions, presets, value_of


def presets_command(app: typer.Typer) -> None:
    """Add `attnscope presets` to the app."""
    app.command(
        "presets",
        epilog=examples(
            ("attnscope presets", "attnscope presets --where 'macs<5G' --sort params", "attnscope presets --format csv")
        ),
    )(list_presets)


def list_presets(
    where: Annotated[
        str | None,
        option(
            group=OUTPUT,
            metavar="CONDITION",
            help="Show the presets for which a condition holds: 'command=vit and macs<5G'. Fields are name, command, timm, "
            "source, params, macs, and the options of networks, such as image and dim.",
        ),
    ] = None,
    sort: Annotated[
        str | None,
        option(
            group=OUTPUT, metavar="FIELD", help="Sort by a field, such as params or macs; -macs has the largest first."
        ),
    ] = None,
    form: TextFormFlag = None,
    json: JsonFlag = False,
    output: OutputFlag = None,
    color: ColorFlag = "auto",
    quiet: QuietFlag = False,
    wide: WideFlag = False,
) -> None:
    """List the published networks that --preset accepts, with their parameters and MACs."""
    form = check_output(form, json, output, color, TEXT_FORMS)
    found = presets()
    fields = conditions(found)
    chosen = read_where(where, fields) if where is not None else ()
    order = read_sort(sort, fields) if sort is not None else None
    found = select(found, value_of, chosen, order).rows
    from attnscope.render.presets import render_presets

    command = shlex.join(["attnscope", *sys.argv[1:]])
    drawn = or_page(form, lambda screen: render_presets(found, form, screen), found, command=command)
    write(drawn, output, color, quiet, wide)
