"""The format and the destination of the output, and their flags, which all commands share."""

import errno
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attnscope.cli.flags import OUTPUT, choices, file, option, strength
from attnscope.cli.messages import say
from attnscope.core.errors import UsageError, did_you_mean, literal, quoted
from attnscope.core.standard_output import results

if TYPE_CHECKING:
    from attnscope.render.screen import Screen

GRAPH_FORMATS = {".mmd": "mermaid", ".dot": "dot"}
FORMATS = {
    ".txt": "table",
    ".log": "table",
    ".json": "json",
    ".csv": "csv",
    ".md": "md",
    ".svg": "svg",
    ".html": "html",
    **GRAPH_FORMATS,
}
"""The format of a file, by its extension."""
TRACE_FORMS = tuple(dict.fromkeys(FORMATS.values()))
"""The formats of a command that has graphs."""
FORM_NAMES = tuple(form for form in TRACE_FORMS if form not in GRAPH_FORMATS.values())
TEXT_FORMS = tuple(form for form in FORM_NAMES if form != "svg")
FLAGS = ("form", "json", "output", "color", "details", "explain", "quiet", "wide")
"""The names in Python of this module's flags."""
COLORS = ("auto", "always", "never")
LONGEST_PREFIX = 40
"""Characters of a file's name in that of its unfinished copy, which is longer and must not exceed the system's limit."""


def _json(context: typer.Context, json: bool) -> bool:
    """Return the value of --json, or False if a stronger source sets another format."""
    return json and strength(context, "json") >= strength(context, "form")


def _form_unless_json(context: typer.Context, form: str | None) -> str | None:
    """Return the value of --format, or None if a stronger source sets --json."""
    wants_json = context.params.get("json")
    return None if wants_json and strength(context, "json") > strength(context, "form") else form


def _form(names: tuple[str, ...]) -> Any:
    text = f"Output format: {', '.join(names)}; by default that of the file extension, or table."
    return option("--format", group=OUTPUT, **choices(names), help=text, callback=_form_unless_json)


FormFlag = Annotated[str | None, _form(FORM_NAMES)]
TraceFormFlag = Annotated[str | None, _form(TRACE_FORMS)]
TextFormFlag = Annotated[str | None, _form(TEXT_FORMS)]
"""The flag of a command without pictures."""
JsonFlag = Annotated[bool, option("--json", group=OUTPUT, help="Same as --format json.", callback=_json)]
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
ColorFlag = Annotated[str, option(group=OUTPUT, **choices(COLORS), help=f"When to use colors: {', '.join(COLORS)}.")]
QuietFlag = Annotated[bool, option("--quiet", "-q", group=OUTPUT, help="Hide the suggested next command.")]
DetailsFlag = Annotated[
    bool,
    option(
        "--details", group=OUTPUT, help="Show kernels, roofline, counting conventions, timing method and environment."
    ),
]
ExplainFlag = Annotated[
    bool, option("--explain", group=OUTPUT, help="Explain each step and its purpose, and each column.")
]
WideFlag = Annotated[
    bool,
    option(
        "--wide",
        group=OUTPUT,
        help="Show all columns (default: those that fit the terminal, or 120 characters in a pipe).",
    ),
]


def check_output(
    form: str | None, json: bool, output: Path | None, color: str, forms: tuple[str, ...] = FORM_NAMES
) -> str:
    """Return the output format, after a check of the format, the color and the output file.

    Args:
        form: value of --format.
        json: value of --json.
        output: value of --output.
        color: value of --color.
        forms: formats of the command.

    Raises:
        UsageError: if the format or the color is unknown, two formats are given, or the file cannot be written.
    """
    if form is not None and form not in TRACE_FORMS:
        raise UsageError(f"--format {quoted(form)} is unknown; {did_you_mean(form, forms)}")
    if color not in COLORS:
        raise UsageError(f"{{color}} {quoted(color)} is unknown; available: {', '.join(COLORS)}")
    if json and form not in (None, "json"):
        raise UsageError(f"--json and --format {form} contradict each other; give one of them")
    check_file("output", output)
    if form is None and not json:
        return _form_of(output, forms)
    chosen = form or "json"
    if chosen not in forms:
        raise UsageError(f"--format {chosen} is not available for this command; available: {', '.join(forms)}")
    return chosen


def _form_of(output: Path | None, forms: tuple[str, ...]) -> str:
    """Return the format of a file by its extension; without a file or an extension, as for /dev/null, a table.

    Raises:
        UsageError: if the command does not have the format.
    """
    if output is None or not output.suffix:
        return "table"
    form = FORMATS.get(output.suffix.lower())
    if form not in forms:
        allowed = [extension for extension, form in FORMATS.items() if form in forms]
        raise UsageError(
            f"{{output}} must have the extension {', '.join(allowed[:-1])} or {allowed[-1]} (got {literal(output)}); "
            "change it or add --format"
        )
    return form


def check_file(flag: str, path: Path | None) -> None:
    """Check that the file of a flag can be written.

    Raises:
        UsageError: if it is a folder, its folder does not exist, or permission is denied.
    """
    if path is None:
        return
    if path == Path():  # also for the empty text
        raise UsageError(f"{{{flag}}} must be a file (got the current folder); add a file name")
    if path.is_dir():
        raise UsageError(f"{{{flag}}} must be a file (got the folder {literal(path)}); add a file name")
    if not path.parent.is_dir():
        raise UsageError(
            f"{{{flag}}} must be in an existing folder (got {literal(path)}); create the folder {literal(path.parent)}"
        )
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"{{{flag}}} must be writable (got {literal(path)}); choose another file")


def or_page(form: str, render: "Callable[[Screen], str]", result: Any, **options: Any) -> "Callable[[Screen], str]":
    """Return the function that draws a result on a screen: as a page if the format is html, otherwise `render`.

    Args:
        form: the format.
        render: draws all other formats.
        result: the result.
        options: further arguments of its page, such as the names of two runs.
    """
    if form != "html":
        return render
    from attnscope.render.page import render_page

    return lambda screen: render_page(result, **options)


def write(render: "Callable[[Screen], str]", output: Path | None, color: str, quiet: bool, wide: bool = False) -> None:
    """Print the text that `render` returns for the screen, or write it to a file.

    Raises:
        UsageError: if the file cannot be written.
    """
    from attnscope.render.screen import Screen

    if output is None:
        _print(render(Screen.of(results(), color, quiet, wide)))
        return
    write_text(render(Screen.of_file(color, quiet, wide)), output)
    say(f"written to {output}")


def write_text(text: str, output: Path) -> None:
    """Write a text to a file.

    Raises:
        UsageError: if the file cannot be written.
    """
    try:
        _write_file(text.encode("utf-8", "backslashreplace"), output)
    except OSError as error:
        raise UsageError(f"{literal(output)} cannot be written: {error.strerror}") from None


def _write_file(data: bytes, file: Path) -> None:
    """Write all of the data or none of it. A pipe or a device such as /dev/null is not replaced by a regular file."""
    if file.exists() and not file.is_file():
        file.write_bytes(data)
        return
    file = Path(os.path.realpath(file))  # a link is not replaced either
    if file.is_symlink():  # realpath returns a link only if it leads to itself
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(file))
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name[:LONGEST_PREFIX]}.")
    try:
        with os.fdopen(handle, "wb") as new:
            new.write(data)
        os.chmod(name, file.stat().st_mode if file.exists() else 0o666 & ~_umask())
        os.replace(name, file)
    finally:
        with suppress(OSError):
            os.unlink(name)  # if the write failed or was interrupted


def _print(text: str) -> None:
    """Print text in the terminal's encoding, or as UTF-8 if that cannot encode it. Only tables avoid such characters."""
    try:
        results().write(text)
        results().flush()
    except UnicodeEncodeError:
        results().buffer.write(text.encode("utf-8", "backslashreplace"))
        results().buffer.flush()


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
