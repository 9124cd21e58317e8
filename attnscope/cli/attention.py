"""One command for each attention, its flags derived from the fields of its Spec."""

import inspect
import shlex
import sys
from collections.abc import Callable
from dataclasses import Field
from pathlib import Path
from typing import Annotated, Any

import typer

from attnscope import attentions, configs
from attnscope.cli.output import ColorFlag, FormFlag, JsonFlag, OutputFlag, QuietFlag, check_output, write
from attnscope.errors import AttnscopeError, UsageError
from attnscope.exploring import BUDGET_S, DEVICES, explore
from attnscope.probes import process
from attnscope.render import render
from attnscope.spec import Pair, Spec, kind, own_fields_first, parse_pair

THE_SPEC = "What to look at"
THE_RUN = "How to run it"


def attention_command(app: typer.Typer, name: str) -> None:
    """Add the command of an attention to the app."""
    spec_class = attentions.spec_class(name)

    def command(context: typer.Context, **flags: Any) -> None:
        asked = {field.name: flags.pop(field.name) for field in own_fields_first(spec_class)}
        run_attention(spec_class(**asked), **flags)

    shared = list(inspect.signature(run_attention).parameters.values())[1:]
    own = [_flag(field) for field in own_fields_first(spec_class)]
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    parameters = [context, *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in [*own, *shared])]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    summary = (spec_class.__doc__ or "").split("\n\n")[0]
    app.command(name, help=summary, epilog=_examples(name))(command)


def run_attention(
    spec: Spec,
    preset: Annotated[
        str | None,
        typer.Option(help="A published network's values; flags override them.", callback=lambda context, name: _preset(context, name), is_eager=True),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="A TOML file's values; flags override them.", callback=lambda context, path: _config(context, path), is_eager=True),
    ] = None,
    device: Annotated[str, typer.Option(help=f"Where to run: {', '.join(DEVICES)}.")] = "auto",
    time: Annotated[bool, typer.Option("--time/--no-time", help="Run it and measure, or tell shapes and costs at once.")] = True,
    budget: Annotated[float, typer.Option(help="Seconds of measuring.")] = BUDGET_S,
    threads: Annotated[int, typer.Option(help="Processor threads; the times of one hold on a busy machine too.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the weights and of the input.")] = 0,
    alloc: Annotated[str, typer.Option(help="pinned keeps freed memory, for steady times; default leaves it to the system.")] = "pinned",
    audit: Annotated[bool, typer.Option("--audit", help="Count with torch's FlopCounterMode too.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 where counts disagree or times are in doubt.")] = False,
    form: FormFlag = None,
    json: JsonFlag = False,
    output: OutputFlag = None,
    color: ColorFlag = "auto",
    quiet: QuietFlag = False,
) -> None:
    """Explore a Spec and print what was found."""
    form = check_output(form, json, output, color)
    if alloc not in ("pinned", "default"):
        raise UsageError(f"{{alloc}} {alloc} is unknown; there is: pinned, default")
    if time or audit or device == "meta":
        if alloc == "pinned":
            process.pin_allocator()
        process.import_torch()
    report = explore(
        spec,
        device=device,
        time=time,
        budget=budget,
        threads=threads,
        seed=seed,
        audit=audit,
        command=shlex.join(["attnscope", *sys.argv[1:]]),
    )
    write(lambda screen: render(report, form, screen), output, color, quiet)
    if strict and (not report.audit.agree or report.warnings):
        raise typer.Exit(1)


def _flag(field: Field[Any]) -> inspect.Parameter:
    """The flag of a field."""
    base = kind(field)
    shown = field.metadata.get("shown")
    settings: dict[str, Any] = {"help": field.metadata["help"], "rich_help_panel": THE_SPEC}
    default = field.default
    if base == Pair:
        base = str
        settings |= {"metavar": "N|HxW", "callback": _parse_pair}
        default = None if default is None else "x".join(map(str, dict.fromkeys(default)))
    if shown is not None:
        settings["show_default"] = shown
    names = [f"--{field.name.replace('_', '-')}"]
    if base is bool:
        names = [f"{names[0]}/--no-{field.name.replace('_', '-')}"]
    annotation = Annotated[base | None if default is None else base, typer.Option(*names, **settings)]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _parse_pair(context: typer.Context, param: typer.CallbackParam, value: str | None) -> Pair | None:
    if value is None:
        return None
    try:
        return parse_pair(str(value))
    except ValueError:
        raise UsageError(f"{{{param.name}}} {value} is neither a whole number nor height x width, such as 56 or 56x48") from None


def _preset(context: typer.Context, name: str | None) -> str | None:
    """Let the preset's values stand where neither a flag, the environment nor the config file says otherwise."""
    if name is not None:
        _defaults(context, lambda command, known: configs.read_preset(name, command, known), weak=True)
    return name


def _config(context: typer.Context, path: Path | None) -> Path | None:
    """Let the file's values stand where neither a flag nor the environment says otherwise."""
    if path is not None:
        _defaults(context, lambda command, known: configs.read_config(path, command, known), weak=False)
    return path


def _defaults(context: typer.Context, read: Callable[[str, list[str]], dict[str, Any]], weak: bool) -> None:
    if context.resilient_parsing:
        return
    known = [str(param.name) for param in context.command.params]
    values, before = read(str(context.info_name), known), dict(context.default_map or {})
    context.default_map = {**values, **before} if weak else {**before, **values}


def _examples(name: str) -> str:
    examples = {
        "vit": ["attnscope vit --dim 768 --heads 12", "attnscope vit --image 384 --no-time", "attnscope vit --tokens 1024 --json"],
        "swin": ["attnscope swin --window 7 --shift", "attnscope swin --resolution 50x60 --window 8 --no-time"],
    }
    return "Examples: " + "; ".join(examples.get(name, [f"attnscope {name}"]))
