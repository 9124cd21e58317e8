"""`attnscope shard`: plans an attention on several ranks, and verifies the plan with the sharded module."""

import inspect
import shlex
import sys
from dataclasses import Field
from typing import Annotated, Any

import typer

from attnscope import attentions, networks
from attnscope.attentions.spec import Spec, own_fields, own_fields_first, reader_of
from attnscope.attentions.spec import kind as spec_kind
from attnscope.attentions.spec import option as option_field
from attnscope.cli.extension import OTHERS
from attnscope.cli.flags import COMPARISON, NETWORK, RUN, choices, examples, flag_of, give_flags, option, strength
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
from attnscope.cli.running import start_torch
from attnscope.core.errors import UsageError
from attnscope.core.sizes import abbreviate_sides, count_sides
from attnscope.networks import configs
from attnscope.plan.links import DEVICES, LINKS
from attnscope.plan.mesh import KINDS

EXAMPLES = (
    "attnscope shard vit --plan tp=4",
    "attnscope shard vit --plan ulysses=4 --link nvlink4,5us --peak h100",
    "attnscope shard swin --shift --plan windows=2x2",
    "attnscope shard --preset swin-t-224 --scope model --plan windows=4",
    "attnscope shard vit --plan ring=2 --verify",
)
OF_BLOCKS = ("stage", "block")
"""Fields of networks that choose a block."""
ITS_OWN = "its own"
"""The default of a flag for which attentions have different ones, as help shows it."""
SCOPE = Annotated[
    str,
    option(
        group=NETWORK,
        **choices(networks.SCOPES),
        help=f"Scope to shard: {', '.join(networks.SCOPES)}. Models are planned, and not run.",
    ),
]
PRESET = Annotated[
    str | None,
    option(
        group=NETWORK,
        metavar="NAME",
        autocompletion=configs.presets,
        help="Use the options of a published network (see attnscope presets); flags override them.",
    ),
]
DEFAULT = "vit"
"""The attention that is sharded by default."""


def shard_command(app: typer.Typer) -> None:
    """Add the command to the app, with a flag for each field of the attentions."""
    fields = all_fields()

    def command(typer_context: typer.Context, attention: str, **flags: Any) -> None:
        values = {name: flags.pop(name) for name in fields}
        of_preset: dict[str, Any] = {}
        if (preset := flags.pop("preset")) is not None:
            typed = attention if strength(typer_context, "attention") else None
            attention, of_preset = values_of(preset, typed)
        kind = attentions.spec_class(attention)
        given = {name: value for name, value in values.items() if strength(typer_context, name)}
        known = own_fields(networks.spec_class(attention) if attention in networks.names() else kind) | own_fields(kind)
        if stranger := next((name for name in given if name not in known), None):
            raise UsageError(f"{attention} does not have {{{stranger}}}; see attnscope {attention} --help")
        for name in given.keys() & several_sides():
            given[name] = reader_of(known[name])(given[name])
        scope = flags.pop("scope")
        run_shard(networks.asked(attention, {**of_preset, **given}, scope), scope != "model", **flags)

    context = inspect.Parameter("typer_context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    name = inspect.Parameter(
        "attention", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=DEFAULT,
        annotation=Annotated[
            str,
            typer.Argument(
                metavar="ATTENTION", show_default=DEFAULT, autocompletion=attentions.names,
                help=f"Attention to shard: {', '.join(attentions.names())}.",
            ),
        ],
    )  # fmt: skip
    plan, *shared = list(inspect.signature(run_shard).parameters.values())[2:]
    preset = inspect.Parameter("preset", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=PRESET)
    scope = inspect.Parameter("scope", inspect.Parameter.KEYWORD_ONLY, default="attention", annotation=SCOPE)
    give_flags(command, [context, name, plan, scope, preset, *map(any_flag_of, fields.values()), *shared])
    app.command("shard", help=OTHERS["shard"][1], epilog=examples(EXAMPLES))(command)


def values_of(preset: str, attention: str | None) -> tuple[str, dict[str, Any]]:
    """Return the attention of a preset, and the options in which its network differs from the defaults.

    Raises:
        UsageError: the preset is unknown, or of another attention than the one that was typed.
    """
    from attnscope.networks.presets import read_network

    spec = read_network(preset)
    if attention not in (None, spec.name):
        raise UsageError(
            f"{{preset}} {preset} is a network of {spec.name} (got {attention}); use attnscope shard {spec.name}"
        )
    defaults = own_fields(type(spec))
    values = {name: getattr(spec, name) for name in defaults if name not in ("scope", *OF_BLOCKS)}
    return spec.name, {name: value for name, value in values.items() if value != defaults[name].default}


def all_fields() -> dict[str, Field[Any]]:
    """Return the fields of all attentions, each once and without a default, since attentions have different ones."""
    found: dict[str, Field[Any]] = {}
    every = [declared for name in attentions.names() for declared in own_fields_first(attentions.spec_class(name))]
    defaults: dict[str, set[str]] = {}
    for declared in every:
        defaults.setdefault(declared.name, set()).add(declared.metadata.get("shown", ITS_OWN))
    for declared in every:
        if declared.name not in found or count_sides(spec_kind(declared)) == 2:  # an image, and not a video
            shared = defaults[declared.name]
            shown = ITS_OWN if len(shared) > 1 else next(iter(shared))
            copied: Field[Any] = option_field(None, **{**declared.metadata, "shown": shown})
            copied.name, copied.type = declared.name, spec_kind(declared) | None
            found[declared.name] = copied
    return found | {name: own_fields(networks.spec_class("swin"))[name] for name in OF_BLOCKS}


def several_sides() -> set[str]:
    """Return the fields that are a grid of two sides in some attentions, and of three in others, such as of a video."""
    counts: dict[str, set[int]] = {}
    for name in attentions.names():
        for declared in own_fields(attentions.spec_class(name)).values():
            if count := count_sides(spec_kind(declared)):
                counts.setdefault(declared.name, set()).add(count)
    return {name for name, found in counts.items() if len(found) > 1}


def any_flag_of(field: Field[Any]) -> inspect.Parameter:
    """Return the flag of a field; one that attentions have with different sides is read when the attention is known."""
    parameter = flag_of(field)
    if field.name in several_sides():
        settings = parameter.annotation.__metadata__[0]
        settings.callback, settings.metavar = None, f"{abbreviate_sides(2)}|{abbreviate_sides(3).removeprefix('N|')}"
    return parameter


def run_shard(
    spec: Spec,
    has_module: bool,
    plan: Annotated[
        str | None,
        option(
            group=COMPARISON,
            metavar="NAME=RANKS",
            help=f"What the ranks cut: {', '.join(KINDS)}, such as tp=4, windows=2x2 or tp=2,windows=2.",
            show_default="the one of 2 ranks, or of the fewest that are legal, that sends the fewest bytes",
        ),
    ] = None,
    link: Annotated[
        str | None,
        option(
            group=COMPARISON,
            metavar="RATE,LATENCY",
            help=f"Link between ranks: 50GB/s,5us, or one of {', '.join(LINKS)}.",
        ),
    ] = None,
    peak: Annotated[
        str | None,
        option(
            group=COMPARISON,
            metavar="FLOPS,RATE",
            help=f"Peak rates of a rank, for the roofline lower bound: 60TFLOPS,2TB/s, or {', '.join(DEVICES)}.",
        ),
    ] = None,
    backward: Annotated[
        bool, option("--backward", group=RUN, help="Also show the bytes that the backward sends.")
    ] = False,
    verify: Annotated[
        bool | None,
        option(
            "--verify/--no-verify",
            group=RUN,
            show_default="a fake process group",
            help="Run the sharded module on processes with gloo and compare its values with one device, or do not run it.",
        ),
    ] = None,
    form: TextFormFlag = None,
    json: JsonFlag = False,
    output: OutputFlag = None,
    color: ColorFlag = "auto",
    quiet: QuietFlag = False,
    wide: WideFlag = False,
) -> None:
    """Plan an attention on several ranks: local shapes, collectives, bytes sent, MACs and memory of each step."""
    form = check_output(form, json, output, color, TEXT_FORMS)
    from attnscope.analyses.shard import plan_shards, usual_plan
    from attnscope.plan.links import parse_device, parse_link
    from attnscope.render.sharding import render_sharding

    if verify and not has_module:
        raise UsageError(
            "{verify} runs attentions and blocks; models have no sharded module; use {scope} attention or block"
        )
    runs = has_module and verify is not False
    why_not = "" if has_module else "models have no sharded module"
    if runs:
        try:
            start_torch("pinned")
        except ModuleNotFoundError as error:
            if verify or error.name != "torch":
                raise
            runs, why_not = False, "torch is not installed"

    report = plan_shards(
        spec,
        usual_plan(spec) if plan is None else plan,
        link=None if link is None else parse_link(link),
        device=None if peak is None else parse_device(peak, spec.dtype),
        backward=backward,
        command=shlex.join(["attnscope", *sys.argv[1:]]),
    )
    if why_not:
        report.notes.append(f"not verified: {why_not}")
    if runs:
        from attnscope.analyses.shard_verification import verify_shards

        verify_shards(report, spec, on_processes=bool(verify))
    write(or_page(form, lambda screen: render_sharding(report, form, screen), report), output, color, quiet, wide)
    if report.verification is not None and not report.verification.agrees:
        raise typer.Exit(1)
