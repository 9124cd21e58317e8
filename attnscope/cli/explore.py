"""`attnscope explore`: the live explorer, which starts from the flags of an attention's command."""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from attnscope import attentions
from attnscope.attentions.spec import Spec
from attnscope.cli.attention import ConfigFlag, PresetFlag
from attnscope.cli.extension import typed
from attnscope.cli.flags import MEASURE, examples, option
from attnscope.cli.output import COLORS, ColorFlag, check_file, write_text
from attnscope.cli.running import DeviceFlag, SeedFlag, ThreadsFlag
from attnscope.core.errors import UsageError, did_you_mean, quoted
from attnscope.core.reading import number
from attnscope.networks import configs
from attnscope.profiling.options import BUDGET_S, check_arguments

EXAMPLES = (
    "attnscope explore",
    "attnscope explore swin --window 7 --shift",
    "attnscope explore swin-t-224",
)
SIGNALLED = 128
"""The exit code of a process that a signal ended, minus the signal."""
DEFAULT = "vit"
"""The attention to explore by default."""


def explore_command(app: typer.Typer) -> None:
    """Add the command to the app."""
    settings = {"ignore_unknown_options": True}  # they are the flags of the attention
    app.command("explore", epilog=examples(EXAMPLES), context_settings=settings)(explore)


def explore(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ATTENTION|PRESET] [FLAGS]",
            show_default=False,
            autocompletion=attentions.names,
            help=f"Attention or network to start from, by default {DEFAULT}, with the flags of its own command.",
        ),
    ] = None,
) -> None:
    """Explore an attention live in the terminal: keys change its options, and shapes, costs and pictures follow."""
    from attnscope.cli.commands import build_attention

    name, flags = DEFAULT, list(words or ())
    if flags and not flags[0].startswith("-"):
        name, *flags = flags
    if family := configs.attention_of(name):
        name, flags = family, ["--preset", name, "--scope", "model", *flags]
    if name not in attentions.names():
        raise UsageError(f"the attention {quoted(name)} is unknown; {did_you_mean(name, attentions.names())}")
    command = build_attention(name, run_explorer)
    with command.make_context(name, flags, parent=context) as inner:
        command.invoke(inner)


def run_explorer(
    spec: Spec,
    preset: PresetFlag = None,
    device: DeviceFlag = "auto",
    threads: ThreadsFlag = 1,
    seed: SeedFlag = 0,
    config: ConfigFlag = None,
    budget: Annotated[
        float,
        option(
            group=MEASURE,
            callback=number("budget"),
            metavar="X",
            help="Seconds to spend on each measurement (up to 3× on a busy machine).",
        ),
    ] = BUDGET_S,
    color: ColorFlag = "auto",
) -> None:
    """Run the explorer, then print the commands that the user copied."""
    check_arguments(device, budget, threads, seed)
    if color not in COLORS:
        raise UsageError(f"{{color}} {quoted(color)} is unknown; available: {', '.join(COLORS)}")
    if color == "never":
        os.environ["NO_COLOR"] = "1"
    from attnscope.attentions.draft import Draft
    from attnscope.tui.explorer import Explorer, Tools

    draft = Draft.of(spec)
    if not (sys.stdin.isatty() and sys.stderr.isatty()) or os.environ.get("TERM") in ("dumb", "unknown"):
        raise UsageError(f"explore requires a terminal; for output in a pipe or a file, use: {draft.command}")
    from attnscope.render.screen import Screen
    from attnscope.reports.report import Report

    def save(report: Report, file: Path) -> None:
        check_file("save", file)
        write_text(report.to_json() + "\n", file)

    def write_page(report: Report, file: Path) -> None:
        from attnscope.render.page import render_page

        check_file("output", file)
        write_text(render_page(report), file)

    values = {"device": (device, "auto"), "threads": (threads, 1), "seed": (seed, 0), "budget": (budget, BUDGET_S)}
    flags = "".join(f" --{name} {value}" for name, (value, default) in values.items() if value != default)
    tools = Tools(typed, save, write_page, {name: value for name, (value, _) in values.items()}, flags)
    app = Explorer(draft, tools, ascii=Screen.of(sys.stderr).ascii)
    for name in ("COLUMNS", "LINES"):  # a shell that exports them would fix the size, and a resize have no effect
        os.environ.pop(name, None)
    handlers = [(each, signal.getsignal(each)) for each in (signal.SIGINT, signal.SIGTERM)]
    stdout = sys.__stdout__
    sys.__stdout__ = sys.__stderr__  # type: ignore[misc] # Textual asks it for the size, and it may be a pipe
    try:
        copied = app.run() or ()
    finally:
        sys.__stdout__ = stdout  # type: ignore[misc]
    for each, handler in handlers:  # the explorer has handlers of its own
        signal.signal(each, handler)
    for command in copied:
        print(command)
    if app.return_code:  # the terminal is as it was, and the command ends as others do
        signal.raise_signal(app.return_code - SIGNALLED)
