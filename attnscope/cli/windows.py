"""`attnscope windows`: draws the keys of a query; for shifted windows also the partition, the shift and the mask."""

import inspect
import shlex
import sys
from dataclasses import Field
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from attnscope import attentions
from attnscope.attentions.spec import Spec, own_fields
from attnscope.attentions.spec import kind as spec_kind
from attnscope.attentions.spec import option as option_field
from attnscope.attentions.swin.spec import SwinSpec
from attnscope.cli.flags import (
    PICTURES,
    examples,
    flag_of,
    give_flags,
    is_typed,
    option,
    strength,
)
from attnscope.cli.output import (
    ColorFlag,
    FormFlag,
    JsonFlag,
    OutputFlag,
    QuietFlag,
    WideFlag,
    check_output,
    or_page,
    write,
)
from attnscope.core.errors import UsageError
from attnscope.core.reading import integer, place, sides
from attnscope.core.sizes import Pair

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = (
    "attnscope windows --resolution 14 --window 7 --shift",
    "attnscope windows --resolution 28 --shift --token 5,9 --layers 4",
    "attnscope windows --window 2x3 --positions",
    "attnscope windows nat --token 5,9 --dilation 2",
    "attnscope windows maxvit --grid",
    "attnscope windows --shift -o windows.svg",
)
DEFAULT = SwinSpec.name
"""The attention that is drawn by default."""
OF_WINDOWS = ("batch", "positions", "pretrained_window", "order")
"""Flags of the views that only shifted windows have."""
SMALLEST = 14
"""The smallest default grid size; a grid of this size fits any screen, token by token."""


def windows_command(app: typer.Typer) -> None:
    """Add the command to the app."""
    fields = pictured_fields()

    def command(typer_context: typer.Context, attention: str, **flags: Any) -> None:
        values = {name: flags.pop(name) for name in fields}
        kind = attentions.spec_class(attention)
        given = {name: value for name, value in values.items() if strength(typer_context, name)}
        if stranger := next((name for name in given if name not in own_fields(kind)), None):
            raise UsageError(f"{attention} does not have {{{stranger}}}; see attnscope {attention} --help")
        if issubclass(kind, SwinSpec):
            run_windows(kind(**given_or_default(kind, given)), **flags)
            return
        for name in OF_WINDOWS:
            if is_typed(typer_context, name):
                raise UsageError(f"{{{name}}} applies only to swin and swinv2 (got {attention}); leave it out")
        run_neighbourhood(
            kind(**given_or_default(kind, given)), **{k: v for k, v in flags.items() if k not in OF_WINDOWS}
        )

    context = inspect.Parameter("typer_context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    name = inspect.Parameter(
        "attention", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=DEFAULT,
        annotation=Annotated[
            str,
            typer.Argument(
                metavar="ATTENTION", show_default=DEFAULT, autocompletion=attentions.names,
                help=f"Attention to draw: {', '.join(drawable())}.",
            ),
        ],
    )  # fmt: skip
    own = [flag_of(_optional(field)) for field in fields.values()]
    shared = list(inspect.signature(run_windows).parameters.values())[1:]
    give_flags(command, [context, name, *own, *shared])
    app.command("windows", help=run_windows.__doc__, epilog=examples(EXAMPLES))(command)


def drawable() -> list[str]:
    """Return the attentions whose tokens are a grid, the default first."""
    kinds = {name: attentions.spec_class(name) for name in attentions.names()}
    names = [name for name, kind in kinds.items() if own_fields(kind)[kind.SIZE_FIELD].type == Pair]
    return sorted(names, key=lambda name: name != DEFAULT)


def pictured_fields() -> dict[str, Field[Any]]:
    """Return the fields on which a neighbourhood depends, of all attentions, each once."""
    found: dict[str, Field[Any]] = {}
    for name in drawable():
        kind = attentions.spec_class(name)
        for field in (kind.SIZE_FIELD, *kind.PICTURED):
            found.setdefault(field, own_fields(kind)[field])
    return {**found, "batch": own_fields(SwinSpec)["batch"]}


def _optional(field: Field[Any]) -> Field[Any]:
    """Return a copy of a field without a default, since attentions have different ones."""
    shown = f"{SMALLEST}, or 2 cells" if field.name == SwinSpec.SIZE_FIELD else field.metadata.get("shown", "its own")
    copied: Field[Any] = option_field(None, **{**field.metadata, "shown": shown})
    copied.name, copied.type = field.name, spec_kind(field) | None
    return copied


def given_or_default(kind: type[Spec], given: dict[str, Any]) -> dict[str, Any]:
    """Return the given values, with a grid that a screen shows token by token if no size is given.

    The grid has at least two cells on each axis, so that a picture shows more than one.
    """
    if kind.SIZE_FIELD in given or own_fields(kind)[kind.SIZE_FIELD].type != Pair:
        return given
    alignment = kind(**given).neighbourhood.alignment
    return {**given, kind.SIZE_FIELD: tuple(max(SMALLEST, 2 * cell) for cell in alignment)}


def run_neighbourhood(
    spec: Spec,
    token: str | None,
    layers: int | None,
    form: str | None,
    json: bool,
    output: "Path | None",
    color: str,
    quiet: bool,
    wide: bool,
) -> None:
    """Draw the keys of one query of any attention."""
    form = check_output(form, json, output, color)
    from attnscope.analyses.neighbourhood import look_at_neighbourhood

    report = look_at_neighbourhood(
        spec,
        token=cast("Pair | None", token),
        layers=layers,
        command=shlex.join(["attnscope", *sys.argv[1:]]),
    )
    from attnscope.render.neighbourhood import render_neighbourhood

    write(or_page(form, lambda screen: render_neighbourhood(report, form, screen), report), output, color, quiet, wide)


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
    pretrained_window: Annotated[
        str | None,
        option(
            group=PICTURES,
            callback=sides("pretrained_window", 2),
            metavar="N|HxW",
            help="Window size in pre-training, with --positions: Swin's resized bias table, and the distances of Swin V2.",
        ),
    ] = None,
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
    """Draw the tokens that a query attends to; for shifted windows also the partition, the shift and the mask."""
    form = check_output(form, json, output, color)
    from attnscope.analyses.windows import look_at_windows

    report = look_at_windows(
        spec,
        token=cast("Pair | None", token),  # typer reads a pair from two arguments; this is one
        layers=layers,
        positions=positions,
        order=order,
        pretrained_window=cast("Pair | None", pretrained_window),
        command=shlex.join(["attnscope", *sys.argv[1:]]),
    )
    from attnscope.render.windows import render_windows

    write(or_page(form, lambda screen: render_windows(report, form, screen), report), output, color, quiet, wide)
