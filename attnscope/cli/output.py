"""Where a result goes and in which form: the flags that all commands share."""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from attnscope.errors import UsageError, did_you_mean
from attnscope.render.screen import Screen

FORM_NAMES = ("table", "json", "csv", "md", "svg")

FormFlag = Annotated[str | None, typer.Option("--format", help=f"{', '.join(FORM_NAMES)}.", show_default="table, or as the file's ending says")]
JsonFlag = Annotated[bool, typer.Option("--json", help="The same as --format json.")]
OutputFlag = Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file instead of the terminal.")]
ColorFlag = Annotated[str, typer.Option(help="auto, always or never.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="Leave out what to type next.")]


def check_output(form: str | None, json: bool, output: Path | None, color: str) -> str:
    """The form to write in, once it is sure that it can be written.

    Raises:
        UsageError: an unknown form or colour, two forms at once, or a file that cannot be written.
    """
    if form is not None and form not in FORM_NAMES:
        raise UsageError(f"--format {form} is unknown; {did_you_mean(form, FORM_NAMES)}")
    if color not in ("auto", "always", "never"):
        raise UsageError(f"{{color}} {color} is unknown; there is: auto, always, never")
    if json and form not in (None, "json"):
        raise UsageError(f"--json and --format {form} contradict each other; give one of them")
    if output is not None:
        if output.is_dir():
            raise UsageError(f"{{output}} {output} is a folder; name a file in it")
        if not output.parent.is_dir():
            raise UsageError(f"{{output}} {output}: there is no folder {output.parent}")
        if not os.access(output if output.exists() else output.parent, os.W_OK):
            raise UsageError(f"{{output}} {output} cannot be written here")
    if json or form:
        return form or "json"
    ending = output.suffix.removeprefix(".") if output else ""
    return ending if ending in FORM_NAMES else "table"


def write(render: Callable[[Screen], str], output: Path | None, color: str, quiet: bool) -> None:
    """Print what `render` makes of the screen, or write it to a file: the whole of it or nothing."""
    if output is None:
        sys.stdout.write(render(Screen.of(sys.stdout, color, quiet)))
        sys.stdout.flush()
        return
    text = render(Screen(color=color == "always", quiet=quiet))
    handle, name = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}.")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(name, output.stat().st_mode if output.exists() else 0o666 & ~_umask())
    os.replace(name, output)
    print(f"written to {output}", file=sys.stderr)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
