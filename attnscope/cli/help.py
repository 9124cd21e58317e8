"""The layout of help: flags and commands in named groups, colors on a terminal, and the start page."""

from collections.abc import Iterable
from typing import Any, TextIO

import typer

from attnscope.cli.flags import GROUPS, OUTPUT
from attnscope.core.terminal import fold

WIDEST = 100
"""The largest width of lines of prose; longer ones are hard to read."""
NAMES_END = 30
"""The width of the column of names; the help of a longer name is on the next line."""

Row = tuple[str, str]
"""A name and its help."""

WAYS_IN: dict[str, tuple[Row, ...]] = {
    "Learn how an attention works": (
        ("attnscope swin --window 7 --shift --explain", "Show each step and its meaning."),
        ("attnscope windows --shift", "Draw windows, shift and mask."),
        ("attnscope explore", "Change options and see costs follow."),
    ),
    "Compare attentions": (
        ("attnscope compare", "Global and windowed attention."),
    ),
    "Measure and guard": (
        ("attnscope vit --save a.json", "Time and verify each step."),
        ("attnscope trace FILE.py:CLASS", "Count any module; --time measures it."),
        ("attnscope diff a.json b.json", "Compare two runs, also in CI."),
    ),
    "Get help": (
        ("attnscope --help", "List all commands."),
        ("attnscope COMMAND --help", "List its flags and examples."),
    ),
}  # fmt: skip
"""The start page: titles, each with example commands."""


def encodable(text: str, stream: TextIO) -> str:
    """Return a text in characters that a stream can encode: unchanged, or as tables spell it in ASCII."""
    try:
        text.encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        from attnscope.render.screen import in_ascii

        return in_ascii(text)
    return text


def start_page(context: typer.Context) -> str:
    """Return the start page, which `attnscope` shows without a command: example commands by purpose."""
    formatter = context.make_formatter()
    formatter.write_text(str(context.command.help))
    longest = max(len(command) for rows in WAYS_IN.values() for command, _ in rows)
    write_sections(
        context, formatter, WAYS_IN, names_end=longest if formatter.width > longest + NAMES_END else NAMES_END
    )
    return str(formatter.getvalue()).rstrip("\n")


def write_usage(command: Any, context: Any, formatter: Any) -> None:
    """Write the usage line of a command."""
    pieces = " ".join(command.collect_usage_pieces(context))
    formatter.write_usage(context.command_path, pieces, prefix=f"{_bold(context, 'Usage:')} ")


def write_flags(params: Iterable[Any], context: Any, formatter: Any, ungrouped: str = OUTPUT) -> None:
    """Write arguments and options in their groups.

    Args:
        params: the parameters of a command; help keeps their order within a group.
        context: the command's context.
        formatter: the formatter that receives the page.
        ungrouped: the group of options without a group, such as --help.
    """
    sections: dict[str, list[Row]] = {}
    for param in params:
        row = param.get_help_record(context)
        if row is not None:
            group = param.rich_help_panel or ungrouped if param.param_type_name == "option" else "Arguments"
            sections.setdefault(group, []).append(row)
    order = ["Arguments", *GROUPS]
    ordered = [group for group in order if group in sections]
    write_sections(context, formatter, {group: sections[group] for group in dict.fromkeys([*ordered, *sections])})


def write_sections(context: Any, formatter: Any, sections: Any, names_end: int = NAMES_END) -> None:
    """Write titled lists whose second columns are aligned.

    Args:
        context: the command's context.
        formatter: the formatter that receives the page.
        sections: the rows of each list, by its title.
        names_end: the largest width of the column of names.
    """
    widest = max((len(name) for rows in sections.values() for name, _ in rows if len(name) <= names_end), default=0)
    for title, rows in sections.items():
        with formatter.section(_bold(context, title)):
            formatter.write_dl([(_name(context, name.ljust(widest)), text) for name, text in rows], col_max=widest)


def write_examples(commands: str, context: Any, formatter: Any) -> None:
    """Write each command as shell lines that fit the width of the page."""
    with formatter.section(_bold(context, "Examples")):
        for command in commands.splitlines():
            formatter.write("".join(f"  {line}\n" for line in fold(command, formatter.width - 2)))


def _bold(context: Any, text: str) -> str:
    return typer.style(text, bold=True) if context.color else text


def _name(context: Any, text: str) -> str:
    return typer.style(text, fg="cyan") if context.color else text
