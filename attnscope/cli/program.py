"""`attnscope`: the root command, and errors as one line on stderr."""

import errno
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from attnscope.attentions.discovery import describe_failure
from attnscope.cli import failures
from attnscope.cli.commands import Group
from attnscope.cli.extension import load_attentions
from attnscope.cli.flags import HELP, option
from attnscope.cli.help import WIDEST, start_page
from attnscope.cli.messages import say
from attnscope.cli.mistakes import message_of
from attnscope.core.errors import AttnscopeError, UsageError
from attnscope.core.packages import describe_missing, missing_package
from attnscope.core.standard_output import results
from attnscope.core.terminal import shows_color
from attnscope.core.version import __version__

app = typer.Typer(
    name="attnscope",
    cls=Group,
    help="A microscope for vision attention: shapes, exact MACs and trustworthy times of every step.",
    epilog="Run attnscope COMMAND --help to list the flags of a command, and attnscope alone to see where to start.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"auto_envvar_prefix": "ATTNSCOPE", "help_option_names": list(HELP), "max_content_width": WIDEST},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"attnscope {__version__}")
        raise typer.Exit()


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    attention: Annotated[
        list[Path] | None,
        option(
            "--attention",
            group=None,
            metavar="FOLDER",
            callback=load_attentions,
            is_eager=True,
            help="Add the attention in this folder as a command. Can be repeated.",
        ),
    ] = None,
    debug: Annotated[
        bool,
        option(
            "--debug",
            group=None,
            callback=failures.show_traceback,
            is_eager=True,
            help="Show the traceback of an unexpected error.",
        ),
    ] = False,
    version: Annotated[
        bool,
        option(
            "--version", "-V", group=None, callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(start_page(context), color=context.color)


def main() -> None:
    """Run the command line. An expected error is one line on stderr and an exit code, without a traceback."""
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed by the shell, as in `attnscope vit >&-`
            setattr(sys, stream, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    try:
        code = app(prog_name="attnscope", standalone_mode=False, color=shows_color(sys.stdout))
    except AttnscopeError as error:
        code = _fail(error.in_flags(), error.exit_code)
    except typer.TyperException as error:
        code = _fail(message_of(error), error.exit_code)
    except typer.Abort:
        code = 130
    except OSError as error:
        code = _fail_in_system(error)
    except Exception as error:
        if failures.shows_traceback and missing_package(error) is None:
            raise
        code = _fail_in_library(error)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> int:
    say(f"attnscope: {message}")
    return code


def _fail_in_system(error: OSError) -> int:
    """Report a failure of the system; a pipe that its reader closed, as in `attnscope vit | head`, needs no words."""
    if error.errno not in (errno.EPIPE, errno.ENOSPC):
        return _fail(failures.of_system(error), UsageError.exit_code)
    os.dup2(os.open(os.devnull, os.O_WRONLY), results().fileno())  # Python would flush again at exit
    return 1 if error.errno == errno.EPIPE else _fail(f"the output cannot be written: {error.strerror}", 1)


def _fail_in_library(error: Exception) -> int:
    """Report an error of an attention's folder with its place, a missing package, and any other one as unexpected."""
    message, package = describe_failure(error), missing_package(error)
    if message is None and package is not None:
        message = describe_missing(package)
    return _fail(failures.of_library(error), 1) if message is None else _fail(message, UsageError.exit_code)
