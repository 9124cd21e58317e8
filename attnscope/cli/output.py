"""Where a result goes and in which form: the flags that all commands share."""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attnscope.cli.flags import OUTPUT, choices, file, option, strength
from attnscope.core.errors import UsageError, did_you_mean, literal, quoted

if TYPE_CHECKING:
    from attnscope.render.screen import Screen

FORMATS = {".txt": "table", ".log": "table", ".json": "json", ".csv": "csv", ".md": "md", ".svg": "svg"}
"""The format of a file by the ending of its name."""
FORM_NAMES = tuple(dict.fromkeys(FORMATS.values()))
TEXT_FORMS = tuple(form for form in FORM_NAMES if form != "svg")
FLAGS = ("form", "json", "output", "color", "details", "explain", "quiet", "wide")
"""The flags of this module, by their names in Python."""
COLORS = ("auto", "always", "never")


def _json(context: typer.Context, json: bool) -> bool:
    """Unless a stronger source gives another form."""
    return json and strength(context, "json") >= strength(context, "form")


def _form_unless_json(context: typer.Context, form: str | None) -> str | None:
    """Unless a stronger source wants JSON."""
    wants_json = context.params.get("json")
    return None if wants_json and strength(context, "json") > strength(context, "form") else form


def _form(names: tuple[str, ...]) -> Any:
    told = f"{', '.join(names)}; by default that of the file's ending, or a table."
    return option("--format", group=OUTPUT, **choices(names), help=told, callback=_form_unless_json)


FormFlag = Annotated[str | None, _form(FORM_NAMES)]
TextFormFlag = Annotated[str | None, _form(TEXT_FORMS)]
"""Of a command that draws no picture."""
JsonFlag = Annotated[bool, option("--json", group=OUTPUT, help="The same as --format json.", callback=_json)]
OutputFlag = Annotated[
    Path | None,
    option(
        "--output",
        "-o",
        group=OUTPUT,
        metavar="FILE",
        help="Write to this file instead of the terminal.",
        callback=file,
    ),
]
ColorFlag = Annotated[str, option(group=OUTPUT, **choices(COLORS), help=f"{', '.join(COLORS)}.")]
QuietFlag = Annotated[bool, option("--quiet", "-q", group=OUTPUT, help="Hide the suggested next command.")]
DetailsFlag = Annotated[
    bool,
    option(
        "--details", group=OUTPUT, help="Show kernels, roofline, conventions, environment and how times were taken."
    ),
]
ExplainFlag = Annotated[
    bool, option("--explain", group=OUTPUT, help="Explain each step, why it is there, and each column.")
]
WideFlag = Annotated[
    bool,
    option("--wide", group=OUTPUT, help="Show all columns (default: those that fit, 120 characters in a pipe)."),
]


def check_output(
    form: str | None, json: bool, output: Path | None, color: str, forms: tuple[str, ...] = FORM_NAMES
) -> str:
    """Return the format to write in, of those that the command has, once it is sure that it can be written.

    Raises:
        UsageError: an unknown format or colour, two formats at once, or a file that cannot be written.
    """
    if form is not None and form not in FORM_NAMES:
        raise UsageError(f"--format {quoted(form)} is unknown; {did_you_mean(form, forms)}")
    if color not in COLORS:
        raise UsageError(f"{{color}} {quoted(color)} is unknown; there is: {', '.join(COLORS)}")
    if json and form not in (None, "json"):
        raise UsageError(f"--json and --format {form} contradict each other; give one of them")
    check_file("output", output)
    if form is None and not json:
        return _form_of(output, forms)
    chosen = form or "json"
    if chosen not in forms:
        raise UsageError(f"--format {chosen} has no place here; there is: {', '.join(forms)}")
    return chosen


def _form_of(output: Path | None, forms: tuple[str, ...]) -> str:
    """Return the format that the ending of a file asks for; a table without a file or an ending, as for /dev/null.

    Raises:
        UsageError: the command has no such format.
    """
    if output is None or not output.suffix:
        return "table"
    form = FORMATS.get(output.suffix.lower())
    if form not in forms:
        known = [ending for ending, form in FORMATS.items() if form in forms]
        raise UsageError(
            f"{{output}} {literal(output)}: the ending must be {', '.join(known[:-1])} or {known[-1]}; "
            "or give the format with --format"
        )
    return form


def check_file(flag: str, path: Path | None) -> None:
    """Whether the file that a flag names can be written.

    Raises:
        UsageError: it is a folder, in no folder, or protected.
    """
    if path is None:
        return
    if path == Path():  # which "" is too
        raise UsageError(f"{{{flag}}} names no file but this folder; name a file in it")
    shown = f"{{{flag}}} {literal(path)}"
    if path.is_dir():
        raise UsageError(f"{shown} is a folder; name a file in it")
    if not path.parent.is_dir():
        raise UsageError(f"{shown}: there is no folder {literal(path.parent)}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"{shown} cannot be written here")


def write(render: "Callable[[Screen], str]", output: Path | None, color: str, quiet: bool, wide: bool = False) -> None:
    """Print the text that `render` returns for the screen, or write it to a file.

    Raises:
        UsageError: the file cannot be written.
    """
    from attnscope.render.screen import Screen

    if output is None:
        _print(render(Screen.of(sys.stdout, color, quiet, wide)))
        return
    text = render(Screen.of_file(color, quiet, wide))
    try:
        _write_file(text.encode("utf-8", "backslashreplace"), output)
    except OSError as error:
        raise UsageError(f"{literal(output)} cannot be written: {error.strerror}") from None
    print(f"written to {output}", file=sys.stderr)


def _write_file(data: bytes, file: Path) -> None:
    """Write the whole of it or nothing; what is no plain file, such as a pipe or /dev/null, stays what it is."""
    if file.exists() and not file.is_file():
        file.write_bytes(data)
        return
    file = file.resolve()  # a link stays one too
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as new:
            new.write(data)
        os.chmod(name, file.stat().st_mode if file.exists() else 0o666 & ~_umask())
        os.replace(name, file)
    except BaseException:
        os.unlink(name)
        raise


def _print(text: str) -> None:
    """Print in the terminal's encoding, and as UTF-8 what it cannot hold, as in a file: only tables know its letters."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except UnicodeEncodeError:
        sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
        sys.stdout.buffer.flush()


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
