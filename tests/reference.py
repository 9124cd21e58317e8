"""The reference pages of docs/, derived from the commands and the docstrings; `python -m tests.golden` writes them."""

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

import attnscope
from attnscope.attentions.discovery import built_in
from attnscope.cli.extension import OTHERS
from attnscope.cli.flags import GROUPS, OUTPUT
from attnscope.cli.peaks import shown
from attnscope.cli.program import app
from attnscope.profiling.peak_files import cache_folder

FOLDER = Path(__file__).parents[1] / "docs" / "reference"

Row = tuple[str, str]
Sections = Mapping[str, list[Row]]

COMMANDS = """\
# Commands

This page answers: which commands and flags does attnscope have?

It is what `attnscope COMMAND --help` prints; `python -m tests.golden` writes it. Each flag is also an environment variable
and a key of a config file ([how to set options](../options.md)). The [glossary](../glossary.md) defines the terms.
"""
PYTHON = """\
# Python

This page answers: what does `import attnscope` offer, and what do the arguments and results mean?

It consists of the docstrings of all public names; `python -m tests.golden` writes it. [In a notebook](../notebook.md) shows
their use. A result prints as the table of its command. It has `to_dict()` and `to_json()` with the keys of
[the JSON output](json.md), and `to_dataframe()` if pandas is installed.
"""


def commands_page() -> str:
    """Return docs/reference/commands.md: the flags of all attentions once, then those of each command."""
    root = typer.main.get_command(app)
    top = typer.Context(root, info_name="attnscope")
    of_attentions = {name: _sections(root, top, name) for name in built_in()}
    shared = _shared(of_attentions.values())
    parts = [COMMANDS, "\n## Flags of all attentions\n", *_tables(shared)]
    for name, sections in of_attentions.items():
        own = {group: [row for row in rows if row not in shared.get(group, [])] for group, rows in sections.items()}
        parts += [*_heading(root, top, name), *_tables(own)]
    for name in OTHERS:
        parts += [*_heading(root, top, name), *_tables(_sections(root, top, name))]
    return "".join(parts)


def _command(root: Any, top: typer.Context, name: str) -> tuple[Any, typer.Context]:
    """Return a command and its context."""
    command = root.get_command(top, name)
    return command, typer.Context(command, parent=top, info_name=name)


def _sections(root: Any, top: typer.Context, name: str) -> Sections:
    """Return the arguments and flags of a command with their help, by group."""
    command, context = _command(root, top, name)
    sections: dict[str, list[Row]] = {group: [] for group in ("Arguments", *GROUPS)}
    for param in command.get_params(context):
        if (row := param.get_help_record(context)) is not None:
            group = param.rich_help_panel or OUTPUT if param.param_type_name == "option" else "Arguments"
            sections.setdefault(group, []).append(row)
    return sections


def _shared(all_sections: Iterable[Sections]) -> Sections:
    """Return the rows that all of these commands have, in the order of the first."""
    first, *others = all_sections
    return {group: [row for row in rows if all(row in other.get(group, []) for other in others)]
            for group, rows in first.items()}  # fmt: skip


def _heading(root: Any, top: typer.Context, name: str) -> Iterator[str]:
    """Yield the title, the usage, the description and the examples of a command."""
    command, context = _command(root, top, name)
    usage = " ".join(["attnscope", name, *command.collect_usage_pieces(context)])
    about = " ".join((command.help or "").split()).replace(shown(cache_folder()), "the user's cache folder")
    yield f"\n## {name}\n\n`{usage}`\n\n{about}\n"
    if command.epilog:
        yield "\n" + "".join(f"    {line}\n" for line in command.epilog.splitlines())


def _tables(sections: Sections) -> Iterator[str]:
    """Yield a table for each group that has rows."""
    for group, rows in sections.items():
        if rows:
            yield f"\n| {group} | |\n|---|---|\n"
            yield from (f"| {_code(names)} | {_cell(text)} |\n" for names, text in rows)


def _code(names: str) -> str:
    return f"`{names}`".replace("|", "\\|")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def python_page() -> str:
    """Return docs/reference/python.md: the signature and the docstring of each public name, functions first."""
    objects = {name: getattr(attnscope, name) for name in attnscope.__all__}
    kinds: dict[str, Callable[[Any], bool]] = {
        "Functions": inspect.isfunction,
        "Results": lambda of: inspect.isclass(of) and hasattr(of, "to_json"),
        "Specs": lambda of: inspect.isclass(of) and dataclasses.is_dataclass(of) and not hasattr(of, "to_json"),
        "Modules": lambda of: inspect.isclass(of) and hasattr(of, "forward"),
        "Errors": lambda of: inspect.isclass(of) and issubclass(of, Exception),
    }
    functions = {name: getattr(attnscope.attentions, name) for name in attnscope.attentions.__all__}
    parts = [PYTHON]
    for title, belongs in kinds.items():
        parts.append(f"\n## {title}\n")
        for name in sorted(name for name, of in objects.items() if belongs(of)):
            parts += _entry(name, objects[name])
    parts.append(f"\n## attentions\n\n{_prose(attnscope.attentions)}")
    for name in sorted(name for name, of in functions.items() if inspect.isfunction(of)):
        parts += _entry(f"attentions.{name}", functions[name])
    return "".join(parts)


def _entry(name: str, of: Any) -> Iterator[str]:
    """Yield the signature and the docstring of a name, the fields of a Spec, and the methods of a result."""
    yield f"\n### {name}\n\n{_signature(name, of)}{_prose(of)}"
    if not inspect.isclass(of) or issubclass(of, Exception):
        return
    if hasattr(of, "to_json"):
        yield "\n| field | type |\n|---|---|\n"
        yield from (f"| `{field.name}` | {_code(_type_of(field))} |\n" for field in dataclasses.fields(of))
    elif dataclasses.is_dataclass(of):
        yield "\n| field | default | meaning |\n|---|---|---|\n"
        yield from _fields(of)
    for member, value in vars(of).items() if hasattr(of, "to_json") else ():
        function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if not member.startswith("_") and inspect.isfunction(function) and inspect.getdoc(function):
            is_call = not isinstance(value, property)
            signature = _signature(f"{name}.{member}", function) if is_call else ""
            yield f"\n**`{member}`**\n\n{signature}{_prose(function)}"


def _fields(of: type) -> Iterator[str]:
    """Yield a row for each field of a Spec, with its default and its help."""
    for field in dataclasses.fields(of):
        if text := field.metadata.get("help"):
            default = "" if field.default is dataclasses.MISSING else f"`{field.default!r}`"
            yield f"| `{field.name}` | {default} | {_cell(text)} |\n"


def _type_of(field: "dataclasses.Field[Any]") -> str:
    """Return the type of a field, without the modules of its classes."""
    of = field.type if isinstance(field.type, str) else inspect.formatannotation(field.type)
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", of)


def _signature(name: str, of: Any) -> str:
    """Return the call in Python with its argument names and defaults; a Spec has its fields in a table instead."""
    if inspect.isclass(of) and (dataclasses.is_dataclass(of) or issubclass(of, Exception)):
        return ""
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(of).parameters.values()
        if parameter.name not in ("self", "cls")
    ]
    return f"```text\n{name}{inspect.Signature(parameters)}\n```\n\n"


SECTION = re.compile(r"^(Args|Returns|Raises|Yields|Example):$", re.MULTILINE)


def _prose(of: Any) -> str:
    """Return a docstring as Markdown: its sections as lists, and code as it is."""
    text, *sections = SECTION.split(inspect.getdoc(of) or "")
    parts = [text.strip() + "\n"]
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        found = re.match(r"(?:\n*[ ]+.*)*", body)
        assert found is not None
        section, after = textwrap.dedent(found[0].strip("\n")), body[found.end() :].strip()
        if title == "Example":
            parts.append("\n" + textwrap.indent(section, "    ") + "\n")
        elif title == "Returns":
            parts.append(f"\nReturns: {' '.join(section.split())}\n")
        else:
            items = re.sub(r"\n+ +", " ", section).splitlines()
            parts += [f"\n{title}:\n\n", *(f"- {_item(item)}\n" for item in items)]
        parts += [f"\n{after}\n"] if after else []
    return "".join(parts)


def _item(item: str) -> str:
    """Return an argument or an error with its name as code."""
    return re.sub(r"^([\w*, ]+):(?= )", lambda found: f"`{found[1]}`:", item)


PAGES: Mapping[str, Callable[[], str]] = {"commands.md": commands_page, "python.md": python_page}
