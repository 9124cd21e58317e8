"""The command of each attention; its flags are derived from the fields of its Spec."""

import dataclasses
import inspect
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field
from pathlib import Path
from typing import Annotated, Any

import typer

from attnscope import attentions, networks
from attnscope.attentions.spec import Spec, own_fields, own_fields_first
from attnscope.cli.extension import OTHERS, typed
from attnscope.cli.flags import (
    ATTENTION,
    BY_PRESET,
    MEASURE,
    NETWORK,
    OUTPUT,
    RUN,
    choices,
    examples,
    file,
    flag_of,
    give_flags,
    is_typed,
    key_of,
    option,
    strength,
)
from attnscope.cli.gate import exit_by
from attnscope.cli.messages import say_findings
from attnscope.cli.output import (
    ColorFlag,
    DetailsFlag,
    ExplainFlag,
    FormFlag,
    JsonFlag,
    OutputFlag,
    QuietFlag,
    WideFlag,
    check_file,
    check_output,
    write,
)
from attnscope.cli.progress import progress_line
from attnscope.cli.running import (
    AllocFlag,
    DeviceFlag,
    InputGradFlag,
    LimitFlag,
    ProcessesFlag,
    SeedFlag,
    ThreadsFlag,
    UntilFlag,
    check_allocator,
    exit_on_faults,
    start_torch,
)
from attnscope.cli.without_effect import warn
from attnscope.core.errors import UsageError
from attnscope.core.windows import Windows


def _preset_names(context: typer.Context) -> list[str]:
    """Return the completions of --preset: the presets of the command."""
    from attnscope.networks import configs

    return configs.suiting(lambda tables: context.info_name in tables)


def _preset(context: typer.Context, name: str | None) -> str | None:
    """Set the preset's values as defaults. Flags, the environment and the config file override them."""
    if name is not None:
        from attnscope.networks import configs

        _defaults(context, lambda command, keys: configs.read_preset(name, command, keys), weak=True)
    return name


def _config(context: typer.Context, name: str | None) -> Path | None:
    """Set the config file's values as defaults. Flags and the environment override them."""
    path = file(name)
    if path is not None:
        from attnscope.networks import configs

        _defaults(context, lambda command, keys: configs.read_config(path, command, keys), weak=False)
    return path


def _defaults(context: typer.Context, read: Callable[[str, list[str]], dict[str, Any]], weak: bool) -> None:
    if context.resilient_parsing:
        return
    names = {key: str(param.name) for param in context.command.params if (key := key_of(param.opts))}
    values = {names[key]: value for key, value in read(str(context.info_name), list(names)).items()}
    before = dict(context.default_map or {})
    of_preset = context.meta.get(BY_PRESET, set())
    context.meta[BY_PRESET] = values.keys() - before.keys() if weak else of_preset - values.keys()
    context.default_map = {**values, **before} if weak else {**before, **values}


PresetFlag = Annotated[
    str | None,
    option(
        group=NETWORK,
        metavar="NAME",
        autocompletion=_preset_names,
        help="Use the options of a published network (see attnscope presets); flags override them.",
        callback=_preset,
        is_eager=True,
    ),
]
ConfigFlag = Annotated[
    Path | None,
    option(
        group=RUN,
        metavar="FILE",
        help="Read options from a TOML config file; flags override them.",
        callback=_config,
        is_eager=True,
    ),
]


def _scope_flag(scopes: Sequence[str]) -> inspect.Parameter:
    """Return the flag --scope of a command with these scopes."""
    declared = option(group=NETWORK, **choices(scopes), help=f"Scope to explore: {', '.join(scopes)}.")
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter("scope", kind, default="attention", annotation=Annotated[str, declared])


def attention_command(app: typer.Typer, name: str, run: Callable[..., None] | None = None) -> None:
    """Add the command of an attention to the app.

    Args:
        app: the app.
        name: name of the attention.
        run: a function of a Spec and of flags, from whose signature the other flags are derived; `run_attention` by
            default.
    """
    run = run or run_attention
    spec_class = attentions.spec_class(name)
    fields, scopes = _fields(name), networks.scopes(name)

    def command(typer_context: typer.Context, **flags: Any) -> None:
        scope = flags.pop("scope") if len(scopes) > 1 else "attention"
        values = {field.name: flags.pop(field.name) for field in fields}
        given = {field: value for field, value in values.items() if strength(typer_context, field)}
        if flags.get("explained") is not None:  # a figure of a preset is one of the whole network, and needs no times
            if flags.get("preset") is not None and not strength(typer_context, "scope"):
                scope = "model"
            flags["time"] = flags["time"] and bool(strength(typer_context, "time"))
        for pair in spec_class.contradictions(given):
            weaker, stronger = sorted(pair, key=lambda field: strength(typer_context, field))
            if strength(typer_context, weaker) < strength(typer_context, stronger):
                given.pop(weaker, None)
        spec = networks.asked(name, given, scope)
        run(spec, **flags)
        for field, needed in networks.without_effect(name, given, scope).items():
            if is_typed(typer_context, field):
                warn(f"{{{field}}} has no effect with {{scope}} {scope}; it needs {needed}")

    of_attention = own_fields(spec_class)
    own = [flag_of(field, ATTENTION if field.name in of_attention else NETWORK) for field in fields]
    context = inspect.Parameter("typer_context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    preset, *others = list(inspect.signature(run).parameters.values())[1:]
    scope = [_scope_flag(scopes)] if len(scopes) > 1 else []
    of_networks = [*scope, preset] if "model" in scopes else scope  # all presets are networks
    give_flags(command, [context, *of_networks, *own, *others], [spec_class])
    summary = " ".join((spec_class.__doc__ or "").split("\n\n")[0].split())
    app.command(name, help=summary, epilog=examples(map(typed, spec_class.EXAMPLES)))(command)


def _fields(name: str) -> list[Field[Any]]:
    """Return the fields that are flags: of the attention, of networks built from it, then of all attentions."""
    fields = {field.name: field for field in own_fields_first(attentions.spec_class(name))}
    if len(networks.scopes(name)) == 1:
        return list(fields.values())
    common = {field.name for field in dataclasses.fields(Spec)}
    of_networks = [field for field in own_fields_first(networks.spec_class(name)) if field.name != "scope"]
    of_all_networks = {field.name for field in dataclasses.fields(networks.NetworkSpec)}
    of_networks.sort(key=lambda field: (not field.metadata.get("selects"), field.name in of_all_networks))
    others = {field.name: field for field in of_networks if field.name not in fields}
    own = {field: fields[field] for field in fields if field not in common}
    return list({**own, **others, **fields}.values())


def run_attention(
    spec: Spec,
    preset: PresetFlag = None,
    device: DeviceFlag = "auto",
    threads: ThreadsFlag = 1,
    seed: SeedFlag = 0,
    alloc: AllocFlag = "pinned",
    config: ConfigFlag = None,
    time: Annotated[
        bool, option("--time/--no-time", group=MEASURE, help="Measure times, or report shapes and costs only.")
    ] = True,
    backward: Annotated[
        bool,
        option("--backward", group=MEASURE, help="Also count and time the backward of each step."),
    ] = False,
    memory: Annotated[
        bool,
        option(
            "--memory",
            group=MEASURE,
            help="Show the peak activation memory of each step, in inference and in training.",
        ),
    ] = False,
    kernels: Annotated[
        bool,
        option(
            "--kernels",
            group=MEASURE,
            help="Compare all kernels that run here: their times, and their errors against float64.",
        ),
    ] = False,
    roofline: Annotated[
        bool, option("--roofline", group=MEASURE, help="Plot the steps against the roofline of this machine.")
    ] = False,
    budget: LimitFlag = None,
    processes: ProcessesFlag = 1,
    until: UntilFlag = None,
    strict: Annotated[
        bool,
        option(
            "--strict",
            group=MEASURE,
            help="Exit with code 1 if counts disagree, times are noisy or another warning is raised.",
        ),
    ] = False,
    maximum: Annotated[
        str | None,
        option(
            "--max",
            group=MEASURE,
            metavar="LIMITS",
            help="Exit with code 1 if an exact count is above its limit, such as macs=5G,params=30M.",
        ),
    ] = None,
    audit: Annotated[
        bool, option("--audit", group=MEASURE, help="Also count MACs with torch's FlopCounterMode.")
    ] = False,
    explained: Annotated[
        str | None,
        option(
            "--explain-figure",
            group=OUTPUT,
            metavar="FIGURE",
            help="Find the counting convention of a figure that a paper or tool prints, such as 3.13G.",
        ),
    ] = None,
    input_grad: InputGradFlag = True,
    form: FormFlag = None,
    json: JsonFlag = False,
    output: OutputFlag = None,
    save: Annotated[
        Path | None,
        option(
            group=OUTPUT,
            metavar="FILE",
            help="Also save the run to this file as JSON, for attnscope diff.",
            callback=file,
        ),
    ] = None,
    details: DetailsFlag = False,
    explain: ExplainFlag = False,
    picture: Annotated[bool, option("--picture", group=OUTPUT, help="Draw the windows below the table.")] = False,
    color: ColorFlag = "auto",
    quiet: QuietFlag = False,
    wide: WideFlag = False,
) -> None:
    """Run the command of an attention: explore a Spec and print the report."""
    from attnscope.analyses.gate import gate_single, read_sizes

    form = check_output(form, json, output, color)
    check_file("save", save)
    limits = read_sizes(maximum) if maximum is not None else None
    grid = windows_of(spec) if picture else None
    check_allocator(alloc)
    for name, wanted in {"kernels": kernels, "roofline": roofline}.items():
        if wanted and (device == "meta" or not time):
            reason = "{device} meta computes nothing" if device == "meta" else "{no_time} disables them"
            raise UsageError(f"{{{name}}} requires times, but {reason}; remove one of them")
    shown = {"memory": memory, "roofline": roofline, "details": details, "explain": explain}
    if time or audit or device == "meta":
        start_torch(alloc)
    from attnscope.analyses.explore import explore

    figures: Sequence[Mapping[str, str]] = ()
    overridden: list[str] = []
    if preset is not None:
        from attnscope.networks.presets import overrides, published_figures

        figures = published_figures(preset, spec)
        changed = ", ".join(overrides(preset, spec))
        overridden = [f"preset {preset}, with {changed}"] if changed else []
    with progress_line() as progress:
        report = explore(
            spec,
            device=device,
            time=time,
            budget=budget,
            threads=threads,
            seed=seed,
            audit=audit,
            backward=backward,
            input_grad=input_grad,
            kernels=kernels,
            processes=processes,
            until=until,
            focus=[name for name, wanted in shown.items() if wanted],
            progress=progress,
            command=shlex.join(["attnscope", *sys.argv[1:]]),
            figures=figures,
            figure=explained,
        )
    from attnscope.render import findings_of, render

    command, why = report.next
    report = dataclasses.replace(
        report,
        next=(typed(command + _run_flags(command, device, time)), why),
        gate=None if limits is None else gate_single(report, limits),
    )
    report.notes[:0] = overridden
    try:
        if save is not None:
            write(lambda screen: render(report, "json", screen), save, color, quiet, wide)
    finally:  # print the report even if the file cannot be written
        write(lambda screen: render(report, form, screen, grid), output, color, quiet, wide)
    say_findings(form, *findings_of(report))
    if report.gate is not None:
        exit_by(report.gate, None, is_table=form == "table" and output is None)
    if strict:
        exit_on_faults(
            {
                "the counts disagree": not report.audit.agree,
                "there are warnings": bool(report.warnings),
            }
        )


def _run_flags(command: str, device: str, time: bool) -> str:
    """Return --device and --no-time as in this run, for the suggested command. Without them, it may not fit in memory."""
    if command.split()[1] in OTHERS:
        return ""
    return (f" --device {device}" if device != "auto" else "") + ("" if time else " --no-time")


def windows_of(spec: Spec) -> Windows:
    """Return the windows that --picture draws.

    Raises:
        UsageError: if the attention has no windows, or if the stages of a network have different ones.
    """
    drawn = spec.neighbourhood
    if not isinstance(drawn, Windows):
        raise UsageError(f"{{picture}} requires windows, but {spec.title} has none; use attnscope swin")
    if isinstance(spec, networks.ComposedSpec) and spec.is_whole:
        raise UsageError(f"{{picture}} requires a single stage (got a whole {spec.title}); add {{stage}}")
    return drawn
