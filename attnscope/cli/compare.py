"""`attnscope compare`: compares the costs of attentions, by formula and by measurement."""

import inspect
import shlex
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import Field, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attnscope import attentions
from attnscope.analyses.comparison import Race, Wanted, compare_candidates, compare_meeting
from attnscope.analyses.contenders import (
    CONTENDERS,
    DEFAULT_PATCH,
    DEFAULT_RESOLUTION,
    DEFAULTS,
    GRID_FIELDS,
    IMAGE,
    PATCH,
    RESOLUTION,
    Meeting,
    arrange,
)
from attnscope.analyses.fitting import read_limit, set_fits
from attnscope.analyses.quantities import QUANTITIES, bounds_of
from attnscope.analyses.ranks import RANKS, next_of_ranks, on_ranks, sharded_contenders
from attnscope.analyses.suggestion import suggest
from attnscope.attentions.spec import FRAMES, kind, own_fields_first
from attnscope.attentions.spec import option as option_field
from attnscope.cli.extension import OTHERS, typed, typed_again
from attnscope.cli.flags import (
    COMPARISON,
    MEASURE,
    MODULE,
    Needs,
    choices,
    examples,
    flag_of,
    give_flags,
    option,
)
from attnscope.cli.gate import CannotTellFlag, FailAboveFlag, exit_by, read_limits
from attnscope.cli.messages import say_findings
from attnscope.cli.modules import GATED, candidates, counts_of, is_module
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
from attnscope.cli.progress import progress_line
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
from attnscope.core.reading import integer
from attnscope.core.sizes import spell_sides
from attnscope.networks.configs import presets
from attnscope.networks.presets import names_with_stages, read_stages
from attnscope.plan.links import parse_device, parse_link
from attnscope.plan.mesh import KINDS
from attnscope.profiling.options import BUDGET_S

if TYPE_CHECKING:
    from attnscope.analyses.gate import Bounds, Limits
    from attnscope.analyses.timed_comparison import Progress
    from attnscope.reports.comparison import Comparison, Point

EXAMPLES = (
    "attnscope compare",
    "attnscope compare vit swin --over resolution=14:224:2x",
    "attnscope compare vit swin:window=7 swin:window=14 --over resolution=14:112:14",
    "attnscope compare vit swin --over window=4,7,8,14,16",
    "attnscope compare --over resolution=7:56:7 --time",
    "attnscope compare --stages",
    "attnscope compare vit-b-16-224 swin-b-224 --over image=224:1024:32",
    "attnscope compare vit --over ranks=2:16:2x --link nvlink4,5us --peak h100",
    "attnscope compare old.py:Attention new.py:Attention --input 1,197,768 --time --fail-above 1.1",
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
                metavar="CONTENDER", show_default=False, autocompletion=contender_names,
                help=f"Two or more of {', '.join(attentions.names())}; or presets of networks; "
                "or modules FILE.py:NAME, as in trace. "
                "Options follow a colon: swin:window=14,shift. "
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
        str | None,
        option(
            group=COMPARISON,
            **choices(QUANTITIES),
            help=f"Quantity to compare: {', '.join(QUANTITIES)}.",
            show_default="macs; sent with --over ranks",
        ),
    ] = None,
    plan: Annotated[
        str | None,
        option(
            group=COMPARISON,
            **choices(KINDS),
            help=f"With --over ranks: what the ranks cut, {', '.join(KINDS)}; or as an option of a contender, vit:plan=tp.",
            show_default="all that are legal",
        ),
    ] = None,
    link: Annotated[
        str | None,
        option(
            group=COMPARISON, metavar="RATE,LATENCY", help="With --over ranks: the link between ranks, as in shard."
        ),
    ] = None,
    peak: Annotated[
        str | None,
        option(group=COMPARISON, metavar="FLOPS,RATE", help="With --over ranks: peak rates of a rank, as in shard."),
    ] = None,
    pad: Annotated[
        bool,
        option("--pad/--no-pad", group=COMPARISON, help="Pad grids to whole windows, or skip grids that need padding."),
    ] = True,
    where: Annotated[
        str | None,
        option(
            group=COMPARISON,
            metavar="CONDITION",
            help="Show a row for each contender at each point, if a condition holds: 'macs<2G', 'time<5ms and heads=3'.",
        ),
    ] = None,
    sort: Annotated[
        str | None,
        option(
            group=COMPARISON,
            metavar="FIELD",
            help="Show a row for each contender at each point, sorted by a quantity or a size; -macs: the largest first.",
        ),
    ] = None,
    memory_limit: Annotated[
        str | None,
        option(
            group=COMPARISON,
            metavar="SIZE",
            help="Find the largest batch and resolution of each contender that fit in this memory, such as 16GiB.",
        ),
    ] = None,
    frames: Annotated[
        int | None,
        option(
            group=COMPARISON,
            callback=integer("frames"),
            metavar="N",
            help="Number of frames of a video; attentions without an axis of time take each frame alone.",
            show_default="8 if an attention takes videos, else 1",
        ),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        option(
            "--input",
            group=MODULE,
            metavar="[NAME=]SHAPE[:DTYPE]",
            help="Shape of an input of modules, such as 1,56,56,96 or mask=49,49:bool. Can be repeated; attentions get as "
            "many tokens as the first one has.",
        ),
    ] = None,
    arg: Annotated[
        list[str] | None,
        option(
            "--arg",
            group=MODULE,
            metavar="NAME=VALUE",
            help="Keyword argument to build all modules with. Can be repeated.",
        ),
    ] = None,
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
    fail_above: FailAboveFlag = None,
    cannot_tell: CannotTellFlag = None,
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
    limits = read_limits(fail_above, cannot_tell, across=False)
    check_limits(limits, time)
    run = RunFlags(device, budget, threads, seed, alloc, quiet)
    line = shlex.join(["attnscope", *sys.argv[1:]])
    ranges = _ranges(over or [])
    of_ranks = {"plan": plan, "link": link, "peak": peak}
    if RANKS in ranges:
        _check_flags_of_ranks(
            stages=stages, preset=preset, frames=frames, memory_limit=memory_limit, input=inputs, arg=arg, time=time,
            fail_above=fail_above,
        )  # fmt: skip
        wanted = Wanted(quantity or "sent", where, sort)
        comparison = _of_ranks(names, settings, ranges, wanted, of_ranks, line, again)
    elif given := next((name for name, value in of_ranks.items() if value is not None), None):
        raise UsageError(f"{{{given}}} requires several numbers of ranks; add {{over}} ranks=1:16:2x")
    elif any(map(is_module, names)):
        _check_flags_of_modules(over=over, stages=stages, preset=preset, frames=frames, memory_limit=memory_limit)
        wanted = Wanted(quantity or "macs", where, sort)
        comparison, gated = _of_modules(names, settings, inputs or [], arg or [], wanted, line, run, time)
        if not time:
            comparison.next = typed(f"{again} --time"), "measure them in turn on this machine"
    else:
        if inputs or arg:
            raise UsageError("{input} and {arg} require a module, such as my_file.py:MyAttention; remove them")
        chosen = read_stages(preset) if stages or preset is not None else ()
        meeting = arrange(names, ranges, {**settings, FRAMES: frames}, chosen, pad)
        limit = None if memory_limit is None else read_limit(memory_limit)
        comparison, gated = _of_specs(meeting, Wanted(quantity or "macs", where, sort), line, run, time)
        if limit is not None:
            set_fits(comparison, meeting, limit)
        command, why = suggest(comparison, meeting, again, time)
        comparison.next = typed(command), why
    if limits is not None:
        from attnscope.analyses.gate import gate_comparison

        comparison.gate = gate_comparison(comparison, limits.limits, gated)
    if form == "json":
        write(lambda screen: comparison.to_json() + "\n", output, color, quiet)
    else:
        from attnscope.render.compare import render_comparison

        drawn = or_page(form, lambda screen: render_comparison(comparison, form, screen), comparison)
        write(drawn, output, color, quiet, wide)
        say_findings(form, [], comparison.warnings)
    if comparison.interrupted:
        raise typer.Exit(130)
    if comparison.gate is not None:
        exit_by(comparison.gate, cannot_tell, is_table=form == "table" and output is None)
    if strict:
        exit_on_faults({"there are warnings": bool(comparison.warnings)})
    if not comparison.agree:
        raise typer.Exit(1)


@dataclass(frozen=True)
class RunFlags:
    """The flags of a measurement."""

    device: str
    budget: float
    threads: int
    seed: int
    alloc: str
    quiet: bool

    def race(self, start: Callable[[], None] = lambda: None) -> Race:
        """Return how to time the contenders, with a bar of progress."""

        def progress() -> AbstractContextManager["Progress"]:
            from attnscope.render.progress import progress_bar

            return progress_bar(self.quiet)

        return Race(self.device, self.budget, self.threads, self.seed, start, progress)


Gated = Callable[["Point", str, str], "Bounds"]
"""A function that returns a count of a contender at a point, for a gate."""


def check_limits(limits: "Limits | None", time: bool) -> None:
    """Check that a comparison has what --fail-above limits.

    Raises:
        UsageError: it limits times that are not measured, or a count that a comparison does not have.
    """
    for quantity in limits.limits if limits else ():
        if quantity == "time" and not time:
            raise UsageError("{fail_above} time requires times; add {time}, or limit counts only, such as macs=1")
        if quantity != "time" and quantity not in GATED:
            raise UsageError(f"{{fail_above}} {quantity} is not compared; available: {', '.join([*GATED, 'time'])}")


def _check_flags_of_modules(**given: object) -> None:
    """Refuse the flags of a range: a module has the size of its input.

    Raises:
        UsageError: one of them is given.
    """
    for name, value in given.items():
        if value:
            fix = "compare once for each size, such as {input} 8,197,768" if name == "over" else "remove it"
            raise UsageError(f"{{{name}}} does not apply to modules, which have the size of {{input}}; {fix}")


def _check_flags_of_ranks(**given: object) -> None:
    """Refuse the flags that do not apply to several ranks.

    Raises:
        UsageError: one of them is given.
    """
    for name, value in given.items():
        if value:
            raise UsageError(f"{{{name}}} does not apply to {{over}} ranks, which is planned and not run; remove it")


def _of_ranks(
    names: list[str],
    settings: dict[str, Any],
    ranges: dict[str, list[int]],
    wanted: Wanted,
    of_ranks: dict[str, str | None],
    line: str,
    again: str,
) -> "Comparison":
    """Compare contenders and plans over numbers of ranks."""
    if others := [name for name in ranges if name != RANKS]:
        raise UsageError(f"{{over}} ranks must be the only field that varies (got {others[0]} too); remove one")
    plan, link, peak = of_ranks.values()
    shards = sharded_contenders(names, ranges[RANKS], plan, settings)
    comparison = on_ranks(
        shards,
        ranges[RANKS],
        wanted,
        None if link is None else parse_link(link),
        None if peak is None else parse_device(peak, shards[0].spec.dtype),
        line,
    )
    lacking = [text for text, given in (("--link nvlink4,5us", link), ("--peak h100", peak)) if given is None]
    command, why = next_of_ranks(comparison, shards, " ".join([again, *lacking]) if lacking else "")
    comparison.next = typed(command), why
    return comparison


def _of_modules(
    names: list[str],
    settings: dict[str, Any],
    inputs: list[str],
    arguments: list[str],
    wanted: Wanted,
    line: str,
    run: RunFlags,
    time: bool,
) -> "tuple[Comparison, Gated]":
    """Compare modules with each other, or with attentions and networks on their input."""
    from attnscope.profiling.options import check_arguments

    check_arguments(run.device, run.budget, run.threads, run.seed)
    start_torch(run.alloc if time else "default")
    found, left_out, title = candidates(names, inputs, arguments, settings, run.threads, run.seed)
    race = run.race() if time else None
    comparison = compare_candidates(found, wanted, race, line, title=title, left_out=left_out)
    return comparison, counts_of(found)


def _of_specs(meeting: Meeting, wanted: Wanted, line: str, run: RunFlags, time: bool) -> "tuple[Comparison, Gated]":
    """Compare attentions, or networks, over a range."""
    race = run.race(start=lambda: start_torch(run.alloc)) if time else None
    comparison = compare_meeting(meeting, wanted, race, line, lambda: progress_line("counting", run.quiet))

    def count(point: "Point", label: str, quantity: str) -> "Bounds":
        return bounds_of(QUANTITIES[quantity], meeting.specs(meeting.place(point.at))[label])

    return comparison, count


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


def contender_names() -> list[str]:
    """Return the names of all attentions and presets, for shell completion."""
    return [*attentions.names(), *presets()]


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
    if followed := original.metadata.get("follows"):
        return str(followed)
    of_grid = {IMAGE: "56 to 1792 px", PATCH: str(DEFAULT_PATCH), RESOLUTION: str(DEFAULT_RESOLUTION)}
    default = of_grid.get(name, original.metadata.get("shown", DEFAULTS.get(name, original.default)))
    if isinstance(default, bool):
        return ("" if default else "no-") + name.replace("_", "-")
    return spell_sides(default, "x") if isinstance(default, tuple) else str(default)
