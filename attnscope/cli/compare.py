"""`attnscope compare`: compares the costs of attentions, by formula and by measurement."""

import inspect
import shlex
import sys
from dataclasses import Field
from typing import Annotated, Any

import typer

from attnscope import attentions
from attnscope.analyses.compare import QUANTITIES, on_paper
from attnscope.analyses.contenders import (
    CONTENDERS,
    DEFAULT_PATCH,
    DEFAULT_RESOLUTION,
    DEFAULTS,
    GRID_FIELDS,
    IMAGE,
    PATCH,
    RESOLUTION,
    arrange,
)
from attnscope.analyses.suggestion import suggest
from attnscope.attentions.spec import kind, own_fields_first
from attnscope.attentions.spec import option as option_field
from attnscope.cli.extension import OTHERS, typed, typed_again
from attnscope.cli.flags import COMPARISON, MEASURE, Needs, choices, examples, flag_of, give_flags, option
from attnscope.cli.output import FLAGS as OUTPUT_FLAGS
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
from attnscope.cli.running import (
    AllocFlag,
    BudgetFlag,
    DeviceFlag,
    SeedFlag,
    ThreadsFlag,
    check_allocator,
    exit_on_faults,
    start_torch,
)
from attnscope.core.errors import UsageError
from attnscope.core.ranges import read_over
from attnscope.core.sizes import spell_sides
from attnscope.networks.presets import names_with_stages, read_stages
from attnscope.profiling.options import BUDGET_S

EXAMPLES = (
    "attnscope compare",
    "attnscope compare vit swin --over resolution=14:224:2x",
    "attnscope compare vit swin:window=7 swin:window=14 --over resolution=14:112:14",
    "attnscope compare vit swin --over window=4,7,8,14,16",
    "attnscope compare --over resolution=7:56:7 --time",
    "attnscope compare --stages",
)


def compare_command(app: typer.Typer) -> None:
    """Add the command to the app, with its own flags and a flag for each field of the attentions."""

    def command(context: typer.Context, names: list[str] | None, **flags: Any) -> None:
        settings = {name: flags.pop(name) for name in fields}
        again = typed_again(context, without=(*OUTPUT_FLAGS, "time"))
        run_comparison(names or list(CONTENDERS), settings, again, **flags)

    fields = {declared.name: declared for declared in shared_fields()}
    own = list(inspect.signature(run_comparison).parameters.values())[3:]
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    names = inspect.Parameter(
        "names", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None,
        annotation=Annotated[
            list[str] | None,
            typer.Argument(
                metavar="ATTENTION", show_default=False, autocompletion=attentions.names,
                help=f"Two or more of {', '.join(attentions.names())}; options follow a colon: swin:window=14,shift. "
                f"The first is the baseline. Default: {' '.join(CONTENDERS)}.",
            ),
        ],
    )  # fmt: skip
    specs = map(attentions.spec_class, attentions.names())
    give_flags(command, [context, names, *own[:3], *map(flag_of, fields.values()), *own[3:]], specs)
    app.command("compare", help=OTHERS["compare"][1], epilog=examples(EXAMPLES))(command)


def run_comparison(
    names: list[str],
    settings: dict[str, Any],
    again: str,
    over: Annotated[
        list[str] | None,
        option(
            group=COMPARISON,
            metavar="FIELD=RANGE",
            help="Vary a size: 14:224:2x, 14:56:7 or 4,7,8. Repeat the flag to vary two.",
        ),
    ] = None,
    stages: Annotated[
        bool, option("--stages", group=COMPARISON, help="Compare at each stage of Swin-T, or of the preset.")
    ] = False,
    quantity: Annotated[
        str, option(group=COMPARISON, **choices(QUANTITIES), help=f"Quantity to compare: {', '.join(QUANTITIES)}.")
    ] = "macs",
    pad: Annotated[
        bool,
        option("--pad/--no-pad", group=COMPARISON, help="Pad grids to whole windows, or skip grids that need padding."),
    ] = True,
    preset: Annotated[
        str | None,
        option(
            group=COMPARISON,
            metavar="NAME",
            autocompletion=names_with_stages,
            help="Compare at each stage of this published network.",
        ),
    ] = None,
    time: Annotated[bool, option("--time", group=MEASURE, help="Also measure times, and find the crossovers.")] = False,
    device: Annotated[DeviceFlag, Needs("time")] = "auto",
    budget: BudgetFlag = BUDGET_S,
    threads: Annotated[ThreadsFlag, Needs("time")] = 1,
    seed: Annotated[SeedFlag, Needs("time")] = 0,
    alloc: Annotated[AllocFlag, Needs("time")] = "pinned",
    strict: Annotated[
        bool,
        option("--strict", group=MEASURE, help="Exit with code 1 if times are noisy or another warning is raised."),
    ] = False,
    form: FormFlag = None,
    json: JsonFlag = False,
    output: OutputFlag = None,
    color: ColorFlag = "auto",
    quiet: QuietFlag = False,
    wide: WideFlag = False,
) -> None:
    """Compare the attentions, measure them if --time is given, and print the comparison."""
    form = check_output(form, json, output, color)
    check_allocator(alloc)
    chosen = read_stages(preset) if stages or preset is not None else ()
    meeting = arrange(names, _ranges(over or []), settings, chosen, pad)
    comparison = on_paper(meeting, quantity, shlex.join(["attnscope", *sys.argv[1:]]))
    if time:
        from attnscope.analyses.timed_comparison import check_race, race

        check_race(device, budget, threads, seed)
        try:
            start_torch(alloc)
            from attnscope.render.progress import progress_bar

            with progress_bar(quiet) as progress:
                race(comparison, meeting, device=device, budget=budget, threads=threads, seed=seed, progress=progress)
        except KeyboardInterrupt:
            comparison.interrupted = True
    command, why = suggest(comparison, meeting, again, time)
    comparison.next = typed(command), why
    if form == "json":
        write(lambda screen: comparison.to_json() + "\n", output, color, quiet)
    else:
        from attnscope.render.compare import render_comparison

        drawn = or_page(form, lambda screen: render_comparison(comparison, form, screen), comparison)
        write(drawn, output, color, quiet, wide)
    if comparison.interrupted:
        raise typer.Exit(130)
    if strict:
        exit_on_faults({"there are warnings": bool(comparison.warnings)})
    if not comparison.agree:
        raise typer.Exit(1)


def _ranges(over: list[str]) -> dict[str, list[int]]:
    ranges: dict[str, list[int]] = {}
    for text in over:
        name, values = read_over(text)
        if name in ranges:
            raise UsageError(
                f"{{over}} must vary different fields (got {name} twice); use one list: {name}=4,7,14:56:14"
            )
        ranges[name] = values
    return ranges


def shared_fields() -> list[Field[Any]]:
    """Return the fields of all attentions, each once and without a default, as flags that apply to all contenders.

    Fields of type float (scales, dropout) do not change any cost and are not included. The help of a field is that of
    the first attention that has it; those that are compared by default come first.
    """
    declared: dict[str, Field[Any]] = {}
    by_default = [contender.partition(":")[0] for contender in CONTENDERS]
    for name in dict.fromkeys([*by_default, *attentions.names()]):
        for own in own_fields_first(attentions.spec_class(name)):
            if kind(own) is not float and (own.name in (RESOLUTION, IMAGE, PATCH) or own.name not in GRID_FIELDS):
                declared.setdefault(own.name, own)
    return [_optional(name, original) for name, original in declared.items()]


def _optional(name: str, original: Field[Any]) -> Field[Any]:
    """Return a copy of a field with the default None, which shows whether a value is given."""
    optional: Field[Any] = option_field(None, **{**original.metadata, "shown": _shown(name, original)})
    optional.name, optional.type = name, kind(original) | None
    return optional


def _shown(name: str, original: Field[Any]) -> str:
    """Return the default of a field as help shows it."""
    of_grid = {IMAGE: "56 to 1792 px", PATCH: str(DEFAULT_PATCH), RESOLUTION: str(DEFAULT_RESOLUTION)}
    default = of_grid.get(name, original.metadata.get("shown", DEFAULTS.get(name, original.default)))
    if isinstance(default, bool):
        return ("" if default else "no-") + name.replace("_", "-")
    return spell_sides(default, "x") if isinstance(default, tuple) else str(default)
