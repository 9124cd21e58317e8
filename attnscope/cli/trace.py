"""`attnscope trace`: shows the steps and costs of any module."""

import shlex
import sys
from dataclasses import replace
from typing import Annotated

import typer

from attnscope.analyses.figure import counts_of_trace, explain_figure, parse_figure
from attnscope.cli.against import compare_traces
from attnscope.cli.diff import write_diff
from attnscope.cli.extension import typed_again
from attnscope.cli.flags import MEASURE, MODULE, OUTPUT, RUN, Needs, choices, examples, option, strength
from attnscope.cli.gate import AcrossFlag, CannotTellFlag, FailAboveFlag, read_limits
from attnscope.cli.messages import say_findings
from attnscope.cli.output import FLAGS as OUTPUT_FLAGS
from attnscope.cli.output import (
    TEXT_FORMS,
    TRACE_FORMS,
    ColorFlag,
    DetailsFlag,
    ExplainFlag,
    JsonFlag,
    OutputFlag,
    QuietFlag,
    TraceFormFlag,
    WideFlag,
    check_output,
    write,
)
from attnscope.cli.progress import progress_line
from attnscope.cli.running import (
    PROCESSES,
    BudgetFlag,
    InputGradFlag,
    SeedFlag,
    ThreadsFlag,
    exit_on_faults,
    start_torch,
)
from attnscope.core.reading import integer
from attnscope.profiling.fresh_processes import DEFAULT_PROCESSES, FEWEST_PROCESSES
from attnscope.profiling.options import BUDGET_S, DEVICES, check_processes
from attnscope.tracing.folding import GROUPS
from attnscope.tracing.selection import SORTS
from attnscope.tracing.targets import find_target, parse_argument, parse_input

EXAMPLES = (
    "attnscope trace timm:swin_tiny_patch4_window7_224",
    "attnscope trace torchvision:swin_t --module features.1.0.attn --time",
    "attnscope trace my_file.py:MyAttention --arg dim=96 --arg heads=3 --input 1,49,96",
    "attnscope trace my_file.py:MyAttention --input 1,49,96 --against main --fail-above macs=1,time=1.1",
)


def _measures(context: typer.Context, time: bool) -> bool:
    """Return the value of --time; a comparison of revisions measures times unless --no-time is given."""
    return time or (context.params.get("against") is not None and not strength(context, "time"))


def trace_command(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(
        "trace",
        epilog=examples(EXAMPLES),
    )(run_trace)


def run_trace(
    context: typer.Context,
    module: Annotated[
        str,
        typer.Argument(
            metavar="MODULE",
            help="Module to trace: timm:NAME, torchvision:NAME, hf:TYPE (or a config.json), FILE.py:NAME or "
            "PACKAGE.MODULE:NAME.",
        ),
    ],
    arg: Annotated[
        list[str] | None,
        option(
            "--arg",
            group=MODULE,
            metavar="NAME=VALUE",
            help="Keyword argument to build the module with. Can be repeated.",
        ),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        option(
            "--input",
            group=MODULE,
            metavar="[NAME=]SHAPE[:DTYPE]",
            help="Shape of an input, such as 1,49,96 or mask=49,49:bool. Can be repeated; optional "
            "if the module declares its inputs.",
        ),
    ] = None,
    submodule: Annotated[
        str | None,
        option(
            "--module",
            group=MODULE,
            metavar="PATH",
            help="Trace only this submodule, with the inputs that it receives in the module.",
        ),
    ] = None,
    group: Annotated[
        str,
        option(
            group=OUTPUT,
            **choices(GROUPS),
            help=f"Rows of the table: {', '.join(f'{k} ({v})' for k, v in GROUPS.items())}.",
        ),
    ] = "module",
    depth: Annotated[
        int | None,
        option(
            group=OUTPUT,
            callback=integer("depth"),
            metavar="N",
            help="Number of levels of nested modules to show.",
            show_default="those that fit a screen",
        ),
    ] = None,
    everything: Annotated[
        bool,
        option("--all", group=OUTPUT, help="Show all rows of all levels, not only those that fit in 60 lines."),
    ] = False,
    sort: Annotated[
        str | None,
        option(
            group=OUTPUT,
            **choices(SORTS),
            help=f"Sort the rows by {', '.join(SORTS)}.",
            show_default="in the order of the calls",
        ),
    ] = None,
    top: Annotated[
        int | None,
        option(
            group=OUTPUT,
            callback=integer("top"),
            metavar="N",
            help="Show only the N largest rows, by --sort, by time or by MACs; one more row sums the others.",
        ),
    ] = None,
    time: Annotated[
        bool,
        option(
            "--time/--no-time",
            group=MEASURE,
            help="Measure times, or report shapes and costs without computing anything.",
            callback=_measures,
            show_default="only with --against",
        ),
    ] = False,
    backward: Annotated[
        bool, option("--backward", group=MEASURE, help="Also count the MACs of the backward of each row.")
    ] = False,
    input_grad: InputGradFlag = True,
    against: Annotated[
        str | None,
        option(
            group=MEASURE,
            metavar="REV",
            help="Compare the module with that in a revision of its Git repository: counts exactly, and times in turn in "
            "fresh processes.",
            is_eager=True,
        ),
    ] = None,
    processes: Annotated[int, PROCESSES, Needs("against")] = DEFAULT_PROCESSES,
    fail_above: Annotated[FailAboveFlag, Needs("against", is_gate=True)] = None,
    cannot_tell: CannotTellFlag = None,
    across: AcrossFlag = False,
    device: Annotated[
        str | None,
        option(
            group=RUN,
            **choices(DEVICES),
            help=f"Device: {', '.join(DEVICES)}.",
            show_default="meta, or auto with --time",
        ),
    ] = None,
    budget: BudgetFlag = BUDGET_S,
    threads: ThreadsFlag = 1,
    seed: SeedFlag = 0,
    strict: Annotated[
        bool,
        option(
            "--strict",
            group=MEASURE,
            help="Exit with code 1 if a formula is missing, a shape comment is wrong or another warning is raised.",
        ),
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
    form: TraceFormFlag = None,
    json: JsonFlag = False,
    output: OutputFlag = None,
    color: ColorFlag = "auto",
    details: DetailsFlag = False,
    explain: ExplainFlag = False,
    quiet: QuietFlag = False,
    wide: WideFlag = False,
) -> None:
    """Trace any module: its torch calls with shapes, costs and times, and the attention in it.

    Networks are built with random weights; nothing is downloaded. FILE.py is imported with its folder first on the search
    path, so that its module-level code is executed.
    """
    form = check_output(form, json, output, color, TRACE_FORMS if against is None else TEXT_FORMS)
    if explained is not None:
        parse_figure(explained)
    if against is not None:
        limits = read_limits(fail_above, cannot_tell, across)
        check_processes(processes, FEWEST_PROCESSES)
        diff, names = compare_traces(context, module, against, time, processes, limits)
        write_diff(diff, names, cannot_tell, form, output, color, quiet, wide)
        return
    tensors = [parse_input(text) for text in inputs or []]
    arguments = dict(parse_argument(text) for text in arg or [])
    start_torch("pinned" if time else "default")
    from attnscope.render import findings_of, render
    from attnscope.tracing.trace import TraceOptions, trace_target

    target = find_target(module, arguments, tensors)
    command = shlex.join(["attnscope", *sys.argv[1:]])
    again = typed_again(context, (*OUTPUT_FLAGS, "submodule", "time", "group", *["device"] * (device == "meta")))
    focus = tuple(name for name, wanted in {"details": details, "explain": explain}.items() if wanted)
    with progress_line() as progress:
        options = TraceOptions(
            time,
            device,
            group,
            depth,
            submodule,
            budget,
            threads,
            seed,
            command,
            progress,
            again,
            focus,
            everything,
            sort,
            top,
            backward,
            input_grad,
        )
        report = trace_target(target, options)
    if explained is not None:
        counts = counts_of_trace(report)
        report = replace(report, figure=explain_figure(explained, counts, report.totals.params, "this input"))
    write(lambda screen: render(report, form, screen), output, color, quiet, wide)
    say_findings(form, *findings_of(report))
    if strict:
        exit_on_faults(
            {
                "a formula is missing": bool(report.uncounted),
                "there are warnings": bool(report.warnings),
            }
        )
