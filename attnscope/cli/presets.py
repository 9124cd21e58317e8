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
    write,
)
from attnscope.core.text import in_json
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
    found = presets()
    if form == "json":
        rows = [
            {
                "name": preset.name,
                "command": preset.command,
                "timm": preset.timm,
                "source": preset.source,
                "params": preset.params,
                "macs": preset.macs,
                "spec": preset.spec.as_dict(),
                "published": list(preset.published),
            }
            for preset in found
        ]
        write(lambda screen: in_json(rows) + "\n", output, color, quiet)
        return
    from attnscope.render.presets import render_presets

    write(lambda screen: render_presets(found, form, screen), output, color, quiet, wide)
