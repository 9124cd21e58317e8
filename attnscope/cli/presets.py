"""`attnscope presets`: lists the published networks that --preset accepts."""

import typer

from attnscope.cli.flags import examples
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
from attnscope.networks.presets import presets


def presets_command(app: typer.Typer) -> None:
    """Add `attnscope presets` to the app."""
    app.command(
        "presets",
        epilog=examples(("attnscope presets", "attnscope presets --format csv")),
    )(list_presets)


def list_presets(
    form: TextFormFlag = None,
    json: JsonFlag = False,
    output: OutputFlag = None,
    color: ColorFlag = "auto",
    quiet: QuietFlag = False,
    wide: WideFlag = False,
) -> None:
    """List the published networks that --preset accepts, with their parameters and MACs."""
    form = check_output(form, json, output, color, TEXT_FORMS)
    from attnscope.render.presets import render_presets

    found = presets()
    write(or_page(form, lambda screen: render_presets(found, form, screen), found), output, color, quiet, wide)
