"""How help is laid out: flags and commands in named groups, in colour on a terminal, and the page that a newcomer sees."""

from collections.abc import Iterable
from typing import Any

import typer

from attnscope.cli.flags import GROUPS, OUTPUT
from attnscope.core.terminal import fold

WIDEST = 100
"""Columns beyond which lines of prose are hard to read."""
NAMES_END = 30
"""Columns for the names of flags and commands; a longer name has its help on the next line."""

Row = tuple[str, str]
"""A name, and its help."""

WAYS_IN: dict[str, tuple[Row, ...]] = {
    "Learn how an attention works": (
        ("attnscope swin --window 7 --shift", "Each step: shapes, cost and time."),
        ("attnscope windows --shift", "Pictures of windows, shift and mask."),
    ),
    "Compare attentions": (
        ("attnscope compare", "Global and windowed, with break-evens."),
    ),
    "Measure and guard": (
        ("attnscope vit --save a.json", "Time and verify each step."),
        ("attnscope trace FILE.py:CLASS", "The same for any module."),
        ("attnscope diff a.json b.json", "What changed, and a gate for CI."),
    ),
    "Get help": (
        ("attnscope --help", "All commands."),
        ("attnscope COMMAND --help", "Its flags, and examples."),
    ),
}  # fmt: skip
"""What `attnscope` alone shows: titles, and commands below them."""


def start_page(context: typer.Context) -> str:
    """Return what a newcomer sees: three ways in, and how to get help."""
    formatter = context.make_formatter()
    formatter.write_text(str(context.command.help))
    longest = max(len(command) for rows in WAYS_IN.values() for command, _ in rows)
    write_sections(context, formatter, WAYS_IN, names_end=longest if formatter.width > 2 * longest else NAMES_END)
    return str(formatter.getvalue()).rstrip("\n")


def write_usage(command: Any, context: Any, formatter: Any) -> None:
    """Write the line that says how a command is called."""
    pieces = " ".join(command.collect_usage_pieces(context))
    formatter.write_usage(context.command_path, pieces, prefix=f"{_bold(context, 'Usage:')} ")


def write_flags(params: Iterable[Any], context: Any, formatter: Any, ungrouped: str = OUTPUT) -> None:
    """Write arguments and options in their groups.

    Args:
        params: the parameters of a command, those of a group in the order in which help lists them.
        context: the command's context.
        formatter: what the page is written to.
        ungrouped: the group of options that have none, such as --help.
    """
    sections: dict[str, list[Row]] = {}
    for param in params:
        row = param.get_help_record(context)
        if row is not None:
            group = param.rich_help_panel or ungrouped if param.param_type_name == "option" else "Arguments"
            sections.setdefault(group, []).append(row)
    order = ["Arguments", *GROUPS]
    known = [group for group in order if group in sections]
    write_sections(context, formatter, {group: sections[group] for group in dict.fromkeys([*known, *sections])})


def write_sections(context: Any, formatter: Any, sections: Any, names_end: int = NAMES_END) -> None:
    """Write titled lists whose second columns begin at the same place.

    Args:
        context: the command's context.
        formatter: what the page is written to.
        sections: the rows of each list, by its title.
        names_end: the columns for the names.
    """
    widest = max((len(name) for rows in sections.values() for name, _ in rows if len(name) <= names_end), default=0)
    for title, rows in sections.items():
        with formatter.section(_bold(context, title)):
            formatter.write_dl([(_name(context, name.ljust(widest)), told) for name, told in rows], col_max=widest)


def write_examples(commands: str, context: Any, formatter: Any) -> None:
    """Write commands, one a line, as lines of a shell that are no wider than the page."""
    with formatter.section(_bold(context, "Examples")):
        for command in commands.splitlines():
            formatter.write("".join(f"  {line}\n" for line in fold(command, formatter.width - 2)))


def _bold(context: Any, text: str) -> str:
    return typer.style(text, bold=True) if context.color else text


def _name(context: Any, text: str) -> str:
    return typer.style(text, fg="cyan") if context.color else text
