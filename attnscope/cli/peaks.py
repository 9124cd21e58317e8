"""`attnscope peaks`: measures the peaks of this machine."""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from attnscope.cli.flags import RUN, choices, examples, option
from attnscope.cli.output import (
    TEXT_FORMS,
    ColorFlag,
    JsonFlag,
    OutputFlag,
    QuietFlag,
    TextFormFlag,
    WideFlag,
    check_output,
    or_page,
    write,
)
from attnscope.cli.running import ThreadsFlag, start_torch
from attnscope.core.dtypes import DTYPE_BYTES, SYNONYMS
from attnscope.core.errors import UsageError, did_you_mean
from attnscope.profiling.options import DEVICES, check_arguments
from attnscope.profiling.peak_files import cache_folder


def peaks_command(app: typer.Typer) -> None:
    """Add `attnscope peaks` to the app."""
    app.command(
        "peaks",
        help=f"{show_peaks.__doc__} They are kept in {shown(cache_folder())}.",
        epilog=examples(("attnscope peaks", "attnscope peaks --threads 2 --json", "attnscope peaks --forget")),
    )(show_peaks)


def shown(folder: Path) -> str:
    """Return a folder with ~ for the user's home."""
    home = os.path.expanduser("~")
    return (
        str(folder).replace(home, "~", 1) if home != "/" and str(folder).startswith(f"{home}{os.sep}") else str(folder)
    )


def show_peaks(
    device: Annotated[str, option(group=RUN, **choices(DEVICES), help="Device: auto, cpu, cuda, mps.")] = "auto",
    dtype: Annotated[str, option(group=RUN, **choices(DTYPE_BYTES), help="Tensor dtype.")] = "float32",
    threads: ThreadsFlag = 1,
    forget: Annotated[
        bool, option(group=RUN, help="Replace the best rates that this machine has shown by those of this measurement.")
    ] = False,
    form: TextFormFlag = None,
    json: JsonFlag = False,
    output: OutputFlag = None,
    color: ColorFlag = "auto",
    quiet: QuietFlag = False,
    wide: WideFlag = False,
) -> None:
    """Measure the peaks of this machine (matmul, softmax, copies) and keep the best for the roofline of timed runs."""
    form = check_output(form, json, output, color, TEXT_FORMS)
    if dtype not in DTYPE_BYTES:
        raise UsageError(f"{{dtype}} {dtype} is unknown; {did_you_mean(dtype, DTYPE_BYTES, synonyms=SYNONYMS)}")
    check_arguments(device, threads=threads)
    if device == "meta":
        raise UsageError("{device} must compute to have peaks (got meta); use cpu, cuda or mps")
    start_torch("pinned")
    from attnscope.profiling.peaks import measure_peaks_by_name
    from attnscope.render.peaks import UNTRUSTED, render_peaks

    peaks, trusted = measure_peaks_by_name(device, dtype, threads, forget)
    warnings = [] if trusted else [UNTRUSTED]
    options = {"warnings": warnings, "command": shlex.join(["attnscope", *sys.argv[1:]])}
    drawn = or_page(form, lambda screen: render_peaks(peaks, trusted, form, screen), peaks, **options)
    write(drawn, output, color, quiet, wide)
